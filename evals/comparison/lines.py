"""From scored answers to lines of `metrics.json`: per-cluster sums, values, paired differences, health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from align.rows.schema import Prediction, Score
from align.scoring.stats import Array, Comparison, compare, holm, intervals, ratios
from evals.comparison.metric_line import Change, MetricLine, steps_of
from evals.protocol import CAPTION_AIMS, Aim, Metric

Parts = Mapping[str | None, Sequence[Score]]


class Measured(Protocol):
    """What a comparison needs of a task; a record of one will do."""

    @property
    def name(self) -> str:
        """See `Task`."""
        ...

    @property
    def measures(self) -> Aim:
        """See `Task`."""
        ...

    @property
    def metrics(self) -> Sequence[Metric]:
        """See `Task`."""
        ...

    def combine(self, scores: Sequence[Score], /) -> Sequence[Score]:
        """See `Task`."""
        ...


@dataclass
class Health:
    """Counts of what a reader must know before believing the numbers.

    Attributes:
        n: samples asked. The others count samples: `unparsed` by the strict scorer, `empty` answers,
            `truncated` by the token limit, `failed` requests (not scored), those with `thoughts` before the
            answer, which is scored without them, and those whose thoughts are `unclosed`: there is no answer,
            and they are truncated too.
    """

    n: int = 0
    unparsed: int = 0
    empty: int = 0
    truncated: int = 0
    failed: int = 0
    thoughts: int = 0
    unclosed: int = 0
    words: int = 0

    def add(self, prediction: Prediction, score: Score | None) -> None:
        """Count one prediction and, unless the request failed, its score."""
        self.n += 1
        if score is None or prediction.text is None:
            self.failed += 1
            return
        self.unparsed += bool(score.meta.get("unparsed"))
        self.empty += not prediction.text.strip()
        self.truncated += prediction.finish_reason == "length"
        self.thoughts += bool(prediction.reasoning) or prediction.unclosed
        self.unclosed += prediction.unclosed
        self.words += len(prediction.text.split())

    def to_json(self) -> dict[str, Any]:
        """The counts, with the mean number of words of the answers; thoughts only where there were some."""
        answered = self.n - self.failed
        counts = {key: getattr(self, key) for key in ("n", "unparsed", "empty", "truncated", "failed")}
        if self.thoughts:
            counts |= {"thoughts": self.thoughts, "unclosed": self.unclosed}
        return {**counts, "mean_words": round(self.words / answered, 3) if answered else 0.0}


def compare_task(
    task: Measured,
    scores: Mapping[str, Sequence[Score]],
    resamples: int,
    seed: Sequence[int],
    margin: float = 1.0,
    metrics: Sequence[Metric] | None = None,
) -> list[MetricLine]:
    """One line a metric: each checkpoint's value with its interval, and the paired differences of `steps_of`.

    Args:
        margin: the loss that still counts as kept, in the metric's unit (points of a share).
        metrics: the lines wanted, all of the task's by default.

    All checkpoints are compared on the samples that were scored for all of them, and on the groups of samples
    that are whole in all of them.
    """
    common = set.intersection(*({score.sample_id for score in part} for part in scores.values()))
    shared = {
        name: by_subset(task.combine([score for score in part if score.sample_id in common]))
        for name, part in scores.items()
    }
    first = next(iter(shared.values()))
    clusters = _cluster_index(first[None])
    metrics = task.metrics if metrics is None else metrics
    sums = {
        name: [cluster_sums(metric, parts, clusters) for metric in metrics] for name, parts in shared.items()
    }
    rows = [
        _row(task, metric, {name: sums[name][k] for name in sums}, first) for k, metric in enumerate(metrics)
    ]
    for batch in _batches(metrics) if common else ():
        chosen = {name: [found[k] for k in batch] for name, found in sums.items()}
        draws = {"resamples": resamples, "seed": seed}
        _add_intervals([rows[k] for k in batch], chosen, draws)
        for before, after in steps_of(list(scores)):
            binary = [is_binary(metrics[k], shared[before], shared[after]) for k in batch]
            losses = [_too_great_a_loss(metrics[k], margin) for k in batch]
            steps = compare(chosen[before], chosen[after], binary, losses=losses, **draws)
            for k, step in zip(batch, steps, strict=True):
                rows[k].set_change(before, after, _difference(step, metrics[k].scale))
    return rows


def _batches(metrics: Sequence[Metric]) -> list[list[int]]:
    """Indices of the metrics that are resampled together: a benchmark's own first and by themselves, so that
    further measures of captions leave the random draws behind its intervals as they were."""
    own = [k for k, metric in enumerate(metrics) if metric.measures not in CAPTION_AIMS]
    rest = [k for k, metric in enumerate(metrics) if metric.measures in CAPTION_AIMS]
    return [batch for batch in (own, rest) if batch]


def _add_intervals(
    rows: Sequence[MetricLine], sums: Mapping[str, Sequence[Array]], draws: Mapping[str, Any]
) -> None:
    for name, found in sums.items():
        for row, ends in zip(rows, intervals(found, **draws), strict=True):
            low, high = (_rounded(end * row.scale) for end in ends)
            row.ci[name] = (low, high)


def correct(rows: Sequence[MetricLine], checkpoints: Sequence[str]) -> None:
    """Set `p_holm` on the primary lines: Holm's correction over all of them, for each step by itself."""
    for step in steps_of(checkpoints):
        changes = [change for row in rows if row.primary and (change := row.change_of(*step)) is not None]
        tested = {k: change.p for k, change in enumerate(changes) if change.p is not None}
        for k, p in zip(tested, holm(list(tested.values())), strict=True):
            changes[k].p_holm = float(f"{p:.6g}")


