"""What a merged checkpoint must prove: all of the adapter is in it, it answers as before, keys as loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.inputs.chat import render, sees_images, tokenizer_of
from align.inputs.images import open_image
from align.rows.schema import Message

if TYPE_CHECKING:
    import torch

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}


@dataclass(frozen=True)
class Probe:
    """One fixed question about one fixed image (None for a text-only model), with the answer that the
    logits are compared on."""

    image: Path | None
    prompt: str
    answer: str = ""

    @property
    def messages(self) -> list[Message]:
        """The question as a row's messages."""
        return [Message(role="user", content=self.prompt)]

    @property
    def images(self) -> list[Path]:
        """Its image, if it has one."""
        return [] if self.image is None else [self.image]


def text_probes(prompts: Sequence[str], image_root: Path | None) -> list[Probe]:
    """Each prompt once, without an image.

    Raises:
        AlignError: `image_root` is set.
    """
    if image_root is not None:
        what = "verify.image_root is set, and the model reads text only"
        raise AlignError(what, where=str(image_root), fix="leave verify.image_root out")
    return [Probe(None, prompt) for prompt in prompts]


def make_probes(image_root: Path | None, num_images: int, prompts: Sequence[str]) -> list[Probe]:
    """`num_images` images spread evenly over the sorted files of `image_root`, prompts in turn.

    Raises:
        AlignError: no image there.
    """
    if image_root is None:
        raise AlignError("verify.image_root is missing", fix="name a folder of images to compare on")
    if not image_root.is_dir():
        raise AlignError(f"no such folder: {image_root}", where="verify.image_root", fix="check the path")
    files = sorted(file for file in image_root.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
    if not files:
        raise AlignError(f"no image in {image_root}", where="verify.image_root")
    count = min(num_images, len(files))
    chosen = [files[index * len(files) // count] for index in range(count)]
    return [Probe(file, prompts[index % len(prompts)]) for index, file in enumerate(chosen)]


def answer(model: Any, processor: Any, probe: Probe, max_tokens: int) -> list[int]:
    """Greedy token ids of the model's answer, end of turn included."""
    import torch

    text = render(processor, probe.messages, len(probe.images), add_generation_prompt=True)
    inputs = _inputs(model, processor, text, probe)
    with torch.no_grad():
        ids = model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def logits(model: Any, processor: Any, probes: Sequence[Probe]) -> list[torch.Tensor]:
    """Logits on prompt and answer of each probe: float32 [tokens, vocabulary], on the CPU."""
    import torch

    found = []
    for probe in probes:
        text = render(processor, probe.messages, len(probe.images), add_generation_prompt=True) + probe.answer
        with torch.no_grad():
            output = model(**_inputs(model, processor, text, probe))
        found.append(output.logits[0].float().cpu())
    return found


def largest_difference(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """max |a - b| over all probes, positions and words."""
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def top1_agreement(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], tokens: Sequence[int]
) -> float:
    """Share of positions with the same most likely next token, over each probe's last `tokens` positions."""
    same = total = 0
    for a, b, count in zip(first, second, tokens, strict=True):
        equal = a[-count:].argmax(dim=-1) == b[-count:].argmax(dim=-1)
        same, total = same + int(equal.sum()), total + count
    return same / total


def check_applied(peft_model: Any, adapter: Path) -> list[str]:
    """Every tensor of the adapter file is in the wrapped model, value for value.

    Returns:
        Names of the adapted modules, without PEFT's wrapping.

    Raises:
        AlignError: tensors of the file that the model does not have, or the other way round.
    """
    import torch
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import load_file

    wanted = load_file(adapter / "adapter_model.safetensors")
    applied = get_peft_model_state_dict(peft_model)
    lost = sorted(set(wanted) - set(applied))
    missing = sorted(set(applied) - set(wanted))
    if lost or missing:
        what = (
            f"{len(lost)} of {len(wanted)} adapter tensors fit no module: {lost[:2]}"
            if lost
            else (f"the adapter lacks {len(missing)} tensors of its modules: {missing[:2]}")
        )
        raise AlignError(what, where=str(adapter), fix="the adapter belongs to another model, or is damaged")
    wrong = [
        name
        for name, tensor in wanted.items()
        if not torch.equal(applied[name].cpu().to(tensor.dtype), tensor)
    ]
    if wrong:
        raise AlignError(f"adapter tensors were not applied: {wrong[:2]}", where=str(adapter))
    base = peft_model.get_base_model()
    names = (name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer))
    return sorted(name for name in names if not name.endswith(".base_layer"))


def nonzero_modules(peft_model: Any, modules: Sequence[str]) -> list[str]:
    """Those of the adapted modules that change something: some B of LoRA is not all zero, some factor of IA3
    not one, some bias of BEFT not zero. With other methods each module is taken to."""
    from peft.tuners.lora import LoraLayer

    base = peft_model.get_base_model()
    changed = []
    for name in modules:
        layer: Any = base.get_submodule(name)
        if not isinstance(layer, LoraLayer):
            if not _is_identity(layer):
                changed.append(name)
            continue
        # several parameters of one module: PEFT nests their layers
        nested: list[Any] = [one for one in base.get_submodule(name).modules() if isinstance(one, LoraLayer)]
        updates = [b for one in nested for b in (*one.lora_B.values(), *one.lora_embedding_B.values())]
        weights = [getattr(update, "weight", update) for update in updates]
        if any(bool(weight.any()) for weight in weights) or len(getattr(layer, "lora_magnitude_vector", {})):
            changed.append(name)
    return changed


def _is_identity(layer: Any) -> bool:
    """Whether an IA3 or BEFT layer does nothing: a layer whose output nothing reads has no gradient."""
    for name, nothing in (("ia3_l", 1.0), ("beft_bias", 0.0)):
        if hasattr(layer, name):
            return all(bool((values == nothing).all()) for values in getattr(layer, name).values())
    return False


def modules_to_save(peft_model: Any) -> list[str]:
    """Parameters that were trained as a whole, named as in the base."""
    mark = ".modules_to_save.default"
    names = (name for name, _ in peft_model.get_base_model().named_parameters())
    return [name.replace(mark, "") for name in names if mark in name]


def check_changed(
    before: dict[str, str], after: dict[str, str], expected: Sequence[str], saved: Sequence[str]
) -> int:
    """Exactly the adapted modules' weights changed.

    Args:
        before, after: parameter name -> digest of its bytes.
        expected: adapted modules with a LoRA that is not zero.
        saved: parameter names that were trained as a whole (`modules_to_save`).

    Returns:
        How many parameters changed.

    Raises:
        AlignError: an adapted module that did not change, or another one that did.
    """
    changed = {name for name, digest in after.items() if before.get(name) != digest}
    modules = {name.rsplit(".", 1)[0] for name in changed - set(saved)}
    untouched, stray = sorted(set(expected) - modules), sorted(modules - set(expected))
    if untouched or stray:
        what = (
            f"{len(untouched)} adapted modules did not change: {untouched[:2]}"
            if untouched
            else (f"{len(stray)} modules changed without an adapter: {stray[:2]}")
        )
        raise AlignError(f"the merge is not complete: {what}")
    return len(changed)


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, of a checkpoint folder's safetensors files."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    return shapes


def check_keys(base: Path, merged: Path, tied: bool) -> int:
    """The merged checkpoint names its tensors as the base does, and holds them the same way round; returns
    how many there are.

    Raises:
        AlignError: names or shapes differ; a server would not find them, or take them for something else.
    """
    before, after = weight_shapes(base), weight_shapes(merged)
    differing = before.keys() ^ after.keys()
    if tied:
        differing = {key for key in differing if not key.endswith("lm_head.weight")}
    if differing:
        what = f"the merged checkpoint's tensor names differ from the base's: {sorted(differing)[:3]}"
        raise AlignError(what, where=str(merged), fix="report this model_type: its key form is not kept")
    turned = [key for key in sorted(before.keys() & after.keys()) if before[key] != after[key]]
    if turned:
        was, now = before[turned[0]], after[turned[0]]
        what = f"{len(turned)} tensors have another shape than the base's: {turned[0]} {now}, not {was}"
        raise AlignError(what, where=str(merged), fix="report this model_type: its form of files is not kept")
    return len(after)


def spoken(
    processor: Any, expected: Sequence[Sequence[int]], texts: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Both sides' words tokenized alike: a server returns text, not ids."""
    tokenizer = tokenizer_of(processor)
    own = [tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]

    def ids(text: str) -> list[int]:
        return tokenizer(text.strip(), add_special_tokens=False)["input_ids"]

    return [ids(text) for text in own], [ids(text) for text in texts]


def token_agreement(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """Share of equal tokens at equal positions; a length difference counts as disagreement."""
    same = sum(a == b for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=False))
    total = sum(max(len(one), len(two)) for one, two in zip(first, second, strict=True))
    return same / total if total else 1.0


def _inputs(model: Any, processor: Any, text: str, probe: Probe) -> dict[str, Any]:
    images = [open_image(image) for image in probe.images]
    seen = {"images": images} if sees_images(processor) else {}
    batch = processor(text=[text], return_tensors="pt", add_special_tokens=False, **seen)
    batch = batch.to(model.device)
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    return dict(batch)
