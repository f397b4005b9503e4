"""Fold a LoRA adapter into its base, and prove that the merged checkpoint is the trained model.

Writes `checkpoint/`: safetensors with the base's own tensor names, processor, chat template and
generation config beside them; and `layer_changes.json`: by how much each adapted weight changed. The stage
fails unless every adapter tensor was applied, exactly the adapted modules changed, merged logits equal
adapter-on logits on fixed images, the saved files hold base + adapter and reload to the same logits, and
vLLM answers token for token as transformers does.

  align merge recipes/quickstart/merge.yaml
  align merge model.path=BASE adapter=runs/x/sft/adapter verify.image_root=IMAGES run_dir=runs/x

An adapter trained on a 4-bit or 8-bit base (QLoRA) belongs to those rounded weights: `merge_into: auto`
merges it into them, held in 16 bits, so that the checkpoint is the model that was trained; `original` merges
it into the weights before they were rounded. The result is never quantised.

  align merge --verify CHECKPOINT --base BASE --adapter ADAPTER     # anyone's merge; `--verify --help`

Next: `align sample` or `align generate` on the checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from align.config.model_ref import PIXELS, ModelRef
from align.config.recipe import StageRecipe, Strict
from align.digest import MANIFEST
from align.errors import AlignError
from align.inputs.chat import sees_images, tokenizer_of
from align.merging import merge_checks as checks
from align.merging.layer_changes import LAYER_CHANGES
from align.merging.merge_verify import merge_target, verify
from align.merging.quantized_base import round_base
from align.models.adapter_folder import Adapter, check_base, check_mergeable, read_adapter
from align.models.checkpoint_weights import copy_left_out
from align.models.loading import (
    CHAT_TEMPLATE,
    Dtype,
    ModelSection,
    load_model,
    load_processor,
    weights_digest,
)
from align.progress import quiet_libraries, say
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.serving.client import ChatRequest, Choice, Failure, Reply, Sampling, ask
from align.serving.server import ServeSettings, serve

CHECKPOINT = "checkpoint"
_IMAGE_PROMPTS = ("Describe the image.", "Is there a person in the image? Answer with yes or no.")
_TEXT_PROMPTS = (
    "Correct the sentence: She go to school every days.",
    "What is the capital of France?",
    "Name three animals that live in the sea.",
    "Write one sentence about the rain.",
)
LAYER_TOLERANCE = 1e-5
"""Largest difference of a saved weight beyond its dtype's rounding, as a share of its largest entry."""


class VerifySection(Strict):
    """On what, and how closely, merged and adapter-on outputs are compared."""

    image_root: Path | None = Field(
        default=None, description="folder of images to compare on; null for a text-only model"
    )
    num_images: int = Field(default=8, ge=1, description="how many, spread evenly over the sorted files")
    prompts: list[str] | None = Field(
        default=None,
        min_length=1,
        description="questions about the images, taken in turn, or prompts of a text-only model, each asked "
        "once; null: a few fixed ones",
    )
    max_tokens: int = Field(default=32, ge=1, description="length of the greedy answers compared on")
    tolerance: float = Field(default=1e-3, gt=0, description="largest logit difference in float32")
    rounding_tolerance: float = Field(
        default=0.5, gt=0, description="largest logit difference after rounding the weights to 16 bits"
    )
    quantized_tolerance: float = Field(
        default=1.0,
        gt=0,
        description="largest logit difference from the quantised model that was trained, which multiplies "
        "in bfloat16",
    )
    min_top1_agreement: float = Field(
        default=0.98, ge=0, le=1, description="least share of equal next tokens after rounding"
    )


class ServeCheckSection(Strict):
    """The merged checkpoint behind vLLM against transformers, greedy, on the same images."""

    min_agreement: float = Field(default=0.98, ge=0, le=1, description="least share of equal tokens")
    serve: ServeSettings = Field(default=ServeSettings(), description="how the server is started")


