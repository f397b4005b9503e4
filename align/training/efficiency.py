"""What a training run cost: memory by part, time a step, and sizes, written to `logs/efficiency.json`.

    watch = Efficiency(trainer)
    train(trainer, ...)
    watch.write(folder, where)

Weights, gradients and optimizer states are counted on the tensors; activations are what the process's memory
rose beyond them at its highest, so on a CPU they include what the allocator keeps. `align plan` on the run's
folder sets its prediction beside these numbers.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.progress import readable, say
from align.run.memory import EFFICIENCY, Growth

if TYPE_CHECKING:
    from align.run.folder import RunFolder
    from align.tuning.placement import Placement


class Efficiency:
    """Watches a trainer from its first step on.

    Args:
        trainer: before `train`; gets one more callback.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._growth = Growth()
        self._states_at_start = 0
        self._seconds: list[float] = []
        trainer.add_callback(self._callback())

    def report(self, where: Placement) -> dict[str, Any]:
        """The numbers, in bytes and seconds; `where` is what trains."""
        memory = self._memory()
        return {
            "device": _device(),
            "trainable": where.trainable,
            "total": where.total,
            "trainable_share": where.trainable / where.total,
            "step_seconds": _spread(self._seconds),
            "peak": sum(memory.values()),
            "parts": memory,
        }

    def write(self, folder: RunFolder, where: Placement) -> None:
        """Write `logs/efficiency.json` and say the most of it; on the main process only."""
        if not folder.is_main:
            return
        found = self.report(where)
        found["adapter_bytes"] = _folder_bytes(folder.work / "adapter")
        found["model_bytes"] = _folder_bytes(folder.work / "checkpoint")
        checkpoints = sorted(folder.scratch.glob("checkpoints/checkpoint-*"), key=lambda p: p.stat().st_mtime)
        found["checkpoint_bytes"] = _folder_bytes(checkpoints[-1]) if checkpoints else None
        path = folder.work / EFFICIENCY
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        parts = ", ".join(f"{name} {readable(size)}" for name, size in found["parts"].items())
        say(f"  peak memory {readable(found['peak'])}: {parts}")
        step = found["step_seconds"]
        took = f"a step took {step['median']:.2f} s" if step else "no step was trained"
        result, size = "adapter", found["adapter_bytes"]
        if not size:
            result, size = "checkpoint", found["model_bytes"]
        say(f"  {took}; the {result} has {readable(size)} on disk")

    def _memory(self) -> dict[str, int]:
        from align.models.live_memory import weight_tensors

        model = self._trainer.model
        trained = [p for p in model.parameters() if p.requires_grad]
        states = _distinct_bytes(self._states())
        gradients = _distinct_bytes(trained)
        rise = self._growth.bytes() - gradients - (states - self._states_at_start)
        return {
            "weights": _distinct_bytes(weight_tensors(model)),
            "gradients": gradients,
            "optimizer": states,
            "activations": max(0, rise),
        }

    def _states(self) -> list[Any]:
        """Tensors of the optimizer's states; none before the first step."""
        import torch

        optimizer = self._trainer.optimizer
        if optimizer is None:
            return []
        values = (value for state in optimizer.state.values() for value in state.values())
        return [value for value in values if isinstance(value, torch.Tensor)]

    def _callback(self) -> Any:
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):
            """Clock and memory of the steps."""

            began = 0.0

            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch._states_at_start = _distinct_bytes(watch._states())
                watch._growth.start()

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                self.began = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch._seconds.append(time.perf_counter() - self.began)

        return Callback()


def _spread(seconds: list[float]) -> dict[str, float]:
    """Without the first step, which warms up, where there are others."""
    kept = sorted(seconds[1:] or seconds)
    if not kept:
        return {}
    ninth = kept[min(len(kept) - 1, int(0.9 * len(kept)))]
    return {"median": round(statistics.median(kept), 4), "p90": round(ninth, 4), "steps": len(seconds)}


def _distinct_bytes(tensors: Iterable[Any]) -> int:
    """Of storages, each once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _device() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
