"""The recipe of `align judge`: what is judged, by whom, and how each kind of judge is asked."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from align.claims import CLAIM_KINDS
from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe, Strict
from align.digest import digest_json
from align.judging.endpoint import Endpoint
from align.judging.wording import places
from align.objects.mentions import Mode
from align.rows.schema import ClaimKind
from align.serving.server import HOW_KEYS, ServeSettings
from align.serving.wire import PATIENCE_KEYS
from data_tools.judge.claim_questions import Questions
from data_tools.judge.claim_scores import ClaimScores
from data_tools.judge.split import Split
from data_tools.material.claims import DEFAULT_QUESTION
from data_tools.material.truth import Annotations

Kind = Literal["claims", "rating", "pairwise", "oracle", "ensemble"]

RATING_PROMPT = """\
Here is a conversation about the picture. Rate what the assistant says, each from 1 (worst) to 5 (best):
- accuracy: all of it is true of the picture, nothing in it is invented;
- completeness: it gives everything that was asked for;
- relevance: it answers what was asked and nothing else.

{conversation}

Reply with three lines and nothing else:
accuracy: <1 to 5>
completeness: <1 to 5>
relevance: <1 to 5>"""

PAIRWISE_PROMPT = """\
Here is a question about the picture, and two answers.

Question: {question}

Answer A: {first}

Answer B: {second}

