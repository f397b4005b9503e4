"""The recipe of `align instructions`: which sources, in which shares, and what is kept out."""

from __future__ import annotations

from pathlib import Path

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


class Mixture(Strict):
    """Shares of the kinds of rows; they need not sum to one, and a kind without its section has none."""

    questions: float = Field(default=0.7, ge=0)
    captions: float = Field(default=0.3, ge=0)
    gqa: float = Field(default=0.5, ge=0)
    templates: float = Field(default=0.2, ge=0)
    conversations: float = Field(default=0.3, ge=0)


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

    name: str = "instructions"
    image_root: Path = Field(description="folder that all image paths are relative to")
    images: Images = Field(description="the train pictures")
    questions: Questions | None = Field(default=None, description="short-answer dialogues, VQAv2 format")
    captions: Captions | None = Field(default=None, description="descriptions, COCO format")
    gqa: Gqa | None = Field(default=None, description="dialogues from GQA")
    templates: Templates | None = Field(default=None, description="dialogues made of COCO instances")
    conversations: Conversations | None = Field(
        default=None, description="dialogues that a model writes from captions"
    )
    mixture: Mixture = Mixture()
    caps: Caps = Caps()
    holdout: Holdout | None = Field(default=None, description="hold images out, for a loss or a judge")
    num_rows: int | None = Field(default=None, ge=1, description="rows to write; null: all that fit")
    prompts: Prompts | None = Field(default=None, description="prompts to sample from; null writes none")
    exclude: list[Path] = Field(
        default=[], description="COCO-format files of evaluation images; their image ids never enter"
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> Recipe:
        if not self.kinds():
            raise ValueError("give one of questions, captions, gqa, templates, conversations")
        return self

    def kinds(self) -> list[str]:
        """The kinds of rows that have a section."""
        names = ("questions", "captions", "gqa", "templates", "conversations")
        return [name for name in names if getattr(self, name) is not None]
