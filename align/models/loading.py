"""Load a base checkpoint with its processor, quantised or not, every weight frozen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from align.config.model_ref import ModelRef
from align.config.recipe import Strict
from align.errors import AlignError
from align.models.families import FAMILIES, confirm, modules_of, processor_facts, reads_images, says_images
from align.models.family import Modules
from align.models.file_form import keep_file_form
from align.models.pixel_budget import apply
from align.models.proposal import checked_modules
from align.models.thinking import set_thinking
from align.progress import say

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

CHAT_TEMPLATE = "chat_template.jinja"


class FamilySection(Strict):
    """A family that `align.models.families` does not know, confirmed: what the error for it proposes."""

    vision: str | None = Field(default=None, description="the image encoder's layers; null: text only")
    tower: str | None = Field(default=None, description="the whole image encoder")
    connector: list[str] = Field(default=[], description="what maps image features to the language model")
    language: str = Field(description="the decoder")
    layers: list[str] = Field(default=[], description="those of `connector` that are one linear layer")
    cross_attention: str = Field(default="", description="regular expression for cross-attention modules")

    def modules(self) -> Modules:
        """The same as `align.models.families` keeps it."""
        return Modules(
            vision=self.vision,
            tower=self.tower,
            connector=tuple(self.connector),
            language=self.language,
            layers=tuple(self.layers),
            cross_attention=self.cross_attention,
        )


class ModelSection(ModelRef):
    """Which checkpoint, and how it is loaded."""

    dtype: Dtype = Field(
        default="auto", description="dtype of the frozen weights; auto is the checkpoint's own"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = Field(
        default="sdpa", description="attention kernels"
    )
    trust_remote_code: bool = Field(
        default=False, description="run Python code that the checkpoint brings along"
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        default="none", description="nf4 is QLoRA's: 4-bit with double quantisation; int8 is LLM.int8()"
    )
    chat_template: Path | None = Field(
        default=None, description="Jinja file that replaces the checkpoint's chat template"
    )
    family: FamilySection | None = Field(
        default=None,
        description="where the parts of an unknown model_type sit; its error proposes this",
    )


def load_processor(section: ModelSection) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The checkpoint's processor (its tokenizer where it reads text only), with `model.chat_template` in
    place when the recipe sets one.

    Raises:
        AlignError: missing checkpoint, no processor or no tokenizer in it, no chat template.
    """
    from transformers import AutoProcessor, AutoTokenizer, ProcessorMixin

    check_folder(section)
    sees = is_vision_language(section)
    files = "processor_config.json / preprocessor_config.json and the tokenizer's files"
    fix = f"copy {files if sees else files.rsplit(' and ', 1)[-1]} from the base model"
    auto: Any = AutoProcessor if sees else AutoTokenizer
    try:
        processor = auto.from_pretrained(
            section.path,
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            local_files_only=section.is_local,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        what = f"cannot load a {'processor' if sees else 'tokenizer'}: {first_line(error)}"
        if isinstance(error, ImportError):
            fix = "install that package; align-vlm's extras in pyproject.toml name what single families want"
        raise AlignError(what, where=section.path, fix=fix) from error
    if sees and (
        not isinstance(processor, ProcessorMixin) or getattr(processor, "image_processor", None) is None
    ):
        raise AlignError("the checkpoint has no image processor", where=section.path, fix=fix)
    facts = processor_facts(processor)
    if facts is not None and facts.mend is not None:
        processor = facts.mend(processor)
    if section.has_pixel_budget:
        apply(getattr(processor, "image_processor", None), pixel_settings(section, processor))
    if section.chat_template is not None:
        processor.chat_template = _read_template(section.chat_template)
    if not processor.chat_template:  # BLIP-2's constructor drops it; its tokenizer has it
        processor.chat_template = getattr(getattr(processor, "tokenizer", processor), "chat_template", None)
    if not processor.chat_template:
        fix = "set `chat_template`, beside the model's path, to a Jinja file"
        raise AlignError("the checkpoint has no chat template", where=section.path, fix=fix)
    set_thinking(processor, section.thinking)
    return processor


def pixel_settings(model: ModelRef, processor: Any) -> dict[str, Any]:
    """The processor's own settings for the recipe's pixel budget.

    Raises:
        AlignError: a processor that has none, or a budget that it cannot keep.
    """
    facts = processor_facts(processor)
    if facts is None or facts.pixels is None:
        raise AlignError(
            f"{type(processor).__name__} has no pixel budget: the size of its images is fixed with the model",
            where="model.min_pixels, model.max_pixels",
            fix="leave them out; `align preflight` scales pictures of rows that are too long",
        )
    try:
        return facts.pixels(processor.image_processor, model.min_pixels, model.max_pixels)
    except ValueError as error:
        raise AlignError(str(error), where="model.min_pixels, model.max_pixels") from error


def is_vision_language(section: ModelSection) -> bool:
    """Whether the checkpoint reads images; read from its config alone.

    Raises:
        AlignError: missing or broken config.
    """
    from transformers import PreTrainedConfig

    check_folder(section)
    try:
        config, _ = PreTrainedConfig.get_config_dict(
            section.path, revision=section.revision, local_files_only=section.is_local
        )
    except (OSError, ValueError) as error:
        fix = "a hub id must be cached or reachable"
        raise AlignError(
            f"cannot read the config: {first_line(error)}", where=section.path, fix=fix
        ) from error
    if section.family is not None:
        if section.family.vision is None and says_images(config):
            what = "`family` names no vision: the model would read text only, and its config speaks of images"
            raise AlignError(what, where="model.family", fix="name its vision, tower and connector")
        confirm(str(config.get("model_type")), section.family.modules())
    return reads_images(config)


def load_model(section: ModelSection) -> PreTrainedModel:
    """The base model, all weights frozen, in evaluation mode, from safetensors only.

    Raises:
        AlignError: missing or broken checkpoint, weights that are missing in it, a quantised module
            outside the language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    check_folder(section)
    auto = AutoModelForImageTextToText if is_vision_language(section) else AutoModelForCausalLM
    dtype = "auto" if section.dtype == "auto" else getattr(torch, section.dtype)
    try:
        loaded: Any = auto.from_pretrained(
            section.path,
            revision=section.revision,
            dtype=dtype,
            attn_implementation=section.attn_implementation,
            trust_remote_code=section.trust_remote_code,
            use_safetensors=True,
            local_files_only=section.is_local,
            output_loading_info=True,
            **_quantization_arguments(section),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        fix = "a local folder needs config.json and *.safetensors; a hub id must be cached or reachable"
        raise AlignError(
            f"cannot load the model: {first_line(error)}", where=section.path, fix=fix
        ) from error
    model, info = loaded
    if info["missing_keys"] or info["mismatched_keys"]:
        missing = sorted(str(key) for key in [*info["missing_keys"], *info["mismatched_keys"]])
        what = f"{len(missing)} weights are missing or of another shape: {', '.join(missing[:3])}"
        raise AlignError(
            what, where=section.path, fix="they would start at random; use a complete checkpoint"
        )
    if section.quantization != "none":
        _check_quantized(model, section)
        _keep_as_quantized(model)
    text: Any = model.config.get_text_config()
    if section.attn_implementation == "sdpa" and getattr(text, "attn_logit_softcapping", None):
        say("  sdpa leaves out this model's soft-capped attention, which vLLM has. Closer to serving:")
        say("  model.attn_implementation: flash_attention_2, or eager, which is slow")
    offer_hidden_states(model)
    keep_file_form(model, section.folder())
    return model.requires_grad_(False).eval()


def offer_hidden_states(model: PreTrainedModel) -> None:
    """Give the model the `base_model` that TRL's trainers ask for, in a family whose class has none."""
    family = FAMILIES.get(model.config.model_type)
    if family is not None and family.hidden_states is not None:
        family.hidden_states(model)


def weights_digest(model: PreTrainedModel) -> dict[str, str]:
    """sha256 of each parameter's bytes but the adapter's, by name without PEFT's wrapping."""
    import hashlib

    import torch

    digests = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        data = parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        digests[name.replace(".base_layer", "")] = hashlib.sha256(data).hexdigest()
    return digests


def check_folder(section: ModelRef) -> None:
    """
    Raises:
        AlignError: a local path that is not a checkpoint's folder.
    """
    if not section.is_local:
        return
    path = Path(section.path)
    if not path.is_dir():
        raise AlignError(
            f"no such checkpoint: {path}", fix="run the stage that writes it, or give a hub id (org/name)"
        )
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(item.name for item in path.iterdir())[:5]) or "nothing"
        raise AlignError(f"not a checkpoint: {path} has no config.json", fix=f"the folder holds: {found}")
    try:
        json.loads((path / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise AlignError(f"config.json is not JSON: {error.msg}", where=str(path)) from error


def _read_template(path: Path) -> str:
    if not path.is_file():
        raise AlignError(
            f"no such chat template: {path}", fix="check `chat_template`, beside the model's path"
        )
    return path.read_text(encoding="utf-8")


def _quantization_arguments(section: ModelSection) -> dict[str, Any]:
    """Arguments for `from_pretrained`: only the language model's layers are quantised."""
    if section.quantization == "none":
        return {}
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        fix = "pip install bitsandbytes, or set quantization: none beside the model's path"
        raise AlignError("bitsandbytes is not installed", where=section.path, fix=fix) from error
    config = AutoConfig.from_pretrained(
        section.path, revision=section.revision, trust_remote_code=section.trust_remote_code
    )
    skipped = not_quantized(config.model_type, config)
    if section.quantization == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skipped,
        )
    return {"quantization_config": settings, "device_map": {"": _device()}}


def not_quantized(model_type: str, config: Any = None) -> list[str]:
    """Names of the modules that stay as they are in a quantised model: all but the language model.

    The last is a regular expression, as transformers reads them: what no component holds, an audio tower say.
    """
    modules = checked_modules(config) if config is not None else modules_of(model_type)
    others = rf"(?!{re.escape(modules.language)}\.)"
    return ["lm_head", *filter(None, (modules.tower, *modules.connector)), others]


def _device() -> torch.device:
    import os

    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _check_quantized(model: PreTrainedModel, section: ModelSection) -> None:
    """Skip lists go by names that change between releases: look at what was quantised."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    modules = checked_modules(model.config)
    kinds = (Linear4bit, Linear8bitLt)
    quantized = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    decoder = ("language", "cross_attention")
    outside = [name for name in quantized if modules.component_of(name) not in decoder]
    if outside or not quantized:
        what = f"quantised outside the language model: {outside[:3]}" if outside else "nothing was quantised"
        raise AlignError(
            what,
            where=section.path,
            fix="set quantization: none beside the model's path, and report this family",
        )
    say(f"  {section.quantization}: {len(quantized)} linear layers of the language model")
    whole = unrounded_experts(model)
    if whole:
        say(f"  experts held in one tensor are not rounded: {whole / 2**30:.1f} GiB stay as they are")


def unrounded_experts(model: PreTrainedModel) -> int:
    """Bytes of experts held in parameters of three dimensions, of which bitsandbytes rounds none."""
    experts = (p for name, p in model.named_parameters() if p.dim() == 3 and ".experts." in name)
    return sum(parameter.numel() * parameter.element_size() for parameter in experts)


def _keep_as_quantized(model: PreTrainedModel) -> None:
    """Leave 4-bit weights as they were quantised, whatever the processor.

    On a CPU with AVX-512 BF16, bitsandbytes 0.50 repacks a `Linear4bit` at its first forward in evaluation
    mode (`functional._convert_weight_packed_for_cpu`): scales become bfloat16, so that the model evaluated is
    not the one trained or merged, and a layer whose width is no multiple of the block fails.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def first_line(error: BaseException) -> str:
    """The first line of another library's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
