"""The keep rule on hand-made logs: noise is not kept, losses are refused, the second half decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from align.dev_check.asked import Asked, first_half
from align.dev_check.recipe import KeepSection
from align.dev_check.rule import KeepRule
from align.dev_check.scores import Scorer, values_of
from align.errors import AlignError

INVENTION, RECALL, REPEATS, WORDS = "distinct_invention", "object_recall", "repeated_captions", "words"
LIMITS = {"recall": -1.0, "repetition": 0.0, "length": 10.0}


def change(delta: float, se: float = 1.0, start: float = 20.0) -> dict[str, float]:
    """A change with a normal interval of 95%."""
    return {
        "value": start + delta,
        "delta": delta,
        "ci_low": delta - 1.96 * se,
        "ci_high": delta + 1.96 * se,
        "se": se,
    }


def line(step: int, first: float, second: float, both: float | None = None, **views: Any) -> dict[str, Any]:
    """A check whose invention changes by so much on each half; `views` are `half={measure: change}`."""
    deltas = {
        "first_half": first,
        "second_half": second,
        "all": (first + second) / 2 if both is None else both,
    }
    even = {RECALL: change(0.0), REPEATS: change(0.0), WORDS: change(0.0, se=0.1)}
    return {
        "step": step,
        **{view: {INVENTION: change(d), **even, **views.get(view, {})} for view, d in deltas.items()},
    }


def rule(**changes: Any) -> KeepRule:
    return KeepRule(**{"most": "invention_drop", "limits": LIMITS, **changes})


def start() -> dict[str, Any]:
    return line(0, 0.0, 0.0)


def test_the_largest_proven_gain_is_kept() -> None:
    kept = rule().decide([start(), line(10, -4, -5), line(20, -8, -7), line(30, -6, -9)])
    assert (kept.step, kept.nothing) == (20, False)
    assert kept.why == "most invention drop with every limit held: -7.5 [-9.5, -5.5]"
    assert kept.measures[INVENTION]["delta"] == -7.5
    assert kept.to_json()["refused"] == {}


def test_a_gain_within_noise_is_not_kept() -> None:
    kept = rule().decide([start(), line(10, -2, -1), line(20, 3, -9)])
    assert (kept.step, kept.nothing) == (0, True)
    assert "step 10, best on the first half: invention drop is within noise: -1.5 [-3.5, +0.5]" in kept.why


def test_a_recall_loss_is_refused_on_either_half_and_on_both() -> None:
    for view in ("first_half", "second_half", "all"):
        worse: Any = {view: {RECALL: change(-3.0)}}
        lost = line(20, -9, -9, **worse)
        kept = rule().decide([start(), line(10, -5, -5), lost])
        assert kept.step == 10
        assert "recall -3.0 [-5.0, -1.0] on" in kept.to_json()["refused"]["20"][0]
    # allowed: less than the limit, or a loss that noise explains
    for harmless in (change(-0.9, se=0.1), change(-3.0, se=3.0)):
        assert rule().decide([start(), line(20, -9, -9, all={RECALL: harmless})]).step == 20


def test_the_second_half_alone_contradicts_a_limit_only_beyond_doubt() -> None:
    """A loss of 2, of which 1 is allowed, with a standard error of 1: past the limit by less than 1.28."""
    near: Any = {RECALL: change(-2.0)}
    assert rule().decide([start(), line(20, -9, -9, second_half=near)]).step == 20
    assert rule().decide([start(), line(20, -9, -9, second_half={RECALL: change(-2.3)})]).nothing
    assert rule().decide([start(), line(20, -9, -9, first_half=near)]).nothing
    assert rule().decide([start(), line(20, -9, -9, all=near)]).nothing
    longer: Any = {WORDS: change(2.5, se=0.5)}  # 10% of 20 words are allowed, so 2.64 with doubt
    assert rule().decide([start(), line(20, -9, -9, second_half=longer)]).step == 20
    assert rule().decide([start(), line(20, -9, -9, second_half={WORDS: change(2.7, se=0.5)})]).nothing


def test_a_rise_of_repetition_is_refused_and_a_drop_is_not() -> None:
    repeats = line(20, -9, -9, first_half={REPEATS: change(2.0)})
    assert rule().decide([start(), repeats]).nothing
    assert rule().decide([start(), line(20, -9, -9, first_half={REPEATS: change(-2.0)})]).step == 20


def test_length_is_limited_both_ways_in_percent() -> None:
    for delta, kept in ((2.5, 0), (-2.5, 0), (1.5, 20), (-1.5, 20)):  # of 20 words
        shorter = line(20, -9, -9, all={WORDS: change(delta, se=0.1)})
        assert rule().decide([start(), shorter]).step == kept


def test_the_second_half_has_the_last_word() -> None:
    lucky = line(20, -12, 1, both=-5.5)
    kept = rule().decide([start(), line(10, -4, -4), lucky])
    assert kept.nothing, "the best by luck is refused, and the second best is not tried instead"
    assert kept.to_json()["refused"]["20"] == ["no invention drop on the second half"]


def test_patience_counts_checks_without_a_gain_on_the_first_half() -> None:
    lines = [start(), line(10, -4, 9), line(20, -3, -3), line(30, -2, -20), line(40, -9, -9)]
    assert rule().stops(lines) is None
    assert rule(patience=2).stops(lines) == 30
    assert rule(patience=3).stops(lines) is None
    assert rule(patience=1).stops(lines[:2]) is None
    broken = line(20, -9, -9, first_half={RECALL: change(-5.0)})
    assert rule(patience=1).stops([start(), line(10, -4, -4), broken]) == 20


def test_noise_is_rarely_kept_and_a_gain_is() -> None:
    """Seven checks of 100 questions, 40% of the answers drawn anew each time: any best of them is noise."""
    noise = sum(not _simulated(right=0.6, seed=seed) for seed in range(20))
    gains = sum(not _simulated(right=0.9, seed=seed) for seed in range(8))
    assert noise <= 4 and gains >= 7


def _simulated(right: float, seed: int) -> bool:
    """Whether nothing is kept of a run whose anew drawn answers are right so often; at step 0 60% are."""
    rng, count = np.random.default_rng(seed), 100
    asked = [own_question(f"q{number}") for number in range(count)]
    before = rng.random(count) < 0.6
    scorer = Scorer(asked, 0.95, _values(before))
    lines: list[dict[str, Any]] = [{"step": 0}]
    for step in range(1, 8):
        now = np.where(rng.random(count) < 0.6, before, rng.random(count) < right)
        views = scorer.changes(_values(now))
        lines.append(
            {"step": step}
            | {view: {name: one.to_json() for name, one in found.items()} for view, found in views.items()}
        )
    return KeepRule("own_gain", {}).decide(lines).nothing


def own_question(name: str, answers: tuple[str, ...] = ("two",)) -> Asked:
    return Asked(name, "own", (name,), (), 8, name, answers=answers)


def _values(right: Any) -> list[dict[str, float]]:
    return [{"own_right": float(one), "own_asked": 1.0} for one in right]


def test_scores_by_hand() -> None:
    asked = [own_question(f"q{number}") for number in range(4)]
    answers = ["Two.", "2", "a two", "three"]
    values = [values_of(item, answer) for item, answer in zip(asked, answers, strict=True)]
    assert [own["own_right"] for own in values] == [1, 1, 1, 0]
    scorer = Scorer(asked, 0.95, values)
    changes = scorer.changes(_values([1, 0, 0, 0]))["all"]["own_accuracy"]
    assert (changes.value, changes.delta) == (25.0, -50.0)
    assert changes.ci_low == -100.0 and changes.ci_high == 0.0
    half = first_half(asked)
    assert len(half) == 2
    alone = scorer.changes(_values([1, 1, 1, 1]))
    second = [item.id for item in asked if item.cluster not in half]
    assert alone["second_half"]["own_accuracy"].delta == (50.0 if "q3" in second else 0.0)


def test_halves_do_not_depend_on_order_or_on_other_runs() -> None:
    asked = [own_question(f"picture{number}.png") for number in range(11)]
    assert first_half(asked) == first_half(asked[::-1])
    assert len(first_half(asked)) == 6


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"most": "inventions_drop"}, "no such gain (did you mean 'invention_drop'?)"),
        ({"most": "recall_gain", "while": {"recal": -1}}, "no measure 'recal' (did you mean 'recall'?)"),
        ({"most": "recall_gain", "while": {"vqa": 1}}, "vqa: +1 asks for a gain"),
        ({"most": "recall_gain", "while": {"repetition": -1}}, "give 0 or more"),
        ({"most": "recall_gain", "while": {"length": -5}}, "percent that it may change either way"),
    ],
)
def test_wrong_words_name_the_right_ones(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        KeepSection.model_validate(section)
    assert words in str(caught.value)


def test_a_section_survives_its_own_dump() -> None:
    limits = {"recall": -1.0, "repetition": 0.0}
    given = {"most": "invention_drop", "while": limits, "patience": 3, "patience_on": "recall_gain"}
    assert KeepSection.model_validate(given).model_dump(mode="json") == given


def test_a_rule_over_what_is_not_measured_says_what_is_missing() -> None:
    with pytest.raises(AlignError, match=r"does not measure object_recall(.|\n)*dev\.instances"):
        rule().check(["distinct_invention", "words"])
