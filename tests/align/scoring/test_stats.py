"""Statistics against hand-computed and published values, and the coverage of the interval."""

from __future__ import annotations

import time

import numpy as np
import pytest

from align.scoring.stats import (
    bootstrap_sums,
    clustered_standard_error,
    compare,
    holm,
    mcnemar,
    minimum_detectable_effect,
    non_inferiority_p,
    ratios,
    standard_error,
    swap_sums,
)


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(10, 25, 0.016674), (5, 15, 0.041389), (3, 3, 1.0), (0, 0, 1.0)]
)
def test_mcnemar_is_exact_and_symmetric(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p, abs=5e-7)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_mcnemar_for_large_counts_continues_the_exact_formula() -> None:
    assert mcnemar(480, 530) == pytest.approx(mcnemar(530, 480))
    small, large = mcnemar(470, 529), mcnemar(470, 530)  # 999 is summed exactly, 1000 by logarithms
    assert large < small < 1.08 * large


def test_standard_errors() -> None:
    scores, clusters = [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 2, 2]
    assert standard_error(scores) == pytest.approx(0.223607, abs=1e-6)
    assert clustered_standard_error(scores, clusters) == pytest.approx(0.252763, abs=1e-6)
    assert clustered_standard_error(scores, range(6)) == pytest.approx(standard_error(scores))


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_minimum_detectable_effect() -> None:
    assert minimum_detectable_effect(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-6)


def test_a_ratio_without_denominator_is_zero_and_means_are_unweighted() -> None:
    assert ratios(np.array([3.0, 0.0]), 1) == 0.0
    assert ratios(np.array([1.0, 9.0, 2.0, 10.0]), 2) == pytest.approx((0.5 + 0.9) / 2)


def test_the_two_ways_to_draw_have_the_same_distribution() -> None:
    column = np.array([0.0] * 20 + [1.0] * 50 + [3.0] * 30, dtype=np.float64)[:, None]
    grouped = bootstrap_sums(column, 20_000, np.random.default_rng(0))  # 3 distinct rows: multinomial
    jitter = column + np.linspace(0, 1e-7, 100)[:, None]  # all rows distinct: indices
    single = bootstrap_sums(jitter, 20_000, np.random.default_rng(1))
    assert grouped.mean() == pytest.approx(140, rel=2e-3) and single.mean() == pytest.approx(140, rel=2e-3)
    exact = np.sqrt(100 * column.var())
    assert grouped.std() == pytest.approx(exact, rel=2e-2) and single.std() == pytest.approx(exact, rel=2e-2)


def test_swaps_give_the_exact_null() -> None:
    first, second = np.zeros((3, 1)), np.ones((3, 1))
    one, two = swap_sums(first, second, 40_000, np.random.default_rng(0))
    assert set((two - one).ravel()) == {-3.0, -1.0, 1.0, 3.0}
    assert ((two - one) == 3).mean() == pytest.approx(1 / 8, abs=0.01)


def test_the_sign_flip_test_by_hand() -> None:
    """Six clusters of two answers: as extreme are all swaps one way or the other, 2 of 64, and where one
    cluster got worse those with at most that one against the rest, 14 of 64."""
    six = np.full(6, 2.0)
    before = np.stack([np.zeros(6), six], axis=1)
    after = np.stack([six, six], axis=1)
    found = compare([before], [after], [False], resamples=40_000)[0]
    assert (found.delta, found.method) == (1.0, "cluster_sign_flip")
    assert found.p == pytest.approx(2 / 64, abs=3e-3)
    before[0, 0], after[0, 0] = 2.0, 0.0
    found = compare([before], [after], [False], resamples=40_000)[0]
    assert found.delta == pytest.approx(8 / 12) and found.p == pytest.approx(14 / 64, abs=7e-3)
    assert found.mde == pytest.approx(2.801585 * found.standard_error, rel=1e-6)


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    image = rng.random(200) < 0.5
    rows = np.repeat(image, 6).astype(float)  # six equal answers an image
    zero = np.zeros(200)
    clustered = np.stack([rows.reshape(200, 6).sum(axis=1), np.full(200, 6.0)], axis=1)
    alone = np.stack([rows, np.ones(1200)], axis=1)
    wide = compare([np.stack([zero, clustered[:, 1]], axis=1)], [clustered], [False])[0]
    narrow = compare([np.stack([np.zeros(1200), np.ones(1200)], axis=1)], [alone], [False])[0]
    assert wide.delta == narrow.delta
    assert wide.standard_error == pytest.approx(narrow.standard_error * np.sqrt(6), rel=0.05)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(0)
    before = np.stack([(rng.random(400) < 0.6).astype(float), np.ones(400)], axis=1)
    same = compare([before], [before], [True])[0]
    assert (same.delta, same.ci_low, same.ci_high, same.p) == (0.0, 0.0, 0.0, 1.0)
    after = before.copy()
    after[np.flatnonzero(before[:, 0] == 0)[:25], 0] = 1.0
    after[np.flatnonzero(before[:, 0] == 1)[:10], 0] = 0.0
    changed = compare([before, before], [after, after], [True, False], seed=5)
    assert changed[0].delta == pytest.approx(15 / 400)
    assert changed[0].p == pytest.approx(0.016674, abs=5e-7) and changed[0].method == "mcnemar_exact"
    assert changed[1].p == pytest.approx(0.016674, abs=4e-3) and changed[1].method == "cluster_sign_flip"
    assert (changed[0].ci_low, changed[0].ci_high) == (changed[1].ci_low, changed[1].ci_high)
    assert compare([before], [after], [True], seed=5)[0].ci_low == changed[0].ci_low


