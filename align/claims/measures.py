"""The measures of answers: additive values of each, and ratios of their sums.

Every measure is a ratio of sums over answers, so that a paired bootstrap derives it again from each resample
(`align.scoring.stats`). What a measure needs decides where it exists: `text` everywhere; `presence` where it
is known which objects are there; `counts` where it is known how many; `attributes` where places, colours or
boxes are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from align.claims.claims import CLAIM_KINDS, StatedClaim, claims_in, named_instances
from align.claims.parsing import read_text
from align.claims.truth import PictureTruth, check
from align.claims.wording import broken_marks, ngrams_again, words_of

Needs = Literal["text", "presence", "counts", "attributes"]


@dataclass(frozen=True)
class Measure:
    """A ratio of weighted sums of the values of `measure_answer`.

    Attributes:
        name: as in metrics.json, in `keep` rules and in reports.
        numerator, denominator: value name -> weight.
        higher_is_better: None where neither is.
        scale: 100 for percentages, 1 for plain numbers.
        needs: what must be known of the pictures.
    """

    name: str
    numerator: Mapping[str, float]
    denominator: Mapping[str, float]
    higher_is_better: bool | None
    scale: float
    needs: Needs
    description: str

    def of(self, answers: Iterable[Mapping[str, float]]) -> float | None:
        """The measure over many answers' values, on its scale; None where nothing was to be measured."""
        sums: Counter[str] = Counter()
        for values in answers:
            sums.update(values)
        below = sum(weight * sums[name] for name, weight in self.denominator.items())
        above = sum(weight * sums[name] for name, weight in self.numerator.items())
        return self.scale * above / below if below else None


def _share(name: str, above: str, below: str, higher: bool | None, needs: Needs, description: str) -> Measure:
    return Measure(name, {above: 1.0}, {below: 1.0}, higher, 100.0, needs, description)


MEASURES: tuple[Measure, ...] = (
    _share("distinct_invention", "kinds_invented", "kinds_named", False, "presence",
           "distinct objects named that are not there, of all distinct ones named"),
    _share("object_recall", "kinds_right", "kinds_there", True, "presence",
           "distinct objects there that are named"),
    Measure("object_f1", {"kinds_right": 2.0}, {"kinds_named": 1.0, "kinds_there": 1.0}, True, 100.0,
            "presence", "harmonic mean of distinct objects right and told"),
    _share("instance_precision", "instances_right", "instances_named", True, "counts",
           "instances named that are there: of `two dogs` one, where one dog is there"),
    _share("instance_recall", "instances_right", "instances_there", True, "counts",
           "instances there that are named"),
    Measure("instance_f1", {"instances_right": 2.0}, {"instances_named": 1.0, "instances_there": 1.0}, True,
            100.0, "counts", "harmonic mean of instance precision and recall"),
    _share("overcounted", "kinds_overcounted", "kinds_counted", False, "counts",
           "objects there that are named more often than they are there, of those named"),
    _share("number_accuracy", "number_right", "number_claims", True, "counts",
           "numbers above one that are right"),
    _share("place_accuracy", "place_right", "place_claims", True, "attributes",
           "places said that are an instance's"),
    _share("colour_accuracy", "colour_right", "colour_claims", True, "attributes",
           "colours said that are an instance's"),
    _share("relation_accuracy", "relation_right", "relation_claims", True, "attributes",
           "relations said in which two instances stand"),
    _share("repeated_captions", "repeats", "answers", False, "text",
           "captions that name an object behind more than one number: `a dog, a dog`"),
    _share("repeated_3grams", "trigrams_again", "trigrams", False, "text",
           "sequences of three words that stood in the same caption before"),
    _share("distinct_2", "bigrams_distinct", "bigrams", True, "text",
           "distinct pairs of words within a caption, of all its pairs"),
    _share("broken_captions", "broken", "answers", False, "text",
           "captions with a sign of broken grammar: doubled words, `a apple`, an end left open"),
    Measure("words", {"answer_words": 1.0}, {"answers": 1.0}, None, 1.0, "text", "words a caption"),
)  # fmt: skip
"""All measures, those of truth first."""


