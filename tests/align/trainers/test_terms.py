"""Each term against the formula written out with `math`, pair by pair and token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from align.config.recipe import Strict
from align.trainers.objectives.recipe import ObjectiveSection, PairBeta, TokenWeights
from align.trainers.objectives.terms import (
    AnchorTerm,
    Branch,
    ConditionalTerm,
    Pair,
    QualityTerm,
    RunningMean,
    SupervisedTerm,
    pair_beta,
)
from align.trainers.objectives.token_weights import differing_tokens, pair_weights, span_weights

# Two pairs: answers of 2 and 3 tokens (chosen), 1 and 2 (rejected); log-probs by hand.
CHOSEN = [([-1.0, -2.0], [-1.5, -2.5]), ([-0.5, -0.25, -1.0], [-0.5, -1.0, -1.0])]
REJECTED = [([-3.0], [-2.0]), ([-1.0, -1.0], [-1.5, -0.75])]
NEGATIVE = [([-2.0, -2.0], [-1.0, -2.0]), ([-1.0, -1.0, -1.0], [-2.0, -2.0, -2.0])]
BETA = 0.5
# log-ratios: chosen 1.0 and 0.75, rejected -1.0 and 0.25, negative -1.0 and 3.0


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def branch(rows: list[tuple[list[float], list[float]]], weights: Any = None) -> Branch:
    """Rows padded on the right with values that must not count."""
    length = max(len(policy) for policy, _ in rows) + 2
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    policy, reference = torch.full((len(rows), length), -9.0), torch.full((len(rows), length), -4.0)
    padded = torch.full((len(rows), length), 7.0)
    for index, (own, frozen) in enumerate(rows):
        mask[index, : len(own)] = True
        policy[index, : len(own)] = torch.tensor(own)
        reference[index, : len(own)] = torch.tensor(frozen)
        if weights is not None:
            padded[index, : len(own)] = torch.tensor(weights[index])
    return Branch(policy.requires_grad_(), reference, mask, None if weights is None else padded)


@pytest.fixture
def pair() -> Pair:
    return Pair(branch(CHOSEN), branch(REJECTED), {"cropped": branch(NEGATIVE)}, torch.full((2,), BETA))


def test_logratios_count_the_answers_tokens_alone(pair: Pair) -> None:
    assert pair.chosen.logratios().tolist() == [1.0, 0.75]
    assert pair.rejected.logratios().tolist() == [-1.0, 0.25]
    weighted = branch(CHOSEN, [[3.0, 1.0], [1.0, 2.0, 1.0]])
    assert weighted.logratios().tolist() == [2.0, 1.5]


def test_conditional_image(pair: Pair) -> None:
    expected = [-math.log(sigmoid(0.5 * (1.0 - -1.0))), -math.log(sigmoid(0.5 * (0.75 - 3.0)))]
    assert ConditionalTerm("cropped")(pair).tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[0] == pytest.approx(0.31326169)


def test_anchor(pair: Pair) -> None:
    expected = [-math.log(sigmoid(0.5 * 1.0 - 0.2)), -math.log(sigmoid(0.5 * 0.75 - 0.2))]
    assert AnchorTerm(delta=0.2)(pair).tolist() == pytest.approx(expected, rel=1e-6)


def test_quality_follows_the_running_mean_of_batch_means(pair: Pair) -> None:
    term = QualityTerm()
    rewards = [0.5, 0.375, -0.5, 0.125]
    for batch, delta in enumerate([0.125, 0.125]):
        losses = term(pair)
        for index in range(2):
            expected = -math.log(sigmoid(rewards[index] - delta))
            expected -= math.log(sigmoid(-(rewards[2 + index] - delta)))
            assert losses[index].item() == pytest.approx(expected, rel=1e-6), batch
    moved = Pair(branch(NEGATIVE), pair.rejected, {}, pair.beta)  # batch mean (-0.5 + 1.5 - 0.5 + 0.125) / 4
    term(moved)
    assert term.running.value == pytest.approx((0.125 + 0.125 + 0.15625) / 3)
    assert term.running.count == 3
    with torch.no_grad():
        term(moved)
    assert term.running.count == 3, "evaluation leaves it alone"


def test_quality_without_a_history_is_twice_ln_2_at_the_start() -> None:
    same = branch([([-1.0, -2.0], [-1.0, -2.0])])
    losses = QualityTerm()(Pair(same, same, {}, torch.tensor([0.1])))
    assert losses.tolist() == pytest.approx([2 * math.log(2)])


def test_running_mean_is_the_mean_whatever_the_chunks() -> None:
    numbers = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0])
    whole, parts = RunningMean(), RunningMean()
    whole.update(numbers)
    for chunk in (numbers[:1], numbers[1:4], numbers[4:]):
        parts.update(chunk)
    resumed = RunningMean(value=RunningMean().update(numbers[:2]), count=2)
    resumed.update(numbers[2:])
    assert (whole.value, whole.count) == (pytest.approx(0.4), 5)
    assert parts.value == pytest.approx(0.4) and resumed.value == pytest.approx(0.4)


def test_the_processes_share_one_running_mean(pair: Pair) -> None:
    term = QualityTerm(gather=lambda number: torch.cat([number, torch.tensor([0.625])]))
    term(pair)
    assert term.running == RunningMean(value=(0.125 + 0.625) / 2, count=2)


def test_supervised_by_answer_and_by_batch(pair: Pair) -> None:
    assert SupervisedTerm("paper")(pair).tolist() == pytest.approx([3.0 / 2, 1.75 / 3])
    assert SupervisedTerm("released")(pair).tolist() == pytest.approx([4.75 / 5, 4.75 / 5])


def test_padding_has_no_gradient(pair: Pair) -> None:
    terms = [ConditionalTerm("cropped"), AnchorTerm(0.0), QualityTerm(), SupervisedTerm("released")]
    total = torch.stack([term(pair).sum() for term in terms]).sum()
    total.backward()
    for side in (pair.chosen, pair.rejected, pair.negatives["cropped"]):
        assert side.policy.grad is not None
        assert side.policy.grad[~side.mask].abs().sum() == 0
        assert (side.policy.grad[side.mask] != 0).all()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("paper", [0.1 * (1 + 0.5 * (1 - math.exp(-0.5 * 2))), 0.1, 1e-3]),
        ("released", [0.1 * (1 + 0.5 * 2), 0.1, 1e-3]),
    ],
)
def test_pair_beta_grows_with_the_gap_and_stays_positive(variant: Any, expected: list[float]) -> None:
    betas = pair_beta(0.1, torch.tensor([2.0, 0.0, -9.0]), PairBeta(w=0.5, k=0.5, variant=variant))
    assert betas.tolist() == pytest.approx(expected)


A_DOG = [10, 11, 12, 13, 14]
REPLACED = [10, 11, 92, 93, 14]
INSERTED = [10, 11, 12, 55, 13, 14]


@pytest.mark.parametrize(
    ("chosen", "rejected", "variant", "marked_chosen", "marked_rejected"),
    [
        (A_DOG, REPLACED, "paper", "..xx.", "..xx."),
        # the last token alone is no match of three: it belongs to the difference
        (A_DOG, REPLACED, "released", "..xxx", "..xxx"),
        (A_DOG, INSERTED, "paper", ".....", "...x.."),
        # 13 14 is no match, so the insertion has tokens on both sides
        (A_DOG, INSERTED, "released", "...xx", "...xxx"),
        ([1, 2, 3, 7, 8, 9], [1, 2, 3, 50, 7, 8, 9], "paper", "......", "...x..."),
        # an insertion between two real matches has tokens on one side only
        ([1, 2, 3, 7, 8, 9], [1, 2, 3, 50, 7, 8, 9], "released", "......", "......."),
        ([1, 2, 3], [1, 2, 3, 4], "released", "...", "...."),
        ([1, 2, 3], [4, 5], "released", "xxx", "xx"),
        ([1, 2], [1, 2], "paper", "..", ".."),
    ],
)
def test_differing_tokens(
    chosen: list[int], rejected: list[int], variant: Any, marked_chosen: str, marked_rejected: str
) -> None:
    sides = differing_tokens(chosen, rejected, variant)
    written = ["".join("x" if flag else "." for flag in flags) for flags in sides]
    assert written == [marked_chosen, marked_rejected]


def test_token_weights_of_paper_and_released_code() -> None:
    chosen, rejected = pair_weights(A_DOG, REPLACED, TokenWeights(gamma=5))
    assert chosen == pytest.approx([1 / 13, 1 / 13, 5 / 13, 5 / 13, 1 / 13])  # N = 3 + 5 * 2
    assert rejected == chosen
    released, _ = pair_weights(A_DOG, REPLACED, TokenWeights(gamma=5, variant="released"))
    assert released == [1, 1, 5, 5, 5]


def test_a_span_weighs_every_token_that_it_touches() -> None:
    offsets = [(0, 1), (1, 5), (5, 9), (9, 10), (10, 10)]  # "A", " dog", " and", ".", end of turn
    assert span_weights(offsets, [(2, 6, 3.0)], "released") == [1, 3, 3, 1, 1]
    assert span_weights(offsets, [(1, 5, 2.0)], "paper") == pytest.approx([w / 6 for w in (1, 2, 1, 1, 1)])
    assert span_weights(offsets, [(0, 10, 0.0)], "paper") == [0, 0, 0, 0, 1]
    assert span_weights(offsets[:4], [(0, 10, 0.0)], "paper") == [0, 0, 0, 0], "nothing to divide by"


def test_the_end_of_turn_has_a_weight_of_its_own() -> None:
    offsets = [(0, 1), (1, 5), (5, 9), (9, 10), (10, 10)]
    context = [(0, 5, 0.0)]
    assert span_weights(offsets, context, "released", num_words=4, end=0.0) == [0, 0, 1, 1, 0]
    halves = span_weights(offsets, context, "paper", num_words=4, end=0.0)
    assert halves == [0, 0, 0.5, 0.5, 0], "what is left out is not divided by either"
    settings = TokenWeights(gamma=5, variant="released", end=0)
    assert pair_weights(A_DOG, REPLACED, settings, (4, 4)) == ([1, 1, 5, 5, 0], [1, 1, 5, 5, 0])


def test_the_section_reads_recipes_as_written() -> None:
    section = ObjectiveSection.model_validate(
        {
            "conditional": [{"image": "cropped"}, {"image": "noisy", "step": 800, "variant": "released"}],
            "anchor": {},
            "quality": {"weight": 0.2},
        }
    )
    assert [term.image for term in section.conditional] == ["cropped", "noisy"]
    assert not section.is_plain and ObjectiveSection().is_plain
    assert isinstance(section, Strict)


@pytest.mark.parametrize(
    "wrong",
    [
        {"conditional": [{"image": "cropped", "step": 500}]},
        {"conditional": [{"image": "blurred"}]},
        {"conditional": [{"image": "masked", "variant": "paper"}]},
        {"anchor": {"weight": 0}},
        {"token_weights": {"variant": "code"}},
    ],
)
def test_the_section_refuses_what_it_does_not_know(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ObjectiveSection.model_validate(wrong)