def cluster_sums(metric: Metric, parts: Parts, clusters: Mapping[str, int]) -> Array:
    """Per-cluster numerators and denominators of a metric: float64 [C, 2K], see `align.scoring.stats`."""
    subsets = metric.subsets or (None,)
    sums = np.zeros((len(clusters), 2 * len(subsets)))
    for k, subset in enumerate(subsets):
        for score in parts.get(subset, ()):
            row = clusters[score.cluster]
            sums[row, k] += _weighted(metric.numerator, score)
            sums[row, len(subsets) + k] += _weighted(metric.denominator, score)
    return sums


def is_binary(metric: Metric, before: Parts, after: Parts) -> bool:
    """Whether McNemar's test applies: a plain share of samples, each sample alone in its cluster."""
    if len(metric.subsets) > 1:
        return False
    for parts in (before, after):
        scores = parts.get(metric.subsets[0] if metric.subsets else None, ())
        if len({score.cluster for score in scores}) != len(scores):
            return False
        for score in scores:
            if _weighted(metric.denominator, score) != 1 or _weighted(metric.numerator, score) not in (0, 1):
                return False
    return True


def by_subset(scores: Sequence[Score]) -> Parts:
    """Scores by the subsets they belong to; None holds all of them."""
    parts: dict[str | None, list[Score]] = {None: list(scores)}
    for score in scores:
        for subset in score.meta["subsets"]:
            parts.setdefault(subset, []).append(score)
    return parts


def _weighted(weights: Mapping[str, float], score: Score) -> float:
    return sum(weight * score.values[name] for name, weight in weights.items())


def _cluster_index(scores: Sequence[Score]) -> dict[str, int]:
    return {name: index for index, name in enumerate(sorted({score.cluster for score in scores}))}


def _row(task: Measured, metric: Metric, sums: Mapping[str, Array], parts: Parts) -> MetricLine:
    members = [score for subset in metric.subsets or (None,) for score in parts.get(subset, ())]
    asked = {score.sample_id: score.cluster for score in members}
    totals = {name: values.sum(axis=0) for name, values in sums.items()}
    k = max(1, len(metric.subsets))
    return MetricLine(
        task=task.name,
        metric=metric.name,
        split=metric.split,
        mode=metric.mode,
        higher_is_better=metric.higher_is_better,
        primary=metric.primary,
        measures=metric.measures or task.measures,
        scale=metric.scale,
        points=metric.points,
        values={name: _rounded(float(ratios(total, k)) * metric.scale) for name, total in totals.items()},
        n=len(asked),
        clusters=len(set(asked.values())),
        undefined=[name for name, total in totals.items() if bool((total[k:] == 0).any())],
        description=metric.description,
    )


def _too_great_a_loss(metric: Metric, margin: float) -> float | None:
    """The difference, on the 0-to-1 scale, at which a metric counts as lost; None where neither way is."""
    if metric.higher_is_better is None:
        return None
    return (-margin if metric.higher_is_better else margin) / metric.scale


def _difference(step: Comparison, scale: float) -> Change:
    return Change(
        delta=_rounded(step.delta * scale),
        ci_low=_rounded(step.ci_low * scale),
        ci_high=_rounded(step.ci_high * scale),
        p=float(f"{step.p:.6g}"),
        p_method=step.method,
        p_not_worse=None if step.p_not_worse is None else float(f"{step.p_not_worse:.6g}"),
        mde=_rounded(step.mde * scale),
    )


def _rounded(value: float) -> float:
    """Six decimals: far below any difference that matters, above what the order of a sum changes."""
    return round(value, 6) + 0.0
