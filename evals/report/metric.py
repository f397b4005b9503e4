"""One line of the results, and the names under which readers know tasks, metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Effect = Literal["better", "worse", "changed", "unclear"]

_STRICT = "_strict"
_METRICS = {
    "acc": "Accuracy", "acc_plus": "Accuracy+", "amber": "AMBER score", "anls": "ANLS", "chair": "CHAIR",
    "chair_i": "CHAIRi", "chair_s": "CHAIRs", "chair_s_refine": "CHAIRs of answers with objects",
    "f1": "F1", "hm": "Harmonic mean", "tnr": "True negatives", "tpr": "True positives",
    "words": "Words per caption", "aAcc": "aAcc", "fAcc": "fAcc", "qAcc": "qAcc",
    "broken_captions": "Captions with broken grammar",
    "colour_accuracy": "Colours said that are right",
    "distinct_2": "Distinct word pairs (distinct-2)",
    "distinct_invention": "Invented objects, each once",
    "instance_f1": "Instance F1", "instance_precision": "Instance precision",
    "instance_recall": "Instance recall",
    "number_accuracy": "Numbers said that are right",
    "object_f1": "Object F1", "object_recall": "Objects told, each once",
    "overcounted": "Objects counted too high",
    "place_accuracy": "Places said that are right",
    "relation_accuracy": "Relations said that are right",
    "repeated_3grams": "Repeated 3-grams",
    "repeated_captions": "Captions that repeat an object",
}  # fmt: skip
_TASKS = {
    "amber": "AMBER", "chair": "CHAIR", "chartqa": "ChartQA", "dash_b": "DASH-B", "docvqa": "DocVQA",
    "gqa": "GQA", "hallusionbench": "HallusionBench", "haloquest": "HaloQuest", "mmbench": "MMBench",
    "mme": "MME", "mmhal": "MMHal-Bench", "objhal": "Object HalBench", "pope": "POPE", "popev2": "POPEv2",
    "repope": "RePOPE", "scienceqa": "ScienceQA", "textvqa": "TextVQA", "vizwiz": "VizWiz", "vqa": "VQA",
    "vqav2": "VQAv2",
}  # fmt: skip
# Splits that say nothing: every table of such a task has them.
_PLAIN_SPLITS = ("", "all", "test")
GUARDS = {"chair": "recall", "amber": "cover", "objhal": "recall"}
"""Type of task -> the metric without which fewer inventions mean little: the share of what is there that is
told."""


@dataclass(frozen=True)
class Change:
    """One checkpoint minus another, with its 95% interval.

    Attributes:
        p_holm: corrected over the primary metrics; None for a metric that is not one.
        mde: the smallest true change that the test set would find four times in five.
        paired: whether both answered the same samples; otherwise two independent intervals were put together.
    """

    delta: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    mde: float | None = None
    paired: bool = True

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.ci_low is not None and self.ci_high is not None and not self.ci_low <= 0 <= self.ci_high


@dataclass(frozen=True)
class Metric:
    """One line of the results. Shares are in percent and their differences in percentage points.

    Attributes:
        type: the kind of task (`chair`, `pope`, `vqa`); `task` is its name in the recipe.
        part: what part of the task's split the line is about: POPE's variant, VQA's kind; empty for all.
        measures: `invention`, `probing`, `ability`, `truth` or `form`, see `evals.task.Aim`.
        points: whether values are on the benchmark's own scale instead of percent.
        values: checkpoint -> value, in the order of the checkpoints; None where there is none.
        ci: checkpoint -> its value's own 95% interval.
        change: the last checkpoint against the one before; all None where it cannot be told.
        changes: (before, after) -> the same for the other steps.
    """

    task: str
    type: str
    metric: str
    split: str
    part: str
    mode: str
    measures: str
    points: bool
    description: str
    higher_is_better: bool | None
    primary: bool
    values: Mapping[str, float | None]
    ci: Mapping[str, tuple[float, float]]
    n: int
    clusters: int
    change: Change = field(default_factory=Change)
    changes: Mapping[tuple[str, str], Change] = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        """The metric's name without the mark of the strict scorer."""
        return self.metric.removesuffix(_STRICT)

    @property
    def is_guard(self) -> bool:
        """See `GUARDS`."""
        return self.base_name == GUARDS.get(self.type)

    @property
    def is_share(self) -> bool:
        """Whether values are percentages."""
        return not self.points

    @property
    def digits(self) -> int:
        """Decimals worth showing: two on a short scale such as 0 to 6."""
        largest = max((abs(value) for value in self.values.values() if value is not None), default=0.0)
        return 2 if self.points and largest < 10 else 1

    @property
    def label(self) -> str:
        """The metric's name as papers write it."""
        return label_of(self.base_name)

    @property
    def task_label(self) -> str:
        """The task's name as papers write it, with the part."""
        return f"{task_label(self.task, self.type)} {self.part}".strip()

    @property
    def gain(self) -> float | None:
        """The last step's difference in the better direction, None where neither is better."""
        if self.change.delta is None or self.higher_is_better is None:
            return None
        return self.change.delta if self.higher_is_better else -self.change.delta

    @property
    def effect(self) -> Effect:
        """Of the last step, see `effect_of`."""
        return self.effect_of(self.change)

    def effect_of(self, change: Change) -> Effect:
        """`better`, `worse` or, where neither is, `changed`; `unclear` when the interval has zero."""
        if not change.is_clear or change.ci_low is None:
            return "unclear"
        if self.higher_is_better is None:
            return "changed"
        return "better" if (change.ci_low > 0) == self.higher_is_better else "worse"


def label_of(name: str) -> str:
    """A metric's name as papers write it."""
    return _METRICS.get(name, name.replace("_", " ").capitalize())


def part_of(split: str, whole: str) -> str:
    """`test/how many` is the part `how many` of the split `test`."""
    part = split.removeprefix(whole).removeprefix("/") if whole else split
    return "" if part in _PLAIN_SPLITS else part.rsplit("/", 1)[-1].replace("_", " ")


def task_label(task: str, kind: str) -> str:
    """`CHAIR` for the task `chair`, `CHAIR unseen` for `chair_unseen`, other names as they are."""
    if task in _TASKS:
        return _TASKS[task]
    rest = task.removeprefix(kind)
    if kind not in _TASKS or rest == task or not rest.startswith(("_", "-")):
        return task
    return f"{_TASKS[kind]} {rest[1:].replace('_', ' ')}".strip()


def shown_name(checkpoint: str) -> str:
    """SFT and DPO in capitals, other names as they are."""
    return checkpoint.upper() if checkpoint.lower() in ("sft", "dpo", "orpo", "kto") else checkpoint