class Recipe(StageRecipe):
    """The recipe of `align merge`."""

    name: str = "merge"
    model: ModelSection = Field(description="the base that the adapter was trained on")
    adapter: Path = Field(description="the adapter folder of an SFT or DPO stage")
    dtype: Dtype = Field(default="auto", description="dtype of the merged weights; auto is the base's")
    merge_into: Literal["auto", "original", "dequantized"] = Field(
        default="auto",
        description="which weights the adapter is added to: those that it was trained on (auto), the base's "
        "own, or the base's rounded as in QLoRA and held in 16 bits",
    )
    verify: VerifySection = Field(
        default=VerifySection(), description="comparison of merged and adapter-on outputs"
    )
    serve_check: ServeCheckSection | Literal[False] = Field(
        default=ServeCheckSection(), description="false leaves the served comparison out, and says so"
    )


def run(recipe: Recipe) -> RunFolder:
    """Merge, verify, save.

    Raises:
        AlignError: the first check that does not hold.
    """
    inputs = {"model": recipe.model, "adapter": recipe.adapter}
    if recipe.verify.image_root is not None:
        inputs["images"] = recipe.verify.image_root
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    quiet_libraries()
    say(f"merging {recipe.adapter} into {recipe.model.path}")
    shutil.rmtree(folder.work / CHECKPOINT, ignore_errors=True)
    adapter = read_adapter(recipe.adapter)
    check_mergeable(adapter)
    given = json.loads((folder.work / MANIFEST).read_text())["inputs"]["model"]
    check_base(adapter, given["digest"], where=f"model.path = {recipe.model.path}")
    target = merge_target(adapter, recipe.merge_into)
    processor = load_processor(_model_section(recipe))
    probes = _probes(recipe.verify, processor)
    merged = _merge(recipe, folder, processor, probes, target)
    _compare_layers(recipe, folder, adapter)
    expected = _reload(recipe, folder, merged)
    metrics = merged.metrics | _serve(recipe, folder, merged, expected)
    return Done(metrics, f"align generate (checkpoint: {folder.final / CHECKPOINT})")


def direct(words: Sequence[str]) -> int | None:
    """`align merge --verify ...`, which needs no recipe; None where the words name one."""
    if "--verify" not in words:
        return None
    from align.merging.merge_verify import main

    return main(words)


def _probes(verify: VerifySection, processor: Any) -> list[checks.Probe]:
    if sees_images(processor):
        return checks.make_probes(verify.image_root, verify.num_images, verify.prompts or _IMAGE_PROMPTS)
    return checks.text_probes(verify.prompts or _TEXT_PROMPTS, verify.image_root)


def _model_section(recipe: Recipe) -> ModelSection:
    """The base, unquantised, in float32; chat template and pixel budget are those of the training."""
    if recipe.model.quantization != "none":
        raise AlignError(
            "model.quantization must be none: a merge goes into 16-bit weights, never into a 4-bit copy; "
            "merge_into says which"
        )
    trained_on = read_adapter(recipe.adapter).base
    pixels = {} if recipe.model.has_pixel_budget else {name: trained_on.get(name) for name in PIXELS}
    section = recipe.model.model_copy(update={"dtype": "float32", **pixels})
    trained_with = recipe.adapter / CHAT_TEMPLATE
    if section.chat_template is None and trained_with.is_file():
        section = section.model_copy(update={"chat_template": trained_with})
    return section


@dataclass
class _Merged:
    """What later checks need: the probes with their answers, and the adapter-on logits on them."""

    probes: list[checks.Probe]
    reference: list[Any]
    stored: Any
    metrics: dict[str, Any]


