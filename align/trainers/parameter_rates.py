"""Learning rates of their own for parts of a model, with any optimizer of transformers' Trainer.

    trainer = SharedImageSFTTrainer(..., learning_rate_of=lambda name: 1e-3 if "projector" in name else None)

The scheduler scales every group alike, so a warmup or decay holds for all. MM-LoRA: different ranks and
rates for vision and language; LLaVA trains its connector at 1e-3 to 2e-3 beside a slower language model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import Trainer

from align.errors import AlignError


class ParameterRates(Trainer):
    """A Trainer with `learning_rate_of`.

    Args:
        args, kwargs: the trainer's.
        learning_rate_of: parameter name -> its peak learning rate, None for the trainer's own.
    """

    def __init__(
        self, *args: Any, learning_rate_of: Callable[[str], float | None] | None = None, **kwargs: Any
    ) -> None:
        self._learning_rate_of = learning_rate_of
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> Any:
        """The trainer's optimizer, its groups divided by learning rate before a step is taken."""
        is_new = self.optimizer is None
        super().create_optimizer(model)
        optimizer: Any = self.optimizer
        if is_new and self._learning_rate_of is not None:
            trained: Any = self.model if model is None else model
            rates = {id(p): self._learning_rate_of(name) for name, p in trained.named_parameters()}
            divide_groups(optimizer, rates)
        return optimizer


def divide_groups(optimizer: Any, rates: dict[int, float | None]) -> None:
    """Move parameters with a rate of their own into groups of that rate; all other settings stay.

    Args:
        optimizer: before its first step.
        rates: `id` of a parameter -> its learning rate, None for the group's.

    Raises:
        AlignError: the optimizer has state already, or no parameter has a rate of its own.
    """
    if optimizer.state:
        raise AlignError("learning rates of components must be set before the first step", fix="report this")
    groups, moved = [], 0
    for group in optimizer.param_groups:
        by_rate: dict[float | None, list[Any]] = {None: []}
        for parameter in group["params"]:
            by_rate.setdefault(rates.get(id(parameter)), []).append(parameter)
        for rate, parameters in by_rate.items():
            own = {} if rate is None else {"lr": rate}
            groups.append({**group, "params": parameters, **own})
            moved += len(parameters) if rate is not None else 0
    if not moved:
        raise AlignError("no trained parameter has the learning rate that was set for its component")
    optimizer.param_groups[:] = groups
