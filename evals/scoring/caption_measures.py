"""What captions are measured by beside a benchmark's own numbers: truth of what is said, and its form.

The measures are `align.claims.MEASURES`, so that training, scores and report speak of the same numbers. Here
they become metrics of a task (`Metric`) and values of a scored answer (`Mark`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from align.claims import (
    Measure,
    PictureTruth,
    broken_marks,
    check,
    claims_of,
    measure_answer,
    measures_for,
    repeated_categories,
)
from evals.protocol import Aim, Metric

PRESENCE = (PictureTruth.of_objects(()),)
"""The `truths` of a task that knows which things are there and nothing else."""


def caption_metrics(
    truths: Iterable[PictureTruth] | None,
    split: str,
    subsets: tuple[str, ...] = (),
    without: Collection[str] = (),
) -> list[Metric]:
    """The measures that the pictures' annotations allow, as metrics that are never primary.

    Args:
        truths: what is known of the pictures; None for nothing.
        without: measures that the task has by itself.
    """
    return [
        _metric(measure, split, subsets) for measure in measures_for(truths) if measure.name not in without
    ]


def caption_values(text: str, truth: PictureTruth | None) -> dict[str, float]:
    """The additive values of one caption, those of `align.claims.measure_answer`."""
    return measure_answer(text, truth)


def caption_meta(text: str, truth: PictureTruth | None) -> dict[str, Any]:
    """What a reader needs to see why a caption has its values.

    Returns:
        repeated: categories behind more than one number; broken: signs of broken grammar; and, with a truth,
        claims: each with kind, category, value and right (None where the annotations don't say).
    """
    meta: dict[str, Any] = {"repeated": repeated_categories(text), "broken": list(broken_marks(text))}
    if truth is not None:
        meta["claims"] = [
            {
                "kind": claim.kind,
                "category": claim.category,
                "value": claim.value,
                "right": check(claim, truth),
            }
            for claim in claims_of(text)
        ]
    return meta


def _metric(measure: Measure, split: str, subsets: tuple[str, ...]) -> Metric:
    aim: Aim = "form" if measure.needs == "text" else "truth"
    return Metric(
        name=measure.name,
        split=split,
        numerator=measure.numerator,
        denominator=measure.denominator,
        higher_is_better=measure.higher_is_better,
        scale=measure.scale,
        description=measure.description,
        subsets=subsets,
        measures=aim,
        points=measure.scale != 100,
    )