def _merge(
    recipe: Recipe, folder: RunFolder, processor: Any, probes: Sequence[checks.Probe], target: str
) -> _Merged:
    """Merge in float32, compare with adapter-on, save in the wanted dtype."""
    from peft import PeftModel

    trained = None if target == "original" else _trained(recipe, processor, probes, target)
    base = load_model(_model_section(recipe))
    if trained is not None:
        rounded = round_base(base, target, _file_dtype(recipe))
        say(f"  merging into {rounded} weights rounded to {target} as in training, held unquantised")
    before = weights_digest(base)
    wrapped = PeftModel.from_pretrained(base, str(recipe.adapter)).eval()
    modules = checks.check_applied(wrapped, recipe.adapter)
    changing = checks.nonzero_modules(wrapped, modules)
    answered = [_answered(wrapped, processor, probe, recipe.verify.max_tokens) for probe in probes]
    reference = checks.logits(wrapped, processor, answered)
    whole = checks.modules_to_save(wrapped)
    merged = wrapped.merge_and_unload(safe_merge=True)
    num_changed = checks.check_changed(before, weights_digest(merged), changing, whole)
    difference = checks.largest_difference(reference, checks.logits(merged, processor, answered))
    if difference > recipe.verify.tolerance:
        raise AlignError(
            f"merged and adapter-on logits differ by {difference:.2e} (limit {recipe.verify.tolerance:.0e})",
            fix="this kind of adapter does not merge exactly; or raise verify.tolerance knowingly",
        )
    say(f"  {len(modules)} adapted modules, {num_changed} weights changed, logits within {difference:.1e}")
    stored = _stored_dtype(recipe)
    against = {} if trained is None else _compare_with_trained(recipe, processor, merged, trained)
    path = folder.work / CHECKPOINT
    merged.to(stored).save_pretrained(str(path), safe_serialization=True)
    processor.save_pretrained(str(path))
    copy_left_out(recipe.model.folder(), path)
    keys = checks.check_keys(recipe.model.folder(), path, _tied(merged.config))
    metrics = {
        "lora_modules": len(modules),
        "lora_modules_zero": len(modules) - len(changing),
        "weights_changed": num_changed,
        "tensors": keys,
        "dtype": str(stored).removeprefix("torch."),
        "merged_into": target,
        "merged_logit_difference": difference,
        **against,
    }
    return _Merged(answered, reference, stored, metrics)


_Trained = tuple[list[checks.Probe], list[Any]]


def _trained(recipe: Recipe, processor: Any, probes: Sequence[checks.Probe], quantization: str) -> _Trained:
    """The probes, answered by the model as it was trained, quantised base and adapter, and its logits."""
    from peft import PeftModel

    section = recipe.model.model_copy(update={"quantization": quantization})
    model = PeftModel.from_pretrained(load_model(section), str(recipe.adapter)).eval()
    answered = [_answered(model, processor, probe, recipe.verify.max_tokens) for probe in probes]
    return answered, checks.logits(model, processor, answered)


def _compare_with_trained(recipe: Recipe, processor: Any, merged: Any, trained: _Trained) -> dict[str, float]:
    """The merged model against the quantised one: bitsandbytes multiplies in bfloat16, so only nearly so.

    Raises:
        AlignError: further off than `quantized_tolerance` and `min_top1_agreement` allow.
    """
    answered, logits = trained
    found = checks.logits(merged, processor, answered)
    difference = checks.largest_difference(logits, found)
    agreement = checks.top1_agreement(logits, found, _answer_lengths(processor, answered))
    verify = recipe.verify
    if difference > verify.quantized_tolerance or agreement < verify.min_top1_agreement:
        raise AlignError(
            f"merged and trained (quantised) logits differ by {difference:.2e} (limit "
            f"{verify.quantized_tolerance:.0e}), next tokens agree in {agreement:.1%}",
            fix="was the adapter trained on this base, quantised like this? See base.json beside it",
        )
    say(f"  as trained in {recipe.adapter}: logits within {difference:.1e}, next tokens {agreement:.1%}")
    return {"trained_logit_difference": difference, "trained_top1_agreement": agreement}


def _answer_lengths(processor: Any, probes: Sequence[checks.Probe]) -> list[int]:
    """Tokens of each probe's answer, at least 1."""
    tokenizer = tokenizer_of(processor)
    ids = (tokenizer(probe.answer, add_special_tokens=False)["input_ids"] for probe in probes)
    return [max(1, len(found)) for found in ids]


def _compare_layers(recipe: Recipe, folder: RunFolder, adapter: Adapter) -> None:
    """Every saved tensor against base + adapter; writes `layer_changes.json`."""
    changes, faults = verify(
        recipe.model.folder(), adapter, folder.work / CHECKPOINT, recipe.merge_into, LAYER_TOLERANCE
    )
    changes.write(folder.work / LAYER_CHANGES)
    if faults:
        raise AlignError("the saved checkpoint is not base + adapter: " + "; ".join(faults))


def _answered(model: Any, processor: Any, probe: checks.Probe, max_tokens: int) -> checks.Probe:
    ids = checks.answer(model, processor, probe, max_tokens)
    return replace(probe, answer=tokenizer_of(processor).decode(ids, skip_special_tokens=True))


