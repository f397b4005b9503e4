"""The checks of `align sft` on a large file: time a row, and the memory of the largest process.

    python -m benchmarks.row_checks --rows 1000000 --out runs/row_checks

Rows of three questions on one of 2,000 small pictures, checked against the embedded model; then once more, as
a resume, a second process or the next run would find them. Pictures are known at the second size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from align.inputs.training_data import CHECKED, DataSection, check_rows
from align.models.loading import ModelSection, load_processor
from align.rows.schema import SFTRow

PICTURES = 2000
_SAMPLE_SECONDS = 0.5


class Place:
    """What the checks need of a stage's folder."""

    def __init__(self, out: Path) -> None:
        self.final, self.work, self.is_main = out / "run" / "sft", out / "run" / "sft.partial", True
        self.work.mkdir(parents=True, exist_ok=True)
        known = {"images": {"path": str(out / "images"), "digest": "made here"}}
        (self.work / "manifest.json").write_text(json.dumps({"inputs": known}))


class Memory:
    """The largest resident size of this process or one of its children, in MiB."""

    def __init__(self) -> None:
        self.largest = 0
        self._ended = threading.Event()

    def __enter__(self) -> Memory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(_SAMPLE_SECONDS):
            for process in (me, *me.children(recursive=True)):
                try:
                    self.largest = max(self.largest, process.memory_info().rss >> 20)
                except psutil.Error:
                    continue


def write_data(out: Path, rows: int) -> Path:
    """Pictures, and the file of rows."""
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"{number}.png")
    path = out / f"rows{rows}.jsonl"
    answer = {"role": "assistant", "content": "There is a dog and two apples."}
    with path.open("w") as file:
        for number in range(rows):
            turns = [{"role": "user", "content": f"What is in picture {number}?"}, answer] * 3
            row = {"id": f"r{number}", "images": [f"{number % PICTURES}.png"], "messages": turns}
            file.write(json.dumps(row) + "\n")
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path("runs/row_checks"))
    given = parser.parse_args()
    shutil.rmtree(given.out / "run" / CHECKED, ignore_errors=True)
    processor = load_processor(ModelSection(path="assets/base"))
    place: Any = Place(given.out)
    for rows in given.rows:
        section = DataSection(path=write_data(given.out, rows), image_root=given.out / "images")
        for which in ("first", "again"):
            start = time.perf_counter()
            with Memory() as memory:
                found = check_rows(SFTRow, section, processor, 2048, place)
            seconds = time.perf_counter() - start
            print(
                f"{which}: {len(found.rows)} rows, {seconds:.1f} s, {seconds / rows * 1e6:.1f} us a row, ",
                end="",
            )
            print(f"largest process {memory.largest} MiB", flush=True)


if __name__ == "__main__":
    main()
