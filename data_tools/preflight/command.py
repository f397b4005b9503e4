"""See whether a dataset fits a model, from image headers alone: `align preflight DATA --model DIR`.

Counts every row's tokens as the model's processor would, decides what to keep, what to keep with smaller
pictures and what to leave out (image tokens are never cut, answers never emptied), and predicts the memory of
a LoRA step on the longest row (`align plan` does so for a recipe). No weights are loaded, no picture is
decoded. Writes DATA.preflight.json; with --out also the rows that fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from align.progress import say
from data_tools.preflight.engines import EngineName
from data_tools.preflight.run import Outcome, Request, preflight


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: files or a processor that cannot be read, or no row that fits.
    """
    given = _parse(words)
    from align.models.loading import ModelSection, load_processor

    budget = {"min_pixels": given.image_min_pixels, "max_pixels": given.image_max_pixels}
    processor = load_processor(ModelSection(path=given.model, **budget))
    request = Request(
        data=given.data,
        image_root=given.image_root or given.data.parent,
        max_length=given.max_length,
        min_scale=given.min_scale,
        out=given.out,
        batch_size=given.batch_size,
        recompute=not given.no_gradient_checkpointing,
        max_pixels=given.max_pixels,
        engine=given.engine,
    )
    outcome = preflight(request, processor, Path(given.model))
    report = {"data": str(given.data), "model": given.model, "max_length": given.max_length}
    report |= {f"image_{name}": value for name, value in budget.items() if value is not None}
    path = given.data.with_name(given.data.name + ".preflight.json")
    path.write_text(json.dumps(report | outcome.to_json(), indent=1) + "\n", encoding="utf-8")
    _show(outcome)
    say(f"  report: {path}" + (f"; rows that fit: {given.out}" if given.out else ""))
    return 0


def _show(outcome: Outcome) -> None:
    outcome.tally.show()
    if outcome.resized:
        examples = ", ".join(outcome.resized_ids[:2])
        say(f"    of these {outcome.resized} with smaller pictures (e.g. {examples})")
    for name, lengths in (("tokens a row", outcome.kept), ("image tokens", outcome.images)):
        found = {key: value for key, value in lengths.summary().items() if key != "tokens"}
        say(f"  {name}: " + "  ".join(f"{key} {value:g}" for key, value in found.items()))
    most = max(bucket["rows"] for bucket in outcome.kept.buckets())
    for bucket in outcome.kept.buckets():
        bar = "#" * max(1, round(30 * bucket["rows"] / most))
        say(f"    {bucket['from']:>6} - {bucket['to']:<6} {bucket['rows']:>8}  {bar}")
    risky = ", ".join(f"{one['id']} ({one['tokens']})" for one in outcome.counted.longest()[:5])
    say(f"  longest: {risky}")
    if outcome.memory:
        memory = outcome.memory
        parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in memory.parts.items())
        step = f"{memory.sequences} x {memory.tokens} tokens"
        say(f"  predicted peak of a LoRA step of {step}: {memory.peak / 2**30:.2f} GiB ({parts})")


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align preflight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="instruction rows or pairs, .jsonl or .parquet"
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="checkpoint, processor folder or hub id"
    )
    parser.add_argument(
        "--max_length", type=int, metavar="N", help="most tokens of a sequence; default: count only"
    )
    parser.add_argument("--image_root", type=Path, metavar="DIR", help="default: DATA's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows that fit")
    parser.add_argument(
        "--min_scale",
        type=float,
        default=0.5,
        metavar="X",
        help="how far the pictures of a row that is too long may shrink (default 0.5; 1: not at all)",
    )
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="rows of a training step")
    parser.add_argument("--no_gradient_checkpointing", action="store_true", help="for the memory estimate")
    parser.add_argument(
        "--max_pixels", type=int, default=50_000_000, metavar="N", help="larger pictures are bad rows"
    )
    for bound, which in (("min", "fewest"), ("max", "most")):
        parser.add_argument(
            f"--image_{bound}_pixels",
            type=int,
            metavar="N",
            help=f"the training's model.{bound}_pixels: {which} pixels of a resized image",
        )
    parser.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default="local",
        help="ray: count on all nodes of a Ray cluster (RAY_ADDRESS, or this machine), which must see the "
        "same files; the result is the same (default local)",
    )
    return parser.parse_args(list(words))
