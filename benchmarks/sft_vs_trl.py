"""SFT with several questions an image: TRL's trainer, TRL tuned, and ours.

    python -m benchmarks.sft_vs_trl                      # 1 and 5 questions an image, P=600, C=20, V=32k
    python -m benchmarks.sft_vs_trl -Q 1 2 5 10 -C 100

All variants train the same random LLaVA (benchmarks/synthetic_vlm.py) in float32 with the same LoRA
initialisation and the same batches. Each run is a process of its own; the repeats are interleaved, so
that a slow minute of the machine hits every variant. Numbers are medians over the repeats, ranges in
brackets. With one question an image nothing is shared: what is left is the tower without autograd and
the LM head on answers alone. Writes JSON and a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.sft_variant import VARIANTS
from benchmarks.timed_process import machine, run_variant

TUNED, DEFAULT = "TRL, tuned: compact head", "TRL, default"


def main() -> None:
    """Measure, print, and save to `--out`."""
    arguments = _arguments()
    results = []
    for questions in arguments.Q:
        results.append(_measure(questions, arguments))
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "sft_vs_trl.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / "sft_vs_trl.md").write_text("\n".join(table(result) for result in results))
        print(table(results[-1]), flush=True)


def table(result: dict[str, Any]) -> str:
    """One number of questions as a Markdown table."""
    lines = [
        f"### {result['questions']} questions an image, P={result['P']}, C~{result['C']}, vocabulary "
        f"{result['V']}, batches of {result['batch']} rows, {result['steps']} steps timed\n",
        "| trainer | samples/s | against tuned | against default "
        "| CPU s a sample | peak memory | loss off by |",
        "|---|---|---|---|---|---|---|",
    ]
    rows, samples = result["variants"], result["batch"] * result["steps"]
    wall = {name: median(run["wall"] for run in runs) for name, runs in rows.items()}
    memory = {name: median(run["memory"] for run in runs) for name, runs in rows.items()}
    wanted = rows[DEFAULT][0]["losses"]
    for name, runs in rows.items():
        rates = [samples / run["wall"] for run in runs]
        cpu = median(run["cpu"] for run in runs) / samples
        off = max(abs(a - b) for run in runs for a, b in zip(run["losses"], wanted, strict=True))
        lines.append(
            f"| {name} | {median(rates):.3f} [{min(rates):.3f}, {max(rates):.3f}] "
            f"| {wall[TUNED] / wall[name]:.2f}x | {wall[DEFAULT] / wall[name]:.2f}x | {cpu:.2f} "
            f"| {memory[name] / 2**20:.0f} MB ({memory[name] / memory[TUNED]:.2f}x) | {off:.1e} |"
        )
    return "\n".join(lines) + "\n"


def _measure(questions: int, arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.synthetic_vlm import write_model

    order: dict[str, Any] = {name: getattr(arguments, name) for name in ("P", "C", "V", "batch", "steps")}
    order["questions"] = questions
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), order["P"], order["V"])
        for repeat, name in itertools.product(range(arguments.repeats), VARIANTS):
            print(f"{questions} questions, repeat {repeat + 1}: {name}", file=sys.stderr)
            order_of = {**order, "variant": name, "model": folder}
            found[name].append(run_variant("benchmarks.sft_variant", order_of))
    return {**order, "repeats": arguments.repeats, "machine": machine(), "variants": found}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-Q", type=int, nargs="+", default=[1, 5], help="questions an image")
    parser.add_argument("-P", type=int, default=600, help="tokens of image and question")
    parser.add_argument("-C", type=int, default=20, help="tokens of an answer")
    parser.add_argument("-V", type=int, default=32768, help="vocabulary")
    parser.add_argument("--batch", type=int, default=10, help="rows a step")
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of JSON and Markdown")
    return parser.parse_args()


if __name__ == "__main__":
    main()
