"""Predicted peak memory of a training step against two measurements: live tensors, and the resident set.

    python -m benchmarks.plan_vs_measured                    # about ten minutes on one core
    python -m benchmarks.plan_vs_measured --only base --json memory.jsonl

Each measurement has a process of its own. `live` counts tensors at every operator
(align.planning.measured_memory);
`resident` is the kernel's high-water mark of the whole training above what was resident after the imports,
with one malloc arena and large blocks mapped, so that freed memory leaves the process. The resident set also
holds what is no tensor: the libraries' own growth (autograd's code paged in, buffers of kernels), some
megabytes whatever the model. That is why the embedded base is judged by live tensors.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_REPO = Path(__file__).resolve().parent.parent
# mallopt(3): trim and map from 64 KiB on, no spare room at the top, one arena.
_MALLOPT = {-1: 1 << 16, -3: 1 << 16, -2: 0, -8: 1}
_CASES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "base": [(stage, method, {}) for stage in ("sft", "dpo") for method in ("lora", "nf4", "full")],
    "synthetic": [
        ("dpo", method, {"gradient_checkpointing": recompute})
        for method in ("lora", "nf4", "full")
        for recompute in (False, True)
    ],
}


def main() -> None:
    """Run the cases and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(_CASES), help="one of the two models")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line a case")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for model in [given.only] if given.only else list(_CASES):
            path = _REPO / "assets" / "base" if model == "base" else _synthetic(Path(scratch))
            for stage, method, settings in _CASES[model]:
                order = {"stage": stage, "path": str(path), "method": method, "settings": settings}
                found = _child({**order, "how": "live"}) | _child({**order, "how": "resident"})
                name = f"{model} {stage} {method}" + (", checkpointing" if any(settings.values()) else "")
                ratios = [found["predicted"] / found[how] for how in ("live", "resident")]
                sizes = "  ".join(f"{how} {found[how] / 2**20:7.1f}" for how in found)
                print(
                    f"{name:36} {sizes} MiB   {ratios[0]:.3f} of live  {ratios[1]:.3f} of resident",
                    flush=True,
                )
                if given.json:
                    with given.json.open("a") as out:
                        out.write(json.dumps({"case": name, **found}) + "\n")


def _synthetic(folder: Path) -> Path:
    """Llama of 6 layers and a CLIP tower, 32,000 words, 600 tokens of prompt, most of them the image."""
    from benchmarks.synthetic_vlm import write_model

    write_model(folder / "model", 600, 32_000)
    return folder / "model"


def _child(order: dict[str, Any]) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.plan_vs_measured", "--child", json.dumps(order)]
    made = subprocess.run(command, cwd=_REPO, capture_output=True, text=True, check=False)
    lines = [line for line in made.stdout.splitlines() if line.startswith("RECORD ")]
    if made.returncode or not lines:
        raise SystemExit(f"{order}: {made.stderr[-2000:]}")
    return json.loads(lines[-1].removeprefix("RECORD "))


def _measure(order: dict[str, Any]) -> dict[str, int]:
    """In the child: what was asked, in bytes."""
    import psutil
    import torch

    import align.planning.memory_plan
    import align.trainers.dpo_trainer
    import align.trainers.sft_trainer  # noqa: F401
    from align.run.memory import high_water
    from tests.align.planning.memory_runs import MemoryRun

    for option, value in _MALLOPT.items():
        ctypes.CDLL(None).mallopt(option, value)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        run = MemoryRun(
            order["stage"], Path(order["path"]), order["method"], Path(scratch), **order["settings"]
        )
        if order["how"] == "resident":
            imported = psutil.Process().memory_info().rss
            trainer = run.trainer()
            trainer.sharing = type(trainer.sharing)(self_check=False)
            trainer.train()
            return {"resident": high_water() - imported}
        from align.planning.measured_memory import measure

        trainer = run.trainer()
        live, _ = measure(trainer)
        return {"predicted": run.predicted(trainer).peak, "live": live}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print("RECORD " + json.dumps(_measure(json.loads(sys.argv[2]))))
    else:
        main()
