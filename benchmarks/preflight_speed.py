"""Counting tokens from headers against running the processor: the same numbers, how much faster?

    python -m benchmarks.preflight_speed
    python -m benchmarks.preflight_speed --rows 1000 --width 1024 --height 768 --family LLaVA-1.5

Instruction rows on JPEG pictures of their own. The processors have their families' published settings and a
small tokenizer trained here. CPU time of one process, so that the disk's speed stays out; preflight counts
every row, a processor as many as it manages in `--seconds` (20 at least), and these counts must be the same.
Prints a Markdown table; fails where counts differ or preflight is less than 20 times faster.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.inputs.chat import render
from align.inputs.images import open_image, resolve_image
from align.rows.schema import Message, SFTRow
from data_tools.preflight.decide import Decider, Headers
from tests.twins import blip2 as blip2_twin
from tests.twins import gemma, idefics, llava, qwen
from tests.twins.checkpoint import Twin

LEAST_ROWS, LEAST_TIMES = 20, 20
_TEXT = (
    "What is on the table, and what is beside it?",
    "A red cup is on the table; beside it stands a chair. " * 4,
)


def _square(processor: Any, side: int, patch: int = 14) -> None:
    """Every picture becomes `side` x `side` pixels."""
    pictures = processor.image_processor
    pictures.size = {"height": side, "width": side}
    if getattr(pictures, "crop_size", None):
        pictures.size, pictures.crop_size = {"shortest_edge": side}, {"height": side, "width": side}
    processor.patch_size = patch


def _any_resolution(processor: Any, patch: int, least: int, most: int) -> None:
    """The picture's own shape, in patches of which four make a token."""
    processor.image_processor.patch_size = patch
    processor.image_processor.size = {"shortest_edge": least, "longest_edge": most}


def llava_1_5(processor: Any) -> None:
    """336 x 336, patches of 14: 576 tokens."""
    _square(processor, 336)


def llava_next(processor: Any) -> None:
    """The image whole and in up to four tiles of 336 x 336."""
    _square(processor, 336)
    tiles = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
    processor.image_processor.image_grid_pinpoints = [[336 * a, 336 * b] for a, b in tiles]


def llava_onevision(processor: Any) -> None:
    """The image whole and in up to 36 tiles of 384 x 384, scaled down to what nine would hold."""
    _square(processor, 384)
    processor.num_image_tokens = 729
    pinpoints = [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)]
    processor.image_processor.image_grid_pinpoints = pinpoints


def internvl(processor: Any) -> None:
    """Up to twelve tiles of 448 x 448 and the whole, 256 tokens each."""
    _square(processor, 448)
    processor.image_processor.max_patches, processor.image_seq_length = 12, 256


def qwen2_vl(processor: Any) -> None:
    """Qwen2-VL and Qwen2.5-VL: a token is 28 x 28 pixels, at most 1,280 of them as their cards advise."""
    _any_resolution(processor, 14, 56 * 56, 1280 * 28 * 28)


def qwen3_vl(processor: Any) -> None:
    """A token is 32 x 32 pixels."""
    _any_resolution(processor, 16, 65_536, 16_777_216)


def idefics2(processor: Any) -> None:
    """Up to 980 pixels, in four quarters and whole, 64 tokens each."""
    processor.image_processor.size = {"shortest_edge": 378, "longest_edge": 980}
    processor.image_processor.do_image_splitting, processor.image_seq_len = True, 64


def idefics3(processor: Any) -> None:
    """Tiles of 364 x 364 out of 1,456 pixels, and the whole, 169 tokens each."""
    processor.image_processor.size = {"longest_edge": 1456}
    processor.image_processor.max_image_size = {"longest_edge": 364}
    processor.image_seq_len = 169


