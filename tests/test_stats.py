"""Statistics against hand-computed and published values, and the coverage of the interval."""

from __future__ import annotations

import time

import numpy as np
import pytest

from evals.stats import (
    bootstrap_sums,
    clustered_standard_error,
    compare,
    holm,
    mcnemar,
    minimum_detectable_effect,
    percentile_interval,
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


def test_interval_covers_the_truth_in_93_to_97_percent() -> None:
    """A ratio metric over 80 clusters of unequal size whose answers agree within a cluster."""
    rng = np.random.default_rng(7)
    trials, clusters, true_delta, covered = 600, 80, 0.1, 0
    for _ in range(trials):
        size = rng.integers(1, 6, size=clusters)
        leaning = rng.normal(0, 0.15, size=clusters)
        before = rng.binomial(size, np.clip(0.4 + leaning, 0, 1))
        after = rng.binomial(size, np.clip(0.5 + leaning, 0, 1))
        columns = np.stack([before, size, after, size], axis=1).astype(float)
        drawn = bootstrap_sums(columns, 600, rng)
        low, high = percentile_interval(drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1])
        covered += low <= true_delta <= high
    assert 0.93 <= covered / trials <= 0.97


def test_ten_thousand_resamples_of_nine_thousand_rows_take_under_two_seconds() -> None:
    rng = np.random.default_rng(0)
    sides = [
        np.stack([rng.random(9000) < rate, np.ones(9000)], axis=1).astype(float) for rate in (0.60, 0.62)
    ]
    start = time.process_time()
    compare([sides[0]], [sides[1]], [False], resamples=10_000)
    assert time.process_time() - start < 2.0
