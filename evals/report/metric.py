"""One line of the results, and the names under which readers know tasks, metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from evals.comparison.metric_line import Change, MetricLine
from evals.tasks.facts import Facts

Effect = Literal["better", "worse", "changed", "unclear"]

_STRICT = "_strict"
_METRICS = {
    "anls": "ANLS", "f1": "F1", "words": "Words per caption",
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
"""Measures that several tasks have; what a benchmark alone calls so stands in its class."""
# Splits that say nothing: every table of such a task has them.
_PLAIN_SPLITS = ("", "all", "test")


class Metric(MetricLine):
    """A line of the results as the report shows it. Shares are in percent and their differences in percentage
    points; where a checkpoint has nothing to measure there are no numbers.

    Attributes:
        facts: of its task; `task` is that one's name in the recipe.
        part: what part of the task's split the line is about: a variant, a kind; empty for all.
    """

    facts: Facts
    part: str

    @classmethod
    def of(cls, line: MetricLine, facts: Facts, part: str) -> Metric:
        """What a line says, without the numbers of checkpoints that it lacks."""
        lacking = line.lacking
        last = Change() if lacking & {*[*line.values][-2:]} else line
        return cls(
            **line.model_dump(exclude={*Change.model_fields, "values", "ci", "steps"}),
            **last.model_dump(include=set(Change.model_fields)),
            values={name: None if name in lacking else value for name, value in line.values.items()},
            ci={name: ends for name, ends in line.ci.items() if name not in lacking},
            steps={
                before: {after: change for after, change in found.items() if after not in lacking}
                for before, found in line.steps.items()
                if before not in lacking
            },
            facts=facts,
            part=part,
        )

    @property
    def kind(self) -> str:
        """The kind of task, see `Facts`."""
        return self.facts.kind

    @property
    def change(self) -> Change:
        """The last checkpoint against the one before; all None where it cannot be told."""
        return self

    @property
    def changes(self) -> Mapping[tuple[str, str], Change]:
        """(before, after) -> the same for the other steps."""
        return {(one, two): change for one, found in self.steps.items() for two, change in found.items()}

    @property
    def base_name(self) -> str:
        """The metric's name without the mark of the strict scorer."""
        return self.metric.removesuffix(_STRICT)

    @property
    def is_guard(self) -> bool:
        """Whether fewer inventions mean little without it, see `Facts`."""
        return self.base_name == self.facts.guard

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
        return label_of(self.base_name, self.facts)

    @property
    def task_label(self) -> str:
        """The task's name as papers write it, with the part."""
        return f"{self.facts.label} {self.part}".strip()

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


def label_of(name: str, facts: Facts) -> str:
    """The name of a task's metric as papers write it."""
    return facts.metric_labels.get(name) or _METRICS.get(name, name.replace("_", " ").capitalize())


def part_of(split: str, whole: str) -> str:
    """`test/how many` is the part `how many` of the split `test`."""
    part = split.removeprefix(whole).removeprefix("/") if whole else split
    return "" if part in _PLAIN_SPLITS else part.rsplit("/", 1)[-1].replace("_", " ")


def shown_name(checkpoint: str) -> str:
    """SFT and DPO in capitals, other names as they are."""
    return checkpoint.upper() if checkpoint.lower() in ("sft", "dpo", "orpo", "kto") else checkpoint
