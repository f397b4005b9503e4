"""What a training recipe says of its dev check: whom it asks what, how often, and what it keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from align.config.recipe import Strict
from align.dev_check.words import GAINS, LIMITS, check_limit, gain_of
from align.judging.endpoint import Endpoint
from align.scoring.vqa_accuracy import SHORT_ANSWER

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
    """Your own questions: prompt rows whose `meta.answers` are right answers; a judge's rating needs none."""

    path: Path = Field(description="prompt rows (id, images, prompt, meta.answers), .jsonl or .parquet")
    max_new_tokens: int = Field(default=32, gt=0, description="longest answer in tokens")


class HeldoutSection(Strict):
    """Rows that are not trained on; the loss on them is measured at every check."""

    share: float | None = Field(
        default=None, gt=0, le=0.5, description="of the training rows, taken out of them by picture"
    )
    path: Path | None = Field(default=None, description="or rows in a file, of the stage's own kind")
    image_root: Path | None = Field(
        default=None, description="folder of that file's pictures; null is the data's"
    )
    num_rows: int | None = Field(default=256, gt=0, description="at most so many; null: all")
    batch_size: int = Field(default=8, gt=0, description="rows scored at a time")

    @model_validator(mode="after")
    def _one_source(self) -> HeldoutSection:
        if (self.share is None) == (self.path is None):
            raise ValueError("give share or path, one of the two")
        if self.image_root is not None and self.path is None:
            raise ValueError("image_root is of the file `path`, which is not given")
        return self


class JudgeSection(Endpoint):
    """A model behind an OpenAI-compatible endpoint that says what the answers are worth."""

    ask: Literal["claims", "rating"] = Field(
        default="claims",
        description="claims: each object that a description names is asked by yes or no, with the picture; "
        "rating: your `prompt`, of descriptions and own questions",
    )
    prompt: str = Field(
        default="Is there any {object} in this image? Answer with yes or no only.",
        description="what the judge is asked: {object} of claims; {answer}, and {question}, of ratings",
    )
    scale: tuple[float, float] = Field(
        default=(1.0, 10.0), description="worst and best rating; a reply gives one number on it"
    )
    max_tokens: int = Field(default=16, gt=0, description="longest reply in tokens")
    concurrency: int = Field(default=16, gt=0, description="requests at a time")
    timeout_seconds: float = Field(default=60.0, gt=0, description="longest wait for one reply")
    max_failed: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of requests that may fail, their answers left out; above it the judge has failed",
    )
    on_failure: Literal["go_on", "stop"] = Field(
        default="go_on",
        description="a judge that fails at a later check: go_on without it, and that check is not kept by a "
        "rule over the judge; or stop the run, to be resumed. At step 0 it always stops",
    )

    @model_validator(mode="after")
    def _asks_of_something(self) -> JudgeSection:
        place = "{object}" if self.ask == "claims" else "{answer}"
        if place not in self.prompt:
            raise ValueError(f"prompt of ask: {self.ask} must contain {place}")
        if not self.scale[0] < self.scale[1]:
            raise ValueError("scale: the worst rating comes first, and is smaller than the best")
        return self


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
    heldout: HeldoutSection | None = Field(
        default=None, description="rows that are not trained on: loss, and of pairs accuracy and margin"
    )
    judge: JudgeSection | None = Field(
        default=None, description="a model at an endpoint judges descriptions and own questions"
    )
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
        if not (self.asks or self.heldout):
            raise ValueError("nothing is asked: give prompts, instances, questions, own or heldout")
        if self.captions is not None and self.instances is None:
            raise ValueError("captions add to instances, which are not given")
        if self.judge is not None:
            judged = self.prompts or self.instances or (self.own and self.judge.ask == "rating")
            if not judged:
                raise ValueError("judge has nothing to judge: give prompts, instances, or own for a rating")
        return self

    @property
    def asks(self) -> bool:
        """Whether the policy is asked to answer anything."""
        return bool(self.prompts or self.instances or self.questions or self.own)

    def inputs(self) -> dict[str, Path]:
        """For `run_stage(inputs=...)`."""
        found = {
            "dev_prompts": self.prompts,
            "dev_images": self.image_root,
            "dev_instances": self.instances,
            "dev_captions": self.captions,
            "dev_questions": self.questions and self.questions.questions,
            "dev_annotations": self.questions and self.questions.annotations,
            "dev_own": self.own and self.own.path,
            "dev_heldout": self.heldout and self.heldout.path,
            "dev_heldout_images": self.heldout and self.heldout.image_root,
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
    patience_on: str | None = Field(
        default=None,
        description="the gain that patience waits for, such as heldout_loss_drop; null: that of `most`",
    )

    model_config = ConfigDict(serialize_by_alias=True)

    @field_validator("most", "patience_on")
    @classmethod
    def _known_gain(cls, most: str | None) -> str | None:
        if most is not None:
            gain_of(most)
        return most

    @model_validator(mode="after")
    def _has_patience(self) -> KeepSection:
        if self.patience_on is not None and self.patience is None:
            raise ValueError("patience_on is read by patience, which is not given")
        return self

    @field_validator("limits")
    @classmethod
    def _known_limits(cls, limits: dict[str, float]) -> dict[str, float]:
        for name, limit in limits.items():
            check_limit(name, limit)
        return limits
