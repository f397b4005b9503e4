"""DPO on image pairs: TRL's trainer, TRL tuned, and ours with one technique more a line.

    python -m benchmarks.dpo_vs_trl                  # one point: P=600, C=90, V=32k
    python -m benchmarks.dpo_vs_trl --full           # P x C x V, 18 points
    python -m benchmarks.dpo_vs_trl --full --ends    # without the steps in between
    python -m benchmarks.dpo_vs_trl -P 200 -C 400 -V 2048 --repeats 5

All variants train the same random LLaVA (benchmarks/synthetic_vlm.py) in float32 with the same LoRA
initialisation, pairs and order. Each run is a process of its own; the repeats are interleaved, so that
a slow minute of the machine hits every variant. Numbers are medians over the repeats, ranges in
brackets. The first epoch fills the stores, the second reads them. Writes JSON and a Markdown table.
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

from benchmarks.dpo_variant import VARIANTS
from benchmarks.timed_process import machine, run_variant

PROMPTS, COMPLETIONS, VOCABULARIES = (200, 600, 1240), (50, 100, 400), (2048, 32768)
DEFAULT_POINT = (600, 90, 32768)
ENDS = ("TRL, default", "TRL, tuned: compact head", "ours: and split attention", "ours: and feature store")
TUNED, DEFAULT = "TRL, tuned: compact head", "TRL, default"


def main() -> None:
    """Measure, print, and save to `--out`."""
    arguments = _arguments()
    points = list(itertools.product(PROMPTS, COMPLETIONS, VOCABULARIES))
    if not arguments.full:
        points = [(arguments.P, arguments.C, arguments.V)]
    results = []
    for point in points:
        results.append(_measure(point, arguments))
        _save(results, arguments.out)
        print(table(results[-1]), flush=True)


def table(result: dict[str, Any]) -> str:
    """One point as a Markdown table."""
    lines = [
        f"### P={result['P']}, C~{result['C']}, vocabulary {result['V']}, "
        f"{result['pairs']} pairs, batches of {result['batch']}\n",
        "| trainer | pairs/s, 1st epoch | 2nd epoch | against tuned | against default "
        "| CPU s a pair | peak memory | loss off by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = result["variants"]
    for name, runs in rows.items():
        speed = [_rates(runs, result["pairs"], epoch) for epoch in (0, 1)]
        against = [_speedups(rows, name, base) for base in (TUNED, DEFAULT)]
        cpu = median(run["cpu"][0] / result["pairs"] for run in runs)
        memory = median(run["memory"] for run in runs)
        share = memory / median(run["memory"] for run in rows.get(TUNED, runs))
        off = max(abs(a - b) for run in runs for a, b in zip(run["losses"], _losses(rows), strict=True))
        lines.append(
            f"| {name} | {_spread(speed[0])} | {_spread(speed[1])} | {against[0]} | {against[1]} "
            f"| {cpu:.2f} | {memory / 2**20:.0f} MB ({share:.2f}x) | {off:.1e} |"
        )
    return "\n".join(lines) + "\n"


def _measure(point: tuple[int, int, int], arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.synthetic_vlm import write_model

    prompt, completion, vocabulary = point
    order: dict[str, Any] = {"P": prompt, "C": completion, "V": vocabulary, "epochs": 2}
    order |= {"pairs": arguments.pairs, "batch": arguments.batch}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (ENDS if arguments.ends else VARIANTS)}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), prompt, vocabulary)
        for repeat, name in itertools.product(range(arguments.repeats), found):
            print(f"P={prompt} C={completion} V={vocabulary}, repeat {repeat + 1}: {name}", file=sys.stderr)
            order_of = {**order, "variant": name, "model": folder}
            found[name].append(run_variant("benchmarks.dpo_variant", order_of))
    return {**order, "repeats": arguments.repeats, "machine": machine(), "variants": found}


def _rates(runs: list[dict[str, Any]], pairs: int, epoch: int) -> list[float]:
    return [pairs / run["wall"][epoch] for run in runs]


def _speedups(rows: dict[str, Any], name: str, base: str) -> str:
    """Of the medians, first and second epoch."""
    times = [[median(run["wall"][epoch] for run in rows[key]) for epoch in (0, 1)] for key in (base, name)]
    return " / ".join(f"{slow / fast:.2f}x" for slow, fast in zip(*times, strict=True))


def _losses(rows: dict[str, Any]) -> list[float]:
    return next(iter(rows.values()))[0]["losses"]


def _spread(values: list[float]) -> str:
    return f"{median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _save(results: list[dict[str, Any]], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "dpo_vs_trl.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "dpo_vs_trl.md").write_text("\n".join(table(result) for result in results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default, meaning in zip(
        ("-P", "-C", "-V"), DEFAULT_POINT, ("prompt", "completion", "vocabulary"), strict=True
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{meaning} size in tokens")
    parser.add_argument("--full", action="store_true", help="all points of the sweep instead of one")
    parser.add_argument("--ends", action="store_true", help="only TRL's two and ours without and with stores")
    parser.add_argument("--pairs", type=int, default=4, help="pairs in the data set")
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of JSON and Markdown")
    return parser.parse_args()


if __name__ == "__main__":
    main()
