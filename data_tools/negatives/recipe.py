"""The recipe of `align negatives`: `negatives.kind` says which, and each kind has its own keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from align.config.recipe import StageRecipe, Strict
from align.models.loading import ModelSection
from align.objects.mentions import Mode
from align.run.state import Input
from align.trainers.objectives.recipe import Conditional, CroppedImage, MaskedImage, NoisyImage
from data_tools.material.edit_spans import DEFAULT_WEIGHT
from data_tools.material.truth import Annotations, truth_inputs


class Swap(Strict):
    """True answers against the same with swapped objects."""

    kind: Literal["swap"]
    rows: Path = Field(description="instruction rows")
    truth: list[Annotations] = Field(min_length=1, description="annotations of the pictures")
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts")
    num_swaps: int = Field(default=1, ge=1, description="objects swapped in one answer")
    among: int = Field(default=3, ge=1, description="drawn from so many of the likeliest absent objects")
    span_weight: float = Field(
        default=DEFAULT_WEIGHT, gt=0, description="weight of swapped words, for dense DPO"
    )

    @property
    def source(self) -> Path:
        """The rows that are read."""
        return self.rows

    def inputs(self) -> dict[str, Input]:
        """For `run_stage`."""
        return {"rows": self.rows, **truth_inputs(self.truth)}


class _OfPairs(Strict):
    """Pairs with a worse picture beside their own."""

    pairs: Path = Field(description="preference rows")

    @property
    def source(self) -> Path:
        """The rows that are read."""
        return self.pairs

    def inputs(self) -> dict[str, Input]:
        """For `run_stage`."""
        return {"rows": self.pairs}


class Noisy(_OfPairs):
    """The picture after `step` steps of a diffusion."""

    kind: Literal["noisy"]
    step: int = Field(default=500, ge=1, le=999, description="diffusion step, of 1000")

    @property
    def conditional(self) -> Conditional:
        """The same as the objective that makes such pictures while training has it."""
        return NoisyImage(image="noisy", step=self.step)


class Cropped(_OfPairs):
    """A small crop of the picture."""

    kind: Literal["cropped"]
    max_area: float = Field(default=0.2, gt=0.01, le=1, description="largest share of the picture kept")

    @property
    def conditional(self) -> Conditional:
        """The same as the objective that makes such pictures while training has it."""
        return CroppedImage(image="cropped", max_area=self.max_area)


class Masked(_OfPairs):
    """The picture with a share of its pixels lost."""

    kind: Literal["masked"]
    share: float = Field(default=0.3, gt=0, le=1, description="share of the pixels")

    @property
    def conditional(self) -> Conditional:
        """The same as the objective that makes such pictures while training has it."""
        return MaskedImage(image="masked", share=self.share)


class Retrieved(_OfPairs):
    """The most similar other picture of the pairs."""

    kind: Literal["retrieved"]
    rejected: Literal["own", "retrieved"] = Field(
        default="own",
        description="own: the pair's rejected answer; retrieved: the answer that was chosen for the "
        "retrieved picture, to the same prompt",
    )
    model: ModelSection | None = Field(
        default=None, description="compare pictures by this checkpoint's image features; null: by colours"
    )
    duplicate_bits: int = Field(
        default=60,
        ge=0,
        le=256,
        description="pictures whose hashes differ in so many of 256 bits are the same one",
    )

    def inputs(self) -> dict[str, Input]:
        """For `run_stage`."""
        return super().inputs() | ({} if self.model is None else {"model": self.model})


Made = Noisy | Cropped | Masked
Negatives = Annotated[Swap | Noisy | Cropped | Masked | Retrieved, Field(discriminator="kind")]


class Recipe(StageRecipe):
    """The recipe of `align negatives`."""

    moved_keys: ClassVar[Mapping[str, str]] = {
        **{key: f"negatives.{key}" for key in ("kind", "rows", "pairs", "truth", "objects_mode", "rejected")},
        "model": "negatives.model",
        "swap": "negatives, beside its kind: swap",
        "image": "negatives, beside its kind",
    }

    name: str = "negatives"
    negatives: Negatives = Field(description="which negatives, by their `kind`, see above")
    image_root: Path = Field(description="folder that image paths are relative to")
    max_pairs: int | None = Field(
        default=None, ge=1, description="most pairs in all, drawn by the seed; null: any number"
    )
