"""What a dev check leaves on disk: the log, sample answers, and weights that may still win.

In the stage's folder `dev_log.jsonl` and `dev_samples.jsonl`, a part of its result and equal in every run of
the recipe; all answers and how long they took under `logs/`; in `scratch/` what only a resumed run needs. A
line is written after everything that it speaks of, each file whole or not at all, so a kill loses at most
the check it fell into.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.run.checkpoints import whole_steps

if TYPE_CHECKING:
    from align.run.folder import RunFolder

DEV_LOG = "dev_log.jsonl"
DEV_SAMPLES = "dev_samples.jsonl"
DEV_ANSWERS = "dev_answers"
DEV_SECONDS = "dev_seconds.jsonl"


class DevState:
    """The files of one run's dev check.

    Attributes:
        lines: of the log so far, step 0 first.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._scratch = folder.scratch / "dev_check"
        self._log, self._samples = folder.work / DEV_LOG, folder.work / DEV_SAMPLES
        self.lines: list[dict[str, Any]] = []
        self._kept_samples: list[dict[str, Any]] = []

    def resume(self, step: int | None) -> None:
        """Read back what earlier attempts wrote, and forget what lies behind the checkpoint.

        Args:
            step: the checkpoint's that training goes on from; None where it starts anew.
        """
        self._scratch.mkdir(parents=True, exist_ok=True)
        self.lines = [line for line in _read(self._log) if step is not None and line["step"] <= step]
        samples = _read(self._samples)
        self._kept_samples = [line for line in samples if step is not None and line["step"] <= step]
        _write(self._log, self.lines)
        _write(self._samples, self._kept_samples)

    def start(self) -> list[dict[str, float]]:
        """Step 0's values, one mapping a question."""
        return json.loads((self._scratch / "start.json").read_text())

    def keep_start(self, values: Sequence[Mapping[str, float]]) -> None:
        """Keep step 0's values for the checks to come; floats survive JSON bit for bit."""
        _replace(self._scratch / "start.json", json.dumps([dict(own) for own in values]))

    def add(
        self,
        line: Mapping[str, Any],
        samples: Sequence[Mapping[str, Any]],
        answers: Sequence[Mapping[str, Any]],
        seconds: float,
    ) -> None:
        """Write a check down."""
        folder = self._folder.logs / DEV_ANSWERS
        folder.mkdir(exist_ok=True)
        _write(folder / f"step-{line['step']}.jsonl", answers)
        with (self._folder.logs / DEV_SECONDS).open("a") as out:
            out.write(json.dumps({"step": line["step"], "seconds": round(seconds, 3)}) + "\n")
        self._kept_samples += [dict(sample) for sample in samples]
        _write(self._samples, self._kept_samples)
        self.lines.append(dict(line))
        _write(self._log, self.lines)

    def save_weights(self, model: Any, step: int) -> None:
        """Keep what trains, by parameter name, as it is at this step."""
        from safetensors.torch import save_file

        tensors = {name: p.detach().cpu().contiguous() for name, p in _trained(model)}
        path = self._weights(step)
        temporary = path.with_suffix(".tmp")
        save_file(tensors, str(temporary))
        temporary.replace(path)

    def restore_weights(self, model: Any, step: int) -> None:
        """Give the model the weights of that step.

        Raises:
            AlignError: they are not there, or not those of this model.
        """
        import torch
        from safetensors.torch import load_file

        path = self._weights(step)
        if not path.is_file():
            raise AlignError(
                f"the weights of step {step} are gone", where=str(path), fix="run the stage anew"
            )
        tensors = load_file(str(path))
        with torch.no_grad():
            for name, parameter in _trained(model):
                parameter.copy_(tensors[name])

    def drop_losers(self, best_at: Mapping[int, int]) -> None:
        """Delete the weights that can no longer win.

        Args:
            best_at: step of a check -> the best check up to it. What was best at a checkpoint is needed as
                long as training may be resumed from there.
        """
        resumable = whole_steps(self._folder.scratch / "checkpoints")
        needed = {0, *list(best_at.values())[-1:]}
        for checkpoint in resumable:
            seen = [best for step, best in best_at.items() if step <= checkpoint]
            needed |= set(seen[-1:])
        for path in self._scratch.glob("weights-*.safetensors"):
            if int(path.stem.removeprefix("weights-")) not in needed:
                path.unlink()

    def _weights(self, step: int) -> Path:
        return self._scratch / f"weights-{step}.safetensors"


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    _replace(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