def simulate(rng: np.random.Generator, clusters: int, rates: tuple[float, float]) -> list[np.ndarray]:
    """Two checkpoints on clusters of unequal size whose answers agree within a cluster: right and asked."""
    size = rng.integers(1, 6, size=clusters)
    leaning = rng.normal(0, 0.15, size=clusters)
    return [
        np.stack([rng.binomial(size, np.clip(rate + leaning, 0, 1)), size], axis=1).astype(float)
        for rate in rates
    ]


def test_interval_covers_the_truth_in_93_to_97_percent() -> None:
    """For a plain ratio and for the mean of two ratios over different questions of the same pictures."""
    rng = np.random.default_rng(7)
    trials, covered = 600, np.zeros(2)
    for trial in range(trials):
        one, two = (simulate(rng, 80, rates) for rates in ((0.4, 0.5), (0.6, 0.65)))
        both = [np.stack([a[:, 0], b[:, 0], a[:, 1], b[:, 1]], axis=1) for a, b in zip(one, two, strict=True)]
        sides = ([one[0], both[0]], [one[1], both[1]])
        found = compare(*sides, [False, False], resamples=600, seed=trial)
        truths = (0.1, (0.1 + 0.05) / 2)
        covered += [step.ci_low <= true <= step.ci_high for step, true in zip(found, truths, strict=True)]
    assert ((covered / trials >= 0.93) & (covered / trials <= 0.97)).all(), covered / trials


def test_the_tests_reject_a_true_null_in_about_five_percent() -> None:
    rng = np.random.default_rng(11)
    trials, rejected = 400, 0
    for trial in range(trials):
        before, after = simulate(rng, 60, (0.5, 0.5))
        rejected += compare([before], [after], [False], resamples=400, seed=trial)[0].p <= 0.05
    assert 0.025 <= rejected / trials <= 0.075


def test_non_inferiority_looks_at_the_bad_side_alone() -> None:
    deltas = np.linspace(-0.02, 0.03, 999)
    assert non_inferiority_p(deltas, -0.01) == pytest.approx(0.2, abs=1e-2)
    assert non_inferiority_p(deltas, 0.02) == pytest.approx(0.2, abs=1e-2)
    assert non_inferiority_p(deltas, -0.03) == 1 / 1000
    before = np.stack([np.repeat([1.0, 0.0], 200), np.ones(400)], axis=1)
    same, free = compare([before] * 2, [before] * 2, [True] * 2, losses=[-0.01, None], resamples=999)
    assert (same.p_not_worse, free.p_not_worse) == (1 / 1000, None)


def test_ten_thousand_resamples_of_nine_thousand_rows_take_under_two_seconds() -> None:
    rng = np.random.default_rng(0)
    sides = [
        np.stack([rng.random(9000) < rate, np.ones(9000)], axis=1).astype(float) for rate in (0.60, 0.62)
    ]
    start = time.process_time()
    compare([sides[0]], [sides[1]], [False], resamples=10_000)
    assert time.process_time() - start < 2.0