def gemma3(processor: Any) -> None:
    """896 x 896, 256 tokens."""
    _square(processor, 896)
    tokens, few = (
        processor.tokenizer.image_token * 256,
        processor.tokenizer.image_token * processor.image_seq_length,
    )
    processor.full_image_sequence = processor.full_image_sequence.replace(few, tokens)
    processor.image_seq_length = 256


def paligemma(processor: Any) -> None:
    """224 x 224, 256 tokens."""
    _square(processor, 224)
    processor.image_processor.image_seq_length = processor.image_seq_length = 256


def blip2(processor: Any) -> None:
    """224 x 224, 32 queries."""
    _square(processor, 224)
    processor.num_query_tokens = 32


FAMILIES: dict[str, tuple[Callable[[], Twin], Callable[[Any], None]]] = {
    "LLaVA-1.5": (llava.llava, llava_1_5),
    "LLaVA-NeXT": (llava.llava_next, llava_next),
    "LLaVA-OneVision": (llava.llava_onevision, llava_onevision),
    "InternVL": (llava.internvl, internvl),
    "Qwen2-VL": (qwen.qwen2_vl, qwen2_vl),
    "Qwen2.5-VL": (qwen.qwen2_5_vl, qwen2_vl),
    "Qwen3-VL": (qwen.qwen3_vl, qwen3_vl),
    "Idefics2": (idefics.idefics2, idefics2),
    "Idefics3": (idefics.idefics3, idefics3),
    "Gemma 3": (gemma.gemma3, gemma3),
    "PaliGemma 2": (gemma.paligemma, paligemma),
    "BLIP-2": (blip2_twin.blip_2, blip2),
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
    return [_processed(processor, row, root) for row in rows]


def _processed(processor: Any, row: SFTRow, root: Path) -> int:
    text = render(processor, row.messages, 1, add_generation_prompt=False)
    picture = open_image(resolve_image(root, row.images[0]))
    return len(processor(text=[text], images=[[picture]], add_special_tokens=False)["input_ids"][0])


def by_headers(processor: Any, rows: list[SFTRow], root: Path) -> list[int]:
    """Tokens as preflight counts them, every header read."""
    decisions = Decider(processor, Headers(root), None, 1.0).decide(rows)
    return [decision.tokens or 0 for decision in decisions]


def compared(processor: Any, rows: list[SFTRow], root: Path, seconds: float) -> tuple[float, float, float]:
    """Mean tokens a row, and CPU seconds a row of the processor and of preflight.

    Raises:
        AssertionError: the counts differ.
    """
    by_headers(processor, rows[:3], root)
    by_processor(processor, rows[:3], root)
    started = time.process_time()
    counted = by_headers(processor, rows, root)
    fast = (time.process_time() - started) / len(rows)
    started, made = time.process_time(), list[int]()
    while len(made) < len(rows) and (len(made) < LEAST_ROWS or time.process_time() - started < seconds):
        made.append(_processed(processor, rows[len(made)], root))
    slow = (time.process_time() - started) / len(made)
    assert made == counted[: len(made)], "the counts differ"
    return sum(counted) / len(rows), slow, fast


def main() -> int:
    """Measure and print; 1 where preflight is not 20 times faster."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds for each processor")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    given = parser.parse_args()
    print(
        "| processor | tokens a row | processor ms/row | preflight ms/row | faster |\n|---|---|---|---|---|"
    )
    least = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = write_rows(root, given.rows, (given.width, given.height))
        for name in given.family:
            build, settings = FAMILIES[name]
            twin = build()
            twin.processor.chat_template = twin.template
            settings(twin.processor)
            mean, slow, fast = compared(twin.processor, rows, root, given.seconds)
            line = f"| {name} | {mean:.0f} | {slow * 1000:.2f} | {fast * 1000:.3f} | {slow / fast:.0f} x |"
            print(line, flush=True)
            least = min(least, slow / fast)
    return 0 if least >= LEAST_TIMES else 1


if __name__ == "__main__":
    sys.exit(main())
