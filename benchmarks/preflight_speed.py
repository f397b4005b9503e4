"""Counting tokens from headers against running the processor: the same numbers, how much faster?

    python -m benchmarks.preflight_speed
    python -m benchmarks.preflight_speed --rows 1000 --width 1024 --height 768

Instruction rows on JPEG pictures of their own. The processors have the published settings of LLaVA-1.5,
LLaVA-NeXT and Qwen2-VL, and a small tokenizer trained here. CPU time of one process, so that the disk's speed
stays out; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.chat import render
from align.images import open_image, resolve_image
from align.schema import Message, SFTRow
from data_tools.preflight.decide import Decider, Headers
from tests.twins import llava, qwen

_TEXT = (
    "What is on the table, and what is beside it?",
    "A red cup is on the table; beside it stands a chair. " * 4,
)


def llava_1_5() -> Any:
    """336 x 336, patches of 14: 576 tokens."""
    processor = llava.llava().processor
    _square(processor, 336)
    return processor


def llava_next() -> Any:
    """The image whole and in up to four tiles of 336 x 336."""
    processor = llava.llava_next().processor
    _square(processor, 336)
    processor.image_processor.image_grid_pinpoints = [
        [336, 672],
        [672, 336],
        [672, 672],
        [1008, 336],
        [336, 1008],
    ]
    return processor


def qwen2_vl() -> Any:
    """The image's own shape in patches of 14, four a token."""
    processor = qwen.qwen2_vl().processor
    processor.image_processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    return processor


def _square(processor: Any, side: int) -> None:
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    processor.patch_size = 14


PROCESSORS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "LLaVA-1.5": (llava_1_5, llava.llava),
    "LLaVA-NeXT": (llava_next, llava.llava_next),
    "Qwen2-VL": (qwen2_vl, qwen.qwen2_vl),
}


def write_rows(folder: Path, number: int, size: tuple[int, int]) -> list[SFTRow]:
    """Rows with a noisy picture each, some pixels wider than the one before."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8 + number, 3), dtype=np.uint8)
    rows = []
    for k in range(number):
        picture = Image.fromarray(noise[:, k : k + width // 8]).resize((width + k % 17, height), 3)
        picture.save(folder / f"{k}.jpg", quality=85)
        messages = [
            Message(role="user", content=_TEXT[0]),
            Message(role="assistant", content=f"{k} {_TEXT[1]}"),
        ]
        rows.append(SFTRow(id=str(k), images=[f"{k}.jpg"], messages=messages))
    return rows


def by_processor(processor: Any, rows: list[SFTRow], root: Path) -> list[int]:
    """Tokens as the processor makes them of decoded pictures."""
    found = []
    for row in rows:
        text = render(processor, row.messages, 1, add_generation_prompt=False)
        picture = open_image(resolve_image(root, row.images[0]))
        found.append(
            len(processor(text=[text], images=[[picture]], add_special_tokens=False)["input_ids"][0])
        )
    return found


def by_headers(processor: Any, rows: list[SFTRow], root: Path) -> list[int]:
    """Tokens as preflight counts them."""
    decisions = Decider(processor, Headers(root), None, 1.0).decide(rows)
    return [decision.tokens or 0 for decision in decisions]


def timed(count: Callable[[Any, list[SFTRow], Path], list[int]], *given: Any) -> tuple[list[int], float]:
    """What it counted, and its CPU seconds."""
    started = time.process_time()
    return count(*given), time.process_time() - started


def main() -> None:
    """Measure and print; fails where the counts differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    given = parser.parse_args()
    print(
        "| processor | tokens a row | processor ms/row | preflight ms/row | faster |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = write_rows(root, given.rows, (given.width, given.height))
        for name, (build, twin) in PROCESSORS.items():
            processor = build()
            processor.chat_template = twin().template
            for warm in (by_headers, by_processor):
                warm(processor, rows[:3], root)
            made, slow = timed(by_processor, processor, rows, root)
            counted, fast = timed(by_headers, processor, rows, root)
            assert made == counted, f"{name}: the counts differ"
            mean, scale = sum(counted) / len(rows), 1000 / len(rows)
            print(f"| {name} | {mean:.0f} | {slow * scale:.2f} | {fast * scale:.3f} | {slow / fast:.0f} x |")


if __name__ == "__main__":
    main()