def measures_for(truth: Iterable[PictureTruth] | None) -> tuple[Measure, ...]:
    """The measures that pictures' annotations allow; None for none: the text alone."""
    known: set[str] = {"text"}
    for picture in truth or ():
        known.add("presence")
        known |= {"counts"} if picture.counts_known else set()
        known |= {"place_accuracy"} if picture.places else set()
        known |= {"colour_accuracy"} if picture.colours else set()
        known |= {"relation_accuracy"} if picture.boxes else set()
    return tuple(measure for measure in MEASURES if known & {measure.needs, measure.name})


def measure_answer(text: str, truth: PictureTruth | None) -> dict[str, float]:
    """The additive values of one answer; without a truth only those of its text. What is not known of a
    picture adds nothing: where only presence is, the values of counts are 0.

    A plural without a number names two. Instances of a category whose number is not known (a crowd, an object
    that only people's captions name) are left out. Numbers, places, colours and relations are measured of
    what is there: what is not there is invention, and counted once.
    """
    words, phrases = words_of(text), read_text(text)
    named = named_instances(phrases)
    again, trigrams = ngrams_again(words, 3)
    doubled, bigrams = ngrams_again(words, 2)
    values: dict[str, float] = {
        "answers": 1,
        "answer_words": len(text.split()),
        "repeats": any(total.repeated for total in named.values()),
        "trigrams_again": again,
        "trigrams": trigrams,
        "bigrams_distinct": bigrams - doubled,
        "bigrams": bigrams,
        "broken": bool(broken_marks(text)),
    }
    if truth is not None:
        counts = {category: total.count for category, total in named.items()}
        values |= _presence_values(counts, truth)
        values |= _count_values(counts if truth.counts_known else {}, truth)
        values |= _claim_values(claims_in(phrases), truth)
    return {name: float(value) for name, value in values.items()}


def worse_tail(
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    above: str = "instances_right",
    below: str = "instances_named",
) -> float | None:
    """The share (0 to 1) of pictures whose own ratio fell, by default instance precision.

    A guard on a mean hides a tail: many a little better can pay for some much worse. Pairs in which one side
    has nothing to measure are left out; None where all are.

    Raises:
        ValueError: not as many answers before as after.
    """
    pairs = [
        (first[above] / first[below], second[above] / second[below])
        for first, second in zip(before, after, strict=True)
        if first.get(below) and second.get(below)
    ]
    return sum(second < first for first, second in pairs) / len(pairs) if pairs else None


def _presence_values(counts: Mapping[str, int], truth: PictureTruth) -> dict[str, float]:
    right = sum(category in truth.counts for category in counts)
    return {
        "kinds_named": len(counts),
        "kinds_right": right,
        "kinds_invented": len(counts) - right,
        "kinds_there": len(truth.counts),
    }


def _count_values(counts: Mapping[str, int], truth: PictureTruth) -> dict[str, float]:
    known = truth.counts if truth.counts_known else {}
    there = {category: count for category, count in known.items() if category not in truth.crowds}
    named = {category: count for category, count in counts.items() if category not in truth.crowds}
    return {
        "instances_named": sum(named.values()),
        "instances_right": sum(min(count, there.get(category, 0)) for category, count in named.items()),
        "instances_there": sum(there.values()),
        "kinds_overcounted": sum(count > there.get(category, count) for category, count in named.items()),
        "kinds_counted": len(named.keys() & there.keys()),
    }


def _claim_values(claims: Sequence[StatedClaim], truth: PictureTruth) -> dict[str, float]:
    """Of every kind but presence: claims whose truth is known, and those that are right."""
    values: dict[str, float] = {}
    for kind in CLAIM_KINDS[1:]:
        told = [
            check(claim, truth)
            for claim in claims
            if claim.kind == kind and {claim.category, claim.other} - {""} <= truth.counts.keys()
        ]
        values[f"{kind}_right"] = told.count(True)
        values[f"{kind}_claims"] = told.count(True) + told.count(False)
    return values
