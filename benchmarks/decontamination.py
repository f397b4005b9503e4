"""How many altered benchmark pictures `align decontaminate` finds, and how many others it takes for one.

    python -m benchmarks.decontamination                        # pictures of the embedded world
    python -m benchmarks.decontamination --images my/photos --tiles 640

Half of the pictures are the benchmark, the other half are not; each benchmark picture is altered in every
way below, and looked up. With `--tiles`, pictures are cut into squares of so many pixels, so that a few dozen
photographs make hundreds (those of one photograph are all in one half). Prints a table, and one line of JSON
with recall and the bits by which altered pictures and strangers differ.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from align.inputs.images import open_image
from data_tools.decontaminate.hash_list import HashList, ImageRecord, image_records
from data_tools.decontaminate.matches import MAX_BITS, ImageIndex
from data_tools.scenes.coco_files import write_world

MOST_TILES = 12
"""Of one picture, so that many pictures are used."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Encoded as JPEG and decoded."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def crop(image: Image.Image, keep: float, stream: np.random.Generator) -> Image.Image:
    """A random window with the share `keep` of each side."""
    width, height = (round(side * keep) for side in image.size)
    left, top = (int(stream.integers(0, rest + 1)) for rest in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def half(image: Image.Image) -> Image.Image:
    """Resized to half of each side."""
    return image.resize((max(image.width // 2, 1), max(image.height // 2, 1)), Image.Resampling.BICUBIC)


ALTERATIONS: dict[str, Alter] = {
    "flip left to right": lambda image, stream: ImageOps.mirror(image),
    "flip upside down": lambda image, stream: ImageOps.flip(image),
    "JPEG quality 40": lambda image, stream: jpeg(image, 40),
    "resize to a half": lambda image, stream: half(image),
    "crop, 10% off each side": lambda image, stream: crop(image, 0.9, stream),
    "crop, 10% of the area off": lambda image, stream: crop(image, 0.9**0.5, stream),
    "flip, crop, half, JPEG 40": lambda image, stream: jpeg(
        half(crop(ImageOps.mirror(image), 0.9, stream)), 40
    ),
}


def pictures(folder: Path, tile: int | None) -> Iterator[tuple[str, Image.Image]]:
    """(photograph, picture): the pictures of a folder or their tiles, in order of the paths."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        image = open_image(path)
        if tile is None:
            yield path.name, image
            continue
        corners = product(range(0, image.height - tile + 1, tile), range(0, image.width - tile + 1, tile))
        for top, left in islice(corners, MOST_TILES):
            yield path.name, image.crop((left, top, left + tile, top + tile))


def halves(folder: Path, tile: int | None, count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """`count` benchmark pictures and as many others; no photograph has tiles in both."""
    groups: dict[str, list[Image.Image]] = {}
    for name, image in pictures(folder, tile):
        groups.setdefault(name, []).append(image)
    sides: tuple[list[Image.Image], list[Image.Image]] = ([], [])
    for images in groups.values():
        smaller = min(sides, key=len)
        smaller += images
    return sides[0][:count], sides[1][:count]


def records(images: list[Image.Image], folder: Path) -> list[ImageRecord]:
    """The hashes of pictures, which are written as PNG first."""
    folder.mkdir(parents=True)
    names = [f"{number:05d}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name, compress_level=1)
    return [record for _, record, _ in image_records(folder, names) if record is not None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder of pictures; the embedded world without it")
    parser.add_argument("--tiles", type=int, help="cut pictures into squares of so many pixels")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--max_bits", type=int, default=MAX_BITS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="decontamination-") as temporary:
        scratch = Path(temporary)
        if options.images is None:
            write_world(scratch / "world", train=2 * options.count, dev=1, test=1, unseen=1, seed=0)
        folder = options.images or scratch / "world" / "images" / "train"
        benchmark, strangers = halves(folder, options.tiles, options.count)
        start = time.monotonic()
        references = records(benchmark, scratch / "benchmark")
        seconds = (time.monotonic() - start) / max(len(benchmark), 1)
        HashList(references).write(scratch / "hashes.parquet")
        shared = HashList.read(scratch / "hashes.parquet").images
        result = measure(ImageIndex(shared, options.max_bits), benchmark, strangers, scratch)
        size = (scratch / "hashes.parquet").stat().st_size / max(len(benchmark), 1)
    result |= {"benchmark": len(benchmark), "strangers": len(strangers), "max_bits": options.max_bits}
    print(json.dumps(result | {"seconds_an_image": round(seconds, 4), "bytes_an_image": round(size)}))


def measure(
    index: ImageIndex, benchmark: list[Image.Image], strangers: list[Image.Image], scratch: Path
) -> dict[str, object]:
    """Recall of each alteration, false alarms, and percentiles of the bits."""
    recall: dict[str, float] = {}
    worst: dict[str, list[int]] = {}
    for number, (name, alter) in enumerate(ALTERATIONS.items()):
        stream = np.random.default_rng(number)
        altered = records([alter(image, stream) for image in benchmark], scratch / f"altered{number}")
        found = [index.match(record) for record in altered]
        right = [
            match is not None and match.reference == record.name
            for match, record in zip(found, altered, strict=True)
        ]
        recall[name] = round(sum(right) / len(right), 4)
        worst[name] = _percentiles([near.bits for record in altered if (near := index.nearest(record))])
        print(
            f"  {name:<28} recall {recall[name]:.2%}   bits, median / 99% / largest: {worst[name]}",
            flush=True,
        )
    others = records(strangers, scratch / "strangers")
    alarms = sum(index.match(record) is not None for record in others)
    near = sorted(match.bits for record in others if (match := index.nearest(record)))
    share = round(alarms / len(others), 4)
    print(f"  strangers: {alarms} of {len(others)} taken for one ({share:.2%}); nearest bits: {near[:5]}")
    return {"recall": recall, "false_alarms": share, "bits": worst, "strangers_nearest_bits": near[:10]}


def _percentiles(bits: list[int]) -> list[int]:
    return [int(value) for value in np.percentile(bits, [50, 99, 100])]


if __name__ == "__main__":
    main()
