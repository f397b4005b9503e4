"""An objective as a trainer uses it: which negatives it needs, and its terms' weighted sum."""

from __future__ import annotations

from typing import Any, Literal

import torch

from align.trainers.objectives.recipe import Conditional, MaskedImage, NoisyImage, ObjectiveSection
from align.trainers.objectives.terms import (
    AnchorTerm,
    ConditionalTerm,
    GatherMean,
    Pair,
    QualityTerm,
    RunningMean,
    SupervisedTerm,
    Term,
    pair_beta,
)

# Which tokens are scored in the place of an answer's: its own ("label"); the likeliest ones of the rejected
# answers ("rejected") or of all ("argmax"); those that are likeliest with another image ("crossed").
Scoring = Literal["label", "rejected", "argmax", "crossed"]


class Objective:
    """The terms beside TRL's preference loss.

    Attributes:
        section: the recipe's.
        conditional: term name -> the image negative that it needs.
        terms: term name -> (weight, term).
    """

    def __init__(self, section: ObjectiveSection, gather: GatherMean | None = None) -> None:
        self.section = section
        self.conditional: dict[str, Conditional] = {}
        self.terms: dict[str, tuple[float, Term]] = {}
        for settings in section.conditional:
            name = self._free_name(settings.image)
            self.conditional[name] = settings
            self.terms[name] = (settings.weight, ConditionalTerm(name))
        if section.anchor is not None:
            self.terms["anchor"] = (section.anchor.weight, AnchorTerm(section.anchor.delta))
        self._quality = QualityTerm() if gather is None else QualityTerm(gather=gather)
        if section.quality is not None:
            self.terms["quality"] = (section.quality.weight, self._quality)
        if section.sft is not None:
            self.terms["sft"] = (section.sft.weight, SupervisedTerm(section.sft.variant))

    def losses(self, pair: Pair) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The terms' weighted sum, a scalar, and each term's own mean, detached and unweighted."""
        total = pair.beta.new_zeros(())
        means: dict[str, torch.Tensor] = {}
        for name, (weight, term) in self.terms.items():
            mean = term(pair).mean()
            total = total + weight * mean
            means[name] = mean.detach()
        return total, means

    def betas(self, beta: float, gaps: torch.Tensor) -> torch.Tensor:
        """Beta of each pair, [B], from the gaps between its scores, [B]."""
        if self.section.pair_beta is None:
            return torch.full_like(gaps, beta)
        return pair_beta(beta, gaps, self.section.pair_beta)

    def pair_scoring(self) -> Scoring:
        """How the pair's own answers are scored: `rejected` in Re-Align's released code, else `label`."""
        released = any(s.image == "retrieved" and s.variant == "released" for s in self.conditional.values())
        return "rejected" if released else "label"

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for a resumed run to equal an uninterrupted one."""
        return {"mean": self._quality.running.value, "count": self._quality.running.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._quality.running = RunningMean(value=float(state["mean"]), count=int(state["count"]))

    def _free_name(self, name: str) -> str:
        count = sum(known.partition("_")[0] == name for known in self.conditional)
        return f"{name}_{count + 1}" if count else name


def negative_scoring(settings: Conditional) -> Scoring:
    """How the chosen answer is scored for a negative image: see `RetrievedImage` and `NoisyImage`."""
    if isinstance(settings, MaskedImage) or settings.variant == "paper":
        return "label"
    if isinstance(settings, NoisyImage):
        return "crossed"
    return "argmax" if settings.image == "retrieved" else "label"