def _reload(recipe: Recipe, folder: RunFolder, merged: _Merged) -> list[list[int]]:
    """Load what was saved, compare with the adapter-on logits again; returns its greedy answers."""
    import torch

    trusted = recipe.model.trust_remote_code
    section = ModelSection(
        path=str(folder.work / CHECKPOINT),
        dtype="float32",
        trust_remote_code=trusted,
        thinking=recipe.model.thinking,
    )
    model, processor = load_model(section), load_processor(section)
    found = checks.logits(model, processor, merged.probes)
    difference = checks.largest_difference(merged.reference, found)
    agreement = checks.top1_agreement(merged.reference, found, _answer_lengths(processor, merged.probes))
    verify = recipe.verify
    limit = verify.tolerance if merged.stored == torch.float32 else verify.rounding_tolerance
    if difference > limit or agreement < verify.min_top1_agreement:
        raise AlignError(
            f"the saved checkpoint's logits differ by {difference:.2e} (limit {limit:.0e}), "
            f"next tokens agree in {agreement:.1%} (at least {verify.min_top1_agreement:.0%})",
            where=str(section.path),
            fix="set dtype: float32 to save without rounding",
        )
    say(f"  reloaded: logits within {difference:.1e}, next tokens agree in {agreement:.1%}")
    merged.metrics |= {"saved_logit_difference": difference, "saved_top1_agreement": agreement}
    return [checks.answer(model, processor, probe, verify.max_tokens) for probe in merged.probes]


def _serve(recipe: Recipe, folder: RunFolder, merged: _Merged, expected: list[list[int]]) -> dict[str, Any]:
    """Ask vLLM the same and compare token for token."""
    if recipe.serve_check is False:
        say("  served check: left out (serve_check: false)")
        return {"served_token_agreement": None, "served_check": "left out by the recipe"}
    path = folder.work / CHECKPOINT
    processor = load_processor(ModelSection(path=str(path), thinking=recipe.model.thinking))
    sampling = Sampling(temperature=0.0, max_tokens=recipe.verify.max_tokens)
    requests = [
        (
            str(index),
            ChatRequest(messages=probe.messages, images=probe.images, sampling=sampling),
        )
        for index, probe in enumerate(merged.probes)
    ]
    replies: dict[str, Reply | Failure] = {}
    served = ModelRef(path=str(path), thinking=recipe.model.thinking)
    with serve(served, recipe.serve_check.serve, folder.logs) as server:
        ask(server, requests, lambda key, reply: replies.update({key: reply}))
    texts = []
    for key, _ in requests:
        reply = replies[key]
        if isinstance(reply, Failure):
            raise AlignError(f"the server failed on a probe: {reply.reason}", where=str(folder.logs))
        texts.append(_whole_text(processor, reply.choices[0]))
    agreement = checks.token_agreement(*checks.spoken(processor, expected, texts))
    if agreement < recipe.serve_check.min_agreement:
        raise AlignError(
            f"vLLM and transformers agree in {agreement:.1%} of the tokens, "
            f"less than {recipe.serve_check.min_agreement:.0%}",
            where=str(path),
            fix="compare serve_check.serve.dtype with the checkpoint's; see the server's log in logs/",
        )
    say(f"  served: vLLM agrees with transformers in {agreement:.1%} of the tokens")
    return {"served_token_agreement": agreement}


def _whole_text(processor: Any, choice: Choice) -> str:
    """What the server said, thoughts included, which transformers' side has too."""
    if not choice.token_ids:
        return choice.text
    return tokenizer_of(processor).decode(choice.token_ids, skip_special_tokens=True)


def _tied(config: Any) -> bool:
    """Whether the LM head is the embedding; BLIP-2's config leaves that to its text config."""
    return any(getattr(part, "tie_word_embeddings", False) for part in (config, config.get_text_config()))


def _stored_dtype(recipe: Recipe) -> Any:
    import torch

    return _file_dtype(recipe) if recipe.dtype == "auto" else getattr(torch, recipe.dtype)


def _file_dtype(recipe: Recipe) -> Any:
    """The dtype of the base's first tensor."""
    from safetensors import safe_open

    file = next(iter(sorted(recipe.model.folder().glob("*.safetensors"))))
    with safe_open(str(file), framework="pt") as tensors:
        return tensors.get_tensor(next(iter(tensors.keys()))).dtype


if __name__ == "__main__":
    raise SystemExit("run it as: python -m align merge RECIPE")