Which answer is better? What an answer says must be true of the picture: something invented weighs more than \
something left out. Of two answers that are equally true, the more complete one is better.
Reply with one letter and nothing else: A, B, or C if neither is better."""


class Rating(Strict):
    """Kind rating: a rubric of three sides, each 1 to 5."""

    prompt: str = Field(
        default=RATING_PROMPT, description="put to the judge; {conversation} is what it rates"
    )
    combine: Literal["min", "mean"] = Field(
        default="min", description="an answer's score: its weakest side, or the mean of the three"
    )
    keep_at_least: float = Field(default=4.0, ge=1, le=5, description="instruction rows below are dropped")
    max_tokens: int = Field(default=64, ge=1, description="longest reply, in tokens")

    @field_validator("prompt")
    @classmethod
    def _has_places(cls, prompt: str) -> str:
        if "conversation" not in places(prompt):
            raise ValueError("must contain {conversation}")
        return prompt


class Pairwise(Strict):
    """Kind pairwise: two answers side by side, in both orders."""

    prompt: str = Field(
        default=PAIRWISE_PROMPT, description="put to the judge; has {question}, {first} and {second}"
    )
    max_per_prompt: int = Field(default=8, ge=1, description="most couples of one prompt's answers")
    max_tokens: int = Field(default=8, ge=1, description="longest reply, in tokens")

    @field_validator("prompt")
    @classmethod
    def _has_places(cls, prompt: str) -> str:
        if missing := {"question", "first", "second"} - places(prompt):
            raise ValueError(f"must contain {{{min(missing)}}}")
        return prompt


class Ensemble(Strict):
    """Kind ensemble: verdicts that other judges have given on the same candidates."""

    verdicts: dict[str, Path] = Field(default={}, description="name -> verdicts.jsonl of a judge stage")
    combine: Literal["claims", "votes", "mean"] = Field(
        default="votes",
        description="claims: the mean probability of each claim; votes: each judge votes on each couple of "
        "answers; mean: of the scores, which must then be on one scale",
    )


class Recipe(StageRecipe):
    """The recipe of `align judge`."""

    how_keys: ClassVar[frozenset[str]] = HOW_KEYS.union(
        ("concurrency", "answers"),
        (f"{section}.{name}" for section in ("judge", "split.by") for name in PATIENCE_KEYS),
    )
    limit_keys: ClassVar[frozenset[str]] = frozenset({"max_failed", "max_unread"})

    name: str = "judge"
    kind: Kind = Field(default="claims", description="how answers are judged, see above")
    model: ModelRef | None = Field(default=None, description="the judge's checkpoint folder or hub id")
    judge: Endpoint | None = Field(default=None, description="a judge behind a server, instead of `model`")
    candidates: Path | None = Field(default=None, description="candidates.jsonl of the sample stage")
    rows: Path | None = Field(
        default=None, description="instruction rows to filter instead of candidates (kind rating)"
    )
    image_root: Path = Field(description="folder that image paths are relative to")
    question: str = Field(
        default=DEFAULT_QUESTION, description="kind claims: what is asked about presence; {object} is `a dog`"
    )
    questions: Questions = Questions()
    kinds: list[ClaimKind] = Field(
        default=list(CLAIM_KINDS), description="kind claims: which of an answer's claims are judged"
    )
    score: Literal["utility", "denied", "chair"] = Field(
        default="utility",
        description="kinds claims and oracle: utility: what true and false claims and repetitions add up to "
        "(`claim_scores`); denied: minus the number of denied claims (RLAIF-V), where silence is best; "
        "chair: minus the share of mentions whose object is denied (CHAIR-DPO)",
    )
    claim_scores: ClaimScores = ClaimScores()
    min_kind_agreement: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="kind claims: numbers, places, colours and relations count where the lower bound of the "
        "judge's balanced accuracy on dev is above this; 0: all count, measured or not",
    )
    text_tokens: int = Field(
        default=1024,
        ge=1,
        description="kind claims: longest reply of a judge that tells no log-probabilities or thinks first, "
        "and is read by its words",
    )
    splitter: Literal["objects", "model"] = Field(
        default="objects",
        description="kind claims: objects: claims are about the COCO objects mentioned, found by rule; "
        "model: a model splits answers into claims of any kind (`split`), a text request an answer",
    )
    split: Split = Split()
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts")
    rating: Rating = Rating()
    pairwise: Pairwise = Pairwise()
    ensemble: Ensemble = Ensemble()
    guided: bool = Field(
        default=False,
        description="kinds rating and pairwise: a vLLM judge can write nothing but a verdict (structured "
        "outputs), for small judges that wrap it in words; it cannot reason first then",
    )
    truth: list[Annotations] = Field(
        default=[], description="annotations of the dev images (kind oracle: of all images)"
    )
    labels: Path | None = Field(
        default=None,
        description="people's verdicts, JSONL, to measure the judge by instead of `truth`: {id, rating} for "
        "kind rating, {chosen_id, rejected_id} for kinds pairwise, ensemble and claims, or for claims {id, "
        "claim, holds}, where `claim` is a claim's text in verdicts.jsonl (a first run writes it)",
    )
    serve: ServeSettings = ServeSettings()
    answers: Path | None = Field(
        default=None,
        description="folder where the judge's answers are kept by what was asked (judge, messages, picture, "
        "sampling), so that another threshold or a new row asks only what is new; null: run_dir/answers",
    )
    concurrency: int = Field(default=64, ge=1, description="questions asked at the same time")
    max_failed: float = Field(default=0.02, ge=0, le=1, description="share of failed requests to accept")
    max_unread: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of replies without a verdict to accept; above it the stage fails and shows three",
    )

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        asks = self.kind in ("claims", "rating", "pairwise")
        if asks and bool(self.model) == (self.judge is not None):
            raise ValueError(f"kind {self.kind} needs `model`, the judge's checkpoint, or `judge`, a server")
        if self.kind == "oracle" and not self.truth:
            raise ValueError("kind oracle needs `truth`")
        if self.kind == "ensemble" and len(self.ensemble.verdicts) < 2:
            raise ValueError("kind ensemble needs `ensemble.verdicts` of two judges at least")
        if self.guided and self.kind not in ("rating", "pairwise"):
            raise ValueError("`guided` is for kinds rating and pairwise")
        if "{object}" not in self.question:
            raise ValueError("`question` must contain {object}")
        if self.splitter == "model" and (self.kind != "claims" or self.score == "chair"):
            raise ValueError("splitter: model is for kind claims, with score utility or denied")
        if self.splitter == "objects" and (other := set(self.kinds) - set(CLAIM_KINDS)):
            raise ValueError(f"`kinds`: {min(other)} needs splitter: model")
        if "presence" not in self.kinds:
            raise ValueError("`kinds` must have presence: what is said of an object counts where it is there")
        if (self.candidates is None) == (self.rows is None):
            raise ValueError("give `candidates`, or with kind rating `rows`")
        if self.rows is not None and self.kind != "rating":
            raise ValueError("`rows` can only be rated: kind rating")
        if self.labels is not None and self.kind == "oracle":
            raise ValueError("kind oracle is the truth, and not measured by `labels`")
        return self

    def template(self, kind: ClaimKind) -> str:
        """The question about claims of this kind, with places to fill."""
        templates: dict[str, str] = {"presence": self.question} | self.questions.model_dump()
        return templates[kind]

    def claims_digest(self) -> str:
        """What a verdict by claims records of its prompts and its scoring."""
        templates = {kind: self.template(kind) for kind in self.kinds if kind in CLAIM_KINDS}
        scores = self.claim_scores.model_dump() if self.score == "utility" else {}
        if self.splitter == "model":
            return digest_json([self.split.prompt, self.split.ask, self.score, scores])
        return digest_json([templates, self.splitter, self.objects_mode, self.score, scores])
