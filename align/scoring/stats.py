"""Intervals and tests for differences between two checkpoints that answered the same samples.

The unit of resampling is the cluster (the image): answers about one image are not independent, and
treating them so makes intervals too narrow ("Adding Error Bars to Evals", Miller 2024,
arXiv:2411.00640). All metrics are ratios of sums, given as per-cluster sums:

    values: float64 [C, 2K], C clusters; columns 0..K-1 the numerators and K..2K-1 the denominators of
    K ratios whose unweighted mean is the metric (K = 1 for a plain ratio).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_CHUNK_CELLS = 100_000
"""Resamples x clusters counted at once; small enough for the counts to stay in the processor's cache."""


@dataclass(frozen=True)
class Comparison:
    """A paired difference `after - before` of one metric, on the metric's 0-to-1 scale.

    Attributes:
        ci_low, ci_high: percentile bootstrap interval.
        standard_error: of the difference, from the bootstrap.
        p: two-sided, by `method`.
        method: `mcnemar_exact` or `cluster_sign_flip`.
        mde: the smallest true difference that would be found with 80% power at the same level.
        p_not_worse: one-sided p of the hypothesis that the loss is the margin or more; None without a margin.
    """

    before: float
    after: float
    delta: float
    ci_low: float
    ci_high: float
    standard_error: float
    p: float
    method: str
    mde: float
    p_not_worse: float | None = None


def ratios(sums: Array, num_ratios: int) -> Array:
    """Metric from sums [..., 2K] -> [...]; a ratio without a denominator counts as 0."""
    numerator, denominator = sums[..., :num_ratios], sums[..., num_ratios:]
    empty = denominator == 0
    return np.where(empty, 0.0, numerator / np.where(empty, 1.0, denominator)).mean(axis=-1)


