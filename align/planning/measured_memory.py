"""The peak memory of a trainer's real steps, by part: what a prediction is compared with.

    found = measure(trainer)        # runs trainer.train()

Counts tensors alive at every operator (`align.models.live_memory`), so it is exact about tensors and needs
no GPU.
Counted is what a GPU would hold: the steps and their inputs, the optimizer's step and its states, and not the
batches that a loader prepares meanwhile. Slow for large models: each operator goes through Python.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from align.models.live_memory import LiveMemory, Part


def measure(trainer: Any) -> tuple[int, dict[Part, int]]:
    """Train, and return the peak and its parts over all steps but the first, which makes optimizer states.

    Args:
        trainer: TRL's or ours; its comparison of both paths is left out, as it is no step.

    Raises:
        ValueError: fewer than two steps were trained.
    """
    from transformers import TrainerCallback

    if hasattr(trainer, "sharing"):
        trainer.sharing = replace(trainer.sharing, self_check=False)
    memory = LiveMemory(trainer.model)
    for weight in trainer.ref_model.parameters() if getattr(trainer, "ref_model", None) else ():
        memory.mark(weight, "weights")
    step = trainer.training_step

    def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for value in tree_leaves(inputs):
            if isinstance(value, torch.Tensor):
                memory.mark(value, "activations")
        with memory:
            return step(model, inputs, *args, **kwargs)

    class Watch(TrainerCallback):
        steps = 0

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            memory.__enter__()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            memory.__exit__(None, None, None)
            for state_of_one in trainer.optimizer.state.values():
                for value in state_of_one.values():
                    if isinstance(value, torch.Tensor):
                        memory.mark(value, "optimizer")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps += 1
            if self.steps == 1:
                memory.restart()

    watch = Watch()
    trainer.add_callback(watch)
    trainer.training_step = watched
    trainer.train()
    memory.close()
    if watch.steps < 2:
        raise ValueError(f"{watch.steps} step trained: the first one makes the optimizer's states")
    return memory.peak, memory.parts_at_peak
