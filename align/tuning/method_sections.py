"""What the recipes of both training stages say about how a model is trained: `method`, and its section.

Names are PEFT's. Where a method known by another name is one of these, it is said here:

- P-tuning v2 (Liu et al., 2022) is `prefix_tuning` without `prefix_projection`: a prefix in every layer.
  `p_tuning` is the first P-tuning, an encoder of virtual tokens in front of the text.
- LoRA-XS (Balazy et al., 2024) trains an r x r matrix between frozen singular vectors. PEFT has `tinylora`
  (Morris et al., 2026), which trains `u` coordinates of that matrix; `u` = r * r spans all of it.
- Bottleneck adapters (Houlsby et al., 2019) put a small non-linear network behind a layer. PEFT has none; its
  nearest is `peanut`, whose non-linear bottleneck reads the layer's weight.
- BitFit (Ben Zaken et al., 2022) is `bitfit`: the model's own biases, without PEFT, saved as a checkpoint.
  `beft` is PEFT's: biases added to linear layers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from align.config.library_sections import PEFT_STAGE_OWNS, section
from align.config.recipe import StageRecipe, Strict
from align.dev_check.recipe import DevSection, KeepSection
from align.models.family import Component
from align.models.lora_places import Blocks
from align.tuning.initialisation import CalibrationSection
from align.tuning.lora import LoraSection

Method = Literal[
    "lora",
    "ia3",
    "tinylora",
    "peanut",
    "beft",
    "prefix_tuning",
    "p_tuning",
    "prompt_tuning",
    "bitfit",
    "full",
]

_ON_MODULES = PEFT_STAGE_OWNS | {
    "target_modules": "set `components` and `blocks`",
    "feedforward_modules": "set `components`: keys, values and the input of the last MLP layer are scaled",
}
_PLACES: dict[str, tuple[Any, Any]] = {
    "components": (list[Component], Field(default=["language"], description="vision, connector, language")),
    "blocks": (Blocks, Field(default="attention+mlp", description="which layers of those components")),
    "leave_out": (
        list[str],
        Field(default=[], description="matrices there that stay frozen, by the ends of their names"),
    ),
}


class IA3Section(
    section("IA3Config", _ON_MODULES, {name: _PLACES[name] for name in ("components", "leave_out")})
):
    """PEFT's `IA3Config`: learnt factors on keys, values and the MLP's hidden state (Liu et al., 2022)."""


class TinyLoraSection(section("TinyLoraConfig", _ON_MODULES, _PLACES)):
    """PEFT's `TinyLoraConfig`."""


class PeanutSection(section("PeanutConfig", _ON_MODULES, _PLACES)):
    """PEFT's `PeanutConfig`."""


class BeftSection(section("BeftConfig", _ON_MODULES, _PLACES)):
    """PEFT's `BeftConfig`."""


class PrefixTuningSection(section("PrefixTuningConfig", PEFT_STAGE_OWNS)):
    """PEFT's `PrefixTuningConfig`."""


class PTuningSection(section("PromptEncoderConfig", PEFT_STAGE_OWNS)):
    """PEFT's `PromptEncoderConfig`."""


class PromptTuningSection(section("PromptTuningConfig", PEFT_STAGE_OWNS)):
    """PEFT's `PromptTuningConfig`."""


class FullSection(Strict):
    """Training of the model's own weights (`full`), or of its own biases (`bitfit`)."""

    model_config = ConfigDict(strict=True)

    components: list[Component] = Field(
        default=["language", "connector"],
        min_length=1,
        description="what trains: vision, connector, language",
    )
    learning_rates: dict[Component, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="peak learning rate of a component; the trainer's where not set"
    )

    @model_validator(mode="after")
    def _known(self) -> FullSection:
        unused = sorted(set(self.learning_rates) - set(self.components))
        if unused:
            raise ValueError(f"learning_rates of {', '.join(unused)}, which components does not name")
        return self


class TrainingRecipe(StageRecipe):
    """What `align sft` and `align dpo` both know of methods."""

    method: Method = Field(default="lora", description="how the model is trained; each has a section")
    lora: LoraSection = Field(default=LoraSection(), description="PEFT's LoraConfig by its own names")
    ia3: IA3Section = Field(default=IA3Section(), description="PEFT's IA3Config")
    tinylora: TinyLoraSection = Field(default=TinyLoraSection(), description="PEFT's TinyLoraConfig")
    peanut: PeanutSection = Field(default=PeanutSection(), description="PEFT's PeanutConfig")
    beft: BeftSection = Field(default=BeftSection(), description="PEFT's BeftConfig")
    prefix_tuning: PrefixTuningSection = Field(
        default=PrefixTuningSection(), description="PEFT's PrefixTuningConfig"
    )
    p_tuning: PTuningSection = Field(default=PTuningSection(), description="PEFT's PromptEncoderConfig")
    prompt_tuning: PromptTuningSection = Field(
        default=PromptTuningSection(), description="PEFT's PromptTuningConfig"
    )
    full: FullSection = Field(
        default=FullSection(), description="the model's own weights, or biases (bitfit)"
    )
    calibration: CalibrationSection = Field(
        default=CalibrationSection(), description="rows for lora.init_lora_weights: eva, corda, lora_ga"
    )
    dev: DevSection | None = Field(
        default=None, description="the policy answers dev pictures while it trains; null: it does not"
    )
    keep: KeepSection | None = Field(
        default=None, description="which of the checked steps becomes the result; null: the last step"
    )

    @model_validator(mode="after")
    def _kept_by_dev(self) -> TrainingRecipe:
        if self.keep is not None and self.dev is None:
            raise ValueError("keep chooses among the checks of `dev`, which is not given")
        return self

    @model_validator(mode="after")
    def _one_method(self) -> TrainingRecipe:
        used = "full" if self.method == "bitfit" else self.method
        sections = {"lora", "ia3", "tinylora", "peanut", "beft", "full"}
        sections |= {"prefix_tuning", "p_tuning", "prompt_tuning"}
        # A base recipe may have set `lora`, which another method then does not read; a run's own recipe.yaml
        # has every section, unset ones as they are by default.
        fields = type(self).model_fields
        unread = sorted(
            name for name in sections - {used, "lora"} if getattr(self, name) != fields[name].default
        )
        if unread:
            raise ValueError(f"method is {self.method}, and {', '.join(unread)} is not read")
        return self