def compare(
    before: Sequence[Array],
    after: Sequence[Array],
    binary: Sequence[bool],
    *,
    losses: Sequence[float | None] | None = None,
    resamples: int = 10_000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare two checkpoints on several metrics at once, with the same resamples for all of them.

    Args:
        before, after: per metric, the per-cluster sums [C, 2K]; clusters in the same order.
        binary: per metric, whether every cluster is one sample with a 0/1 value (then the test is
            McNemar's exact one); otherwise clusters are swapped between the checkpoints.
        losses: per metric, the difference that would be too great a loss (-0.01 for a point of accuracy,
            +0.01 for one of a rate of errors); None for no such test.
        resamples: bootstrap resamples, and random swaps for the test.

    Returns:
        one `Comparison` per metric, in order.

    Raises:
        ValueError: no clusters, or the two sides differ in shape.
    """
    if [side.shape for side in before] != [side.shape for side in after] or not before:
        raise ValueError("before and after must have the same metrics and clusters")
    if len(before[0]) == 0:
        raise ValueError("no clusters to compare")
    rng = np.random.default_rng(seed)
    first, second = np.concatenate(before, axis=1), np.concatenate(after, axis=1)
    width = first.shape[1]
    drawn = bootstrap_sums(np.concatenate([first, second], axis=1), resamples, rng)
    swapped = swap_sums(first, second, resamples, rng)
    found, column = [], 0
    for index, side in enumerate(before):
        columns = slice(column, column + side.shape[1])
        column += side.shape[1]
        k = side.shape[1] // 2
        old, new = (float(ratios(part.sum(axis=0), k)) for part in (side, after[index]))
        deltas = ratios(drawn[:, width:][:, columns], k) - ratios(drawn[:, :width][:, columns], k)
        null = ratios(swapped[1][:, columns], k) - ratios(swapped[0][:, columns], k)
        if binary[index]:
            p, method = mcnemar_from_values(side[:, 0], after[index][:, 0]), "mcnemar_exact"
        else:
            p, method = permutation_p(null, new - old), "cluster_sign_flip"
        low, high = percentile_interval(deltas, level)
        error = float(deltas.std(ddof=1))
        mde = minimum_detectable_effect(error, alpha=1 - level)
        loss = losses[index] if losses is not None else None
        kept = None if loss is None else non_inferiority_p(deltas, loss)
        found.append(Comparison(old, new, new - old, low, high, error, p, method, mde, kept))
    return found


def intervals(
    sums: Sequence[Array], *, resamples: int = 10_000, seed: int | Sequence[int] = 0, level: float = 0.95
) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals of one checkpoint's metrics, each from its sums [C, 2K]."""
    drawn = bootstrap_sums(np.concatenate(sums, axis=1), resamples, np.random.default_rng(seed))
    ends = np.cumsum([side.shape[1] for side in sums])
    parts = np.split(drawn, ends[:-1], axis=1)
    return [percentile_interval(ratios(part, part.shape[1] // 2), level) for part in parts]


def bootstrap_sums(values: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Column sums of `resamples` draws of C rows with replacement: [C, M] -> [resamples, M].

    Both checkpoints' columns go in one call, so that each draw takes the same clusters of both. Equal
    rows are drawn together, by their multinomial counts: the same distribution, far fewer draws.
    """
    distinct, sizes = np.unique(values, axis=0, return_counts=True)
    count = len(values)
    if len(distinct) * 4 <= count:
        return rng.multinomial(count, sizes / count, size=resamples).astype(np.float64) @ distinct
    chunk = max(1, min(resamples, _CHUNK_CELLS // count))
    sums = np.empty((resamples, values.shape[1]))
    offsets = (np.arange(chunk, dtype=np.int32) * count)[:, None]
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, count, size=(rows, count), dtype=np.int32) + offsets[:rows]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums[start : start + rows] = counts.astype(np.float64) @ values
    return sums


def swap_sums(first: Array, second: Array, resamples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Column sums after swapping each cluster's two answers with probability 1/2: two [resamples, M].

    If the checkpoints do not differ, every such swap was as likely as what was seen.
    """
    gap = (second - first)[(first != second).any(axis=1)]
    distinct, sizes = np.unique(gap, axis=0, return_counts=True)
    if len(distinct) * 4 <= len(gap):
        shift = rng.binomial(sizes, 0.5, size=(resamples, len(distinct))).astype(np.float64) @ distinct
        return first.sum(axis=0) + shift, second.sum(axis=0) - shift
    chunk = max(1, min(resamples, _CHUNK_CELLS // max(len(gap), 1)))
    shift = np.zeros((resamples, first.shape[1]))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        bits = np.frombuffer(rng.bytes(rows * ((len(gap) + 7) // 8)), dtype=np.uint8).reshape(rows, -1)
        swaps = np.unpackbits(bits, axis=1, count=len(gap))
        shift[start : start + rows] = swaps.astype(np.float64) @ gap
    return first.sum(axis=0) + shift, second.sum(axis=0) - shift


def permutation_p(null: Array, observed: float) -> float:
    """Two-sided p: share of swaps with a difference at least as large, the observed one counted in.

    Sums in another order differ in the last digits, hence the tolerance.
    """
    extreme = int((np.abs(null) >= abs(observed) - 1e-9).sum())
    return (extreme + 1) / (len(null) + 1)


def percentile_interval(draws: Array, level: float = 0.95) -> tuple[float, float]:
    """The central `level` share of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def non_inferiority_p(deltas: Array, loss: float) -> float:
    """One-sided p of "the difference is `loss` or worse": the share of bootstrap differences that are.

    Below 0.025, the 95% interval lies on the good side of `loss`: what there was to keep is kept. A negative
    `loss` is for metrics where higher is better, a positive one for those where lower is.

    >>> non_inferiority_p(np.array([0.0, 0.01, -0.02]), -0.01), non_inferiority_p(np.zeros(39), 0.01)
    (0.5, 0.025)
    """
    worse = deltas <= loss if loss < 0 else deltas >= loss
    return (int(worse.sum()) + 1) / (len(deltas) + 1)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar p from the discordant counts: binomial(lost + gained, 1/2), both tails.

    >>> round(mcnemar(10, 25), 6), round(mcnemar(5, 15), 6), mcnemar(3, 3)
    (0.016674, 0.041389, 1.0)
    """
    total, few = lost + gained, min(lost, gained)
    tail = sum(math.comb(total, k) for k in range(few + 1))
    return min(1.0, float(2 * tail / 2**total)) if total < 1000 else _mcnemar_large(total, few)


def mcnemar_from_values(before: Array, after: Array) -> float:
    """McNemar's exact p from two 0/1 columns over the same independent rows."""
    return mcnemar(int(((before > 0.5) & (after < 0.5)).sum()), int(((before < 0.5) & (after > 0.5)).sum()))


def _mcnemar_large(total: int, few: int) -> float:
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(few + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the given order.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def minimum_detectable_effect(standard_error: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """(z(1 - alpha/2) + z(power)) x standard error of the difference."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * standard_error


def standard_error(scores: ArrayLike) -> float:
    """Standard error of a mean of independent scores [N], with N - 1 degrees of freedom."""
    array = np.asarray(scores, dtype=np.float64)
    return float(array.std(ddof=1) / math.sqrt(len(array)))


def clustered_standard_error(scores: ArrayLike, clusters: Sequence[object]) -> float:
    """Standard error of a mean whose scores [N] are correlated within clusters (arXiv:2411.00640, eq. 4).

    The independent variance plus the within-cluster cross terms over N squared.
    """
    array = np.asarray(scores, dtype=np.float64)
    residuals = array - array.mean()
    _, index = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
    within = np.bincount(index, weights=residuals) ** 2 - np.bincount(index, weights=residuals**2)
    return float(math.sqrt(max(0.0, standard_error(array) ** 2 + within.sum() / len(array) ** 2)))
