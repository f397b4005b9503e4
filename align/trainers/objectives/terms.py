"""The terms of a preference objective, as functions of per-token log-probs.

Notation: r(y|v) = log pi(y|v) - log pi_ref(y|v), the log-ratio of an answer with image v; s = sigmoid.
Every term gives one loss a pair, [B]; before the first update, when policy and reference are one model,
each sigmoid in it is ln 2. Formulas' sources are with the sections in `recipe.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn.functional import logsigmoid

from align.trainers.objectives.recipe import PairBeta, Variant

LEAST_BETA = 1e-3


@dataclass(frozen=True)
class Branch:
    """One answer a pair under policy and reference.

    Attributes:
        policy, reference: log-probs of the tokens, [B, L]; the reference's carry no gradient.
        mask: True at the answer's tokens, [B, L].
        weights: of the tokens, [B, L]; None is 1 for all.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor | None = None

    def logratios(self) -> torch.Tensor:
        """r(y|v) of each pair, [B]."""
        difference = (self.policy - self.reference).masked_fill(~self.mask, 0.0)
        return (difference if self.weights is None else difference * self.weights).sum(dim=1)


@dataclass(frozen=True)
class Pair:
    """A batch of pairs as the terms see it.

    Attributes:
        chosen, rejected: the answers with the row's own images.
        negatives: the chosen answer with other images, by term name.
        beta: of each pair, [B].
    """

    chosen: Branch
    rejected: Branch
    negatives: Mapping[str, Branch]
    beta: torch.Tensor


class Term(Protocol):
    """One loss a pair."""

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The losses, [B]."""
        ...


@dataclass(frozen=True)
class ConditionalTerm:
    """-log s(beta [r(y_w|v) - r(y_w|v')]): the image must matter for the chosen answer.

    Attributes:
        name: which of the pair's negatives holds v'.
    """

    name: str

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The losses, [B]."""
        gap = pair.chosen.logratios() - pair.negatives[self.name].logratios()
        return -logsigmoid(pair.beta * gap)


@dataclass(frozen=True)
class AnchorTerm:
    """-log s(beta r(y_w|v) - delta): the chosen answer must not lose."""

    delta: float

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The losses, [B]."""
        return -logsigmoid(pair.beta * pair.chosen.logratios() - self.delta)


@dataclass
class RunningMean:
    """The mean of all numbers given so far, and how many they were; a resume restores both."""

    value: float = 0.0
    count: int = 0

    def update(self, numbers: torch.Tensor) -> float:
        """Take in `numbers`, any shape, and return the new mean."""
        self.count += numbers.numel()
        self.value += float((numbers.double() - self.value).sum()) / self.count
        return self.value


class GatherMean(Protocol):
    """Collects one number of every process."""

    def __call__(self, number: torch.Tensor) -> torch.Tensor:
        """All processes' numbers, the same on each."""
        ...


def _own(number: torch.Tensor) -> torch.Tensor:
    return number


@dataclass
class QualityTerm:
    """-log s(beta r_w - delta) - log s(-(beta r_l - delta)), delta the running mean of the rewards.

    The batch at hand is taken into the mean first, with one number a process, its mean reward. Without
    gradients (evaluation) the mean is used and left as it is.

    Attributes:
        running: the mean; part of what a checkpoint must hold.
        gather: collects the processes' batch means, so that all have the same delta.
    """

    running: RunningMean = field(default_factory=RunningMean)
    gather: GatherMean = _own

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The losses, [B]."""
        chosen = pair.beta * pair.chosen.logratios()
        rejected = pair.beta * pair.rejected.logratios()
        if torch.is_grad_enabled():
            self.running.update(self.gather(torch.cat([chosen, rejected]).detach().mean().reshape(1)))
        delta = self.running.value
        return -logsigmoid(chosen - delta) - logsigmoid(-(rejected - delta))


@dataclass(frozen=True)
class SupervisedTerm:
    """Mean negative log-likelihood of the chosen tokens, unweighted: of each answer, or of the batch."""

    variant: Variant

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The losses, [B]; in the released variant all the same."""
        nll = -pair.chosen.policy.masked_fill(~pair.chosen.mask, 0.0)
        lengths = pair.chosen.mask.sum(dim=1).clamp(min=1)
        if self.variant == "paper":
            return nll.sum(dim=1) / lengths
        return (nll.sum() / pair.chosen.mask.sum().clamp(min=1)).expand(len(nll))


def pair_beta(beta: float, gaps: torch.Tensor, settings: PairBeta) -> torch.Tensor:
    """Beta of each pair, [B], from the gaps between its answers' scores, [B]."""
    factor = 1 - torch.exp(-settings.k * gaps) if settings.variant == "paper" else gaps
    return (beta * (1 + settings.w * factor)).clamp(min=LEAST_BETA)
