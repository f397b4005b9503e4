"""The recipe of `align instructions`: which sources, in which shares, and what is kept out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, Strict
from data_tools.instructions.caps import Caps
from data_tools.instructions.conversations import Conversations
from data_tools.instructions.gqa import Gqa
from data_tools.instructions.templates import Templates
from data_tools.instructions.vqa import DESCRIBE_PROMPT, Captions, Questions


class Images(Strict):
    """Where pictures come from."""

    annotations: Path = Field(description="COCO-format file whose `images` list names the pictures")
    prefix: str = Field(default="", description="put before each file_name to get a path under image_root")


Source = Questions | Captions | Gqa | Templates | Conversations
_KINDS = ("questions", "captions", "gqa", "templates", "conversations")


class Holdout(Strict):
    """Images kept out of the instructions and of the train prompts, with all their rows."""

    share: float = Field(gt=0, lt=1, description="share of the images, drawn by their content")


class Prompts(Strict):
    """Description prompts to sample preference candidates from."""

    train: int = Field(ge=1, description="train images; their pairs train DPO")
    dev: int = Field(ge=1, description="dev images; the judge is measured on them")
    dev_images: Images = Field(description="pictures that no training uses")
    prompts: list[str] = Field(default=[DESCRIBE_PROMPT], min_length=1, description="one is drawn an image")


class Recipe(StageRecipe):
    """The recipe of `align instructions`."""

    moved_keys: ClassVar[Mapping[str, str]] = {
        **{kind: f"sources.NAME, with kind: {kind}" for kind in _KINDS},
        "mixture": "the key share of each of the sources",
    }

    name: str = "instructions"
    image_root: Path = Field(description="folder that all image paths are relative to")
    images: Images = Field(description="the train pictures")
    sources: dict[str, Annotated[Source, Field(discriminator="kind")] | None] = Field(
        description="name -> where rows come from, by its `kind`, and their share (shares need not sum to "
        "one); null leaves out what a base recipe has"
    )
    caps: Caps = Caps()
    holdout: Holdout | None = Field(default=None, description="hold images out, for a loss or a judge")
    num_rows: int | None = Field(default=None, ge=1, description="rows to write; null: all that fit")
    prompts: Prompts | None = Field(default=None, description="prompts to sample from; null writes none")
    exclude: list[Path] = Field(
        default=[], description="COCO-format files of evaluation images; their image ids never enter"
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> Recipe:
        if not self.given():
            raise ValueError(f"sources: give one of kind {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
        return self

    def given(self) -> dict[str, Source]:
        """The sources that are not left out."""
        return {name: source for name, source in self.sources.items() if source is not None}
