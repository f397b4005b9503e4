"""What a mean hides: how many captions got worse while the others got better, and what the denominator of a
rate of inventions does.

Both compare the two answers to each picture, with intervals over pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from align.rows.schema import Score
from align.scoring.stats import bootstrap_sums, intervals, percentile_interval
from evals.report.captions import Caption, Described
from evals.report.findings import Finding, Tone
from evals.report.load import Results
from evals.report.margins import Margins
from evals.report.metric import shown_name
from evals.report.wording import interval, points, signed

_RESAMPLES = 10_000
# The relative fall that goes to repetition must be at least this much (in log units) to be worth a sentence.
_WORTH_TELLING = 0.02


def captions_worse(results: Results, described: Described | None, margins: Margins) -> Finding | None:
    """Do more captions say more that is not there than say less of it?

    A false instance is one named beyond the number that is there ("two dogs" where one is: one), where the
    scores count instances; otherwise an object named that is not there, each counted once.
    """
    if described is None or {results.before, results.after} - described.captions.keys():
        return None
    counted, unit = _count_of(results, described.task)
    latter = results.index.get((described.task, results.after), {})
    rows = results.rows.get(described.task, {}).get(results.before, ())
    pairs = [(row, latter[row.sample_id]) for row in rows if row.sample_id in latter]
    changes = [
        (one.cluster, after - before)
        for one, two in pairs
        if (before := counted(one)) is not None and (after := counted(two)) is not None
    ]
    if not changes:
        return None
    order = {name: place for place, name in enumerate(sorted({cluster for cluster, _ in changes}))}
    sums = np.zeros((len(order), 2))
    for cluster, change in changes:
        sums[order[cluster]] += (np.sign(change), 1)
    worse, better = (sum(sign * change > 0 for _, change in changes) for sign in (1, -1))
    shares = [100 * count / len(changes) for count in (worse, better)]
    [(low, high)] = [(100 * low, 100 * high) for low, high in intervals([sums], resamples=_RESAMPLES)]
    net = shares[0] - shares[1]
    passed = (
        True
        if high < margins.captions_worse
        else (False if net > margins.captions_worse and low > 0 else None)
    )
    tone: Tone = {True: "neutral", False: "bad", None: "warn"}[passed]  # type: ignore[assignment]
    after = shown_name(results.after)
    text = (
        f"{shares[0]:.0f}% of {after}'s captions have more {unit} than before, {shares[1]:.0f}% have fewer "
        f"({interval(net, low, high)} points)"
    )
    text += {
        True: ".",
        False: ": more get worse than better.",
        None: f": more than {points(margins.captions_worse)} is not ruled out.",
    }[passed]
    numbers = {
        "passed": passed, "worse": shares[0], "better": shares[1], "net": net, "ci_low": low, "ci_high": high,
        "margin": margins.captions_worse, "captions": len(changes), "counts": unit,
    }  # fmt: skip
    brief = f"{shares[0]:.0f}% of captions worse, {shares[1]:.0f}% better"
    return Finding("captions_worse", tone, "Caption by caption", text, numbers, brief)


def counted_once(results: Results, described: Described | None) -> Finding | None:
    """Does the published rate fall because true objects are named more than once?

    The rate has every mention in its denominator, so that naming a true object twice lowers it. Its relative
    fall is compared with that of the same mentions counted once an object and caption:

        excess = log(rate after / rate before) - log(once after / once before)

    It is told when the rate falls, the excess is below zero (95% interval over pictures), and a true object
    is named more often than before; otherwise nothing is.
    """
    if described is None or {results.before, results.after} - described.captions.keys():
        return None
    latter = {caption.sample_id: caption for caption in described.captions[results.after]}
    sides = [
        (one, latter[one.sample_id]) for one in described.captions[results.before] if one.sample_id in latter
    ]
    clusters = {name: place for place, name in enumerate(sorted({one.cluster for one, _ in sides}))}
    sums = np.zeros((len(clusters), 8))
    for one, two in sides:
        sums[clusters[one.cluster]] += (*_mentions(one), *_mentions(two))
    total = sums.sum(axis=0)
    if not total.all():
        return None
    rate, once = (_fall(total[None], columns)[0] for columns in ((0, 1), (2, 3)))
    drawn = bootstrap_sums(sums, _RESAMPLES, np.random.default_rng(0))
    drawn = drawn[(drawn > 0).all(axis=1)]
    if len(drawn) < _RESAMPLES // 2:
        return None
    excess = _fall(drawn, (0, 1)) - _fall(drawn, (2, 3))
    low, high = percentile_interval(excess)
    # Mentions of a true object, in the captions that name it.
    repeats = [
        (side[1] - side[0]) / (side[3] - side[2]) if side[3] > side[2] else 0.0 for side in np.split(total, 2)
    ]
    if not (rate < 0 and high < 0 and rate - once < -_WORTH_TELLING and repeats[1] > repeats[0]):
        return None
    line = results.find(described.task, described.facts.invented)
    name = "The rate" if line is None else line.label
    falls = [100 * (math.exp(change) - 1) for change in (rate, once)]
    how = "partly " if once < 0 else ""
    text = signed(
        f"{name} falls {how}because true objects are named twice: {falls[0]:+.0f}% as published, "
        f"{falls[1]:+.0f}% with each object counted once a caption. A true object that is named is named "
        f"{repeats[0]:.2f} → {repeats[1]:.2f} times."
    )
    numbers = {
        "published_percent": falls[0], "counted_once_percent": falls[1], "excess_log": rate - once,
        "ci_low": low, "ci_high": high, "mentions_per_true_object": repeats,
    }  # fmt: skip
    brief = f"{name} falls {how}because true objects are named twice"
    return Finding("counted_once", "warn", "The denominator", text, numbers, brief)


def _count_of(results: Results, task: str) -> tuple[Callable[[Score], float | None], str]:
    """How false instances of a row are counted, and what they are called."""
    rows = results.rows.get(task, {}).get(results.after, ())
    if rows and results.sums_in(rows[0], "instance_precision") is not None:

        def instances(row: Score) -> float | None:
            found = results.sums_in(row, "instance_precision")
            return None if found is None else found[1] - found[0]

        return instances, "false instances"

    def objects(row: Score) -> float | None:
        found = results.sums_in(row, "distinct_invention")
        return None if found is None else found[0]

    return objects, "objects that are not there"


def _mentions(caption: Caption) -> tuple[float, float, float, float]:
    """Invented mentions, mentions, invented objects, objects; the last two distinct."""
    invented = {mention["category"] for mention in caption.mentions if mention["invented"]}
    distinct = {mention["category"] for mention in caption.mentions}
    return caption.num_invented, len(caption.mentions), len(invented), len(distinct)


def _fall(sums: np.ndarray, columns: tuple[int, int]) -> np.ndarray:
    """log(rate after / rate before) of sums [R, 8]: four columns of each checkpoint."""
    top, bottom = columns
    return np.log(sums[:, 4 + top] / sums[:, 4 + bottom]) - np.log(sums[:, top] / sums[:, bottom])
