"""What a training recipe says of its dev check: whom it asks what, how often, and what it keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from align.config import Strict
from align.dev_check.words import GAINS, LIMITS, check_limit, gain_of
from align.vqa_accuracy import SHORT_ANSWER

DESCRIBE = "Please describe this image in detail."
SFT_PASSES = 3.0
"""Forward and backward, in forwards."""
DPO_PASSES = 6.0
"""Policy forward and backward, the reference's forward, the shorter of both answers and the log-probs."""


class DevQuestions(Strict):
    """Questions with annotators' answers, VQAv2's two files."""

    questions: Path = Field(description="VQAv2 questions JSON, of dev pictures")
    annotations: Path = Field(description="VQAv2 annotations JSON of the same questions")
    file_name: str = Field(
        default="COCO_val2014_{image_id:012d}.jpg", description="image file of an image id, below image_root"
    )
    num_questions: int | None = Field(default=100, gt=0, description="how many are asked; null: all")
    prompt: str = Field(default=SHORT_ANSWER, description="what is asked; {question} stands for the question")
    max_new_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")


class OwnQuestions(Strict):
    """Your own questions: prompt rows whose `meta.answers` are the answers that are right."""

    path: Path = Field(description="prompt rows (id, images, prompt, meta.answers), .jsonl or .parquet")
    max_new_tokens: int = Field(default=32, gt=0, description="longest answer in tokens")


class DevSection(Strict):
    """The policy answers dev pictures while it trains; off unless a recipe has this section."""

    prompts: Path | None = Field(
        default=None,
        description="prompt rows, such as instructions/prompts.parquet; null: `prompt` of all `instances`",
    )
    prompt: str = Field(default=DESCRIBE, description="what is asked of each picture without prompt rows")
    prefix: str = Field(default="", description="folder, below image_root, of the instances' file names")
    split: str = Field(default="dev", description="rows of this meta.split are asked; rows without one too")
    num_pictures: int | None = Field(default=200, gt=0, description="how many of them; null: all")
    image_root: Path | None = Field(default=None, description="folder of the pictures; null is the data's")
    instances: Path | None = Field(default=None, description="COCO instances JSON: what is in the pictures")
    captions: Path | None = Field(default=None, description="COCO captions JSON; what they name is there too")
    questions: DevQuestions | None = Field(default=None, description="questions with annotators' answers")
    own: OwnQuestions | None = Field(default=None, description="your own questions")
    checks: int = Field(
        default=8, ge=2, description="checks a run, evenly spaced, the one before the first step included"
    )
    every: int | None = Field(
        default=None, gt=0, description="a check every so many steps, whatever it takes; replaces `checks`"
    )
    share_of_time: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="share of the run that `checks` may take by an estimate in tokens; fewer checks above it",
    )
    max_new_tokens: int = Field(default=96, gt=0, description="longest description in tokens")
    batch_size: int = Field(default=32, gt=0, description="pictures answered at a time")
    level: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the intervals; a gain is real when its interval is off 0"
    )
    samples: int = Field(default=4, ge=0, description="answers kept of each check, to the same questions")

    @model_validator(mode="after")
    def _asks_something(self) -> DevSection:
        if not (self.prompts or self.instances or self.questions or self.own):
            raise ValueError("nothing is asked: give prompts, instances, questions or own")
        if self.captions is not None and self.instances is None:
            raise ValueError("captions add to instances, which are not given")
        return self

    def inputs(self) -> dict[str, Path]:
        """For `RunFolder.open(inputs=...)`."""
        found = {
            "dev_prompts": self.prompts,
            "dev_images": self.image_root,
            "dev_instances": self.instances,
            "dev_captions": self.captions,
            "dev_questions": self.questions and self.questions.questions,
            "dev_annotations": self.questions and self.questions.annotations,
            "dev_own": self.own and self.own.path,
        }
        return {name: path for name, path in found.items() if path is not None}


class KeepSection(Strict):
    """Which step's weights become the result, in words; see `align.dev_check.rule`."""

    MEASURES: ClassVar[tuple[str, ...]] = tuple(LIMITS)

    most: str = Field(description=f"what there should be most of: {', '.join(GAINS)}")
    limits: dict[str, float] = Field(
        default={},
        alias="while",
        description="what must not be lost: name -> the change from step 0 that is still allowed, in points "
        f"(length: percent either way). Names: {', '.join(LIMITS)}",
    )
    patience: int | None = Field(
        default=None, gt=0, description="end training after so many checks without a gain; null: never"
    )

    model_config = ConfigDict(serialize_by_alias=True)

    @field_validator("most")
    @classmethod
    def _known_gain(cls, most: str) -> str:
        gain_of(most)
        return most

    @field_validator("limits")
    @classmethod
    def _known_limits(cls, limits: dict[str, float]) -> dict[str, float]:
        for name, limit in limits.items():
            check_limit(name, limit)
        return limits
