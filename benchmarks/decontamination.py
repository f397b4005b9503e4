"""What alterations of benchmark pictures `align decontaminate` finds, and what else it takes for them.

    python -m benchmarks.decontamination                        # generated pictures, drawn documents
    python -m benchmarks.decontamination --images my/photos --tiles 240

Half of the pictures are the benchmark, the other half are not; each benchmark picture is altered in every
way below, and looked up. Without `--images` they are textures, two photographs that scikit-learn ships cut
into tiles, and documents that share a template: forms, slides, app screens. With `--tiles`, pictures are
cut into squares of so many pixels (those of one photograph are all in one half). Prints a table of what is
found, and one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from align.inputs.images import open_image
from data_tools.decontaminate.hash_list import HashList, ImageRecord, image_records
from data_tools.decontaminate.hash_store import HashStore
from data_tools.decontaminate.matches import MAX_BITS, ImageIndex, ImageMatch
from data_tools.decontaminate.perceptual import grey_thumbnail
from data_tools.scenes.categories import CATEGORIES

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


def rotate(image: Image.Image, angle: float) -> Image.Image:
    """Rotated about its middle, black in the corners."""
    return image.rotate(angle, Image.Resampling.BICUBIC)


def padded(image: Image.Image) -> Image.Image:
    """Padded to a square: grey, or black where the width is odd."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "black" if image.width % 2 else (127, 127, 127))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def bordered(image: Image.Image, share: float, stream: np.random.Generator) -> Image.Image:
    """With a plain border of this share of its width."""
    colour = ("white", "black", "red")[int(stream.integers(3))]
    return ImageOps.expand(image, round(share * image.width), colour)


def written(image: Image.Image, share: float, stream: np.random.Generator) -> Image.Image:
    """With a line of outlined text, so high as this share of the picture."""
    image, size = image.copy(), max(round(image.height * share), 8)
    place = (image.width * 0.05, image.height * float(stream.uniform(0.1, 0.8)))
    outline = max(size // 12, 1)
    ImageDraw.Draw(image).text(
        place, "SAMPLE TEXT 2026", (255, 255, 0), _font(size), stroke_width=outline, stroke_fill="black"
    )
    return image


def collage(image: Image.Image, stream: np.random.Generator) -> Image.Image:
    """One of four pictures, three of them noise, with gaps between."""
    sheet, place = Image.new("RGB", (600, 600), "white"), int(stream.integers(4))
    for number in range(4):
        coarse = Image.fromarray(stream.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        part = image if number == place else coarse
        sheet.paste(part.resize((290, 290)), (5 + number % 2 * 300, 5 + number // 2 * 300))
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


ALTERATIONS: dict[str, Alter] = {
    "JPEG quality 40": lambda image, stream: jpeg(image, 40),
    "resize to a half": lambda image, stream: half(image),
    "squash to half the height": lambda image, stream: image.resize((image.width, image.height // 2)),
    "grey": lambda image, stream: image.convert("L").convert("RGB"),
    "brighter by 30%": lambda image, stream: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast to 60%": lambda image, stream: ImageEnhance.Contrast(image).enhance(0.6),
    "blur, radius 2": lambda image, stream: image.filter(ImageFilter.GaussianBlur(2)),
    "flip left to right": lambda image, stream: ImageOps.mirror(image),
    "flip upside down": lambda image, stream: ImageOps.flip(image),
    "rotation by 90 degrees": lambda image, stream: image.transpose(Image.Transpose.ROTATE_90),
    "rotation by 2 degrees": lambda image, stream: rotate(image, 2),
    "rotation by 5 degrees": lambda image, stream: rotate(image, -5),
    "inversion": lambda image, stream: ImageOps.invert(image),
    "padding to a square": lambda image, stream: padded(image),
    "border of 3%": lambda image, stream: bordered(image, 0.03, stream),
    "border of 8%": lambda image, stream: bordered(image, 0.08, stream),
    "crop, 10% off each side": lambda image, stream: crop(image, 0.9, stream),
    "crop, 20% off each side": lambda image, stream: crop(image, 0.8, stream),
    "crop, 30% off each side": lambda image, stream: crop(image, 0.7, stream),
    "small text (6%)": lambda image, stream: written(image, 0.06, stream),
    "large text (16%)": lambda image, stream: written(image, 0.16, stream),
    "collage of four": collage,
    "flip, crop, half, JPEG 40": lambda image, stream: jpeg(
        half(crop(ImageOps.mirror(image), 0.9, stream)), 40
    ),
}

_WORDS = tuple(category.name for category in CATEGORIES)


def texture(number: int) -> Image.Image:
    """Shapes, coarse and fine as in a photograph."""
    stream, pixels = np.random.default_rng(number), np.zeros((240, 320, 3))
    for scale in (4, 8, 16, 32):
        noise = Image.fromarray(stream.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        pixels += np.asarray(noise.resize((320, 240), Image.Resampling.BICUBIC)) / scale
    return Image.fromarray((pixels * 255 / pixels.max()).astype(np.uint8))


def form(number: int) -> Image.Image:
    """A filled form; all have one template."""
    stream, image = np.random.default_rng(number), Image.new("RGB", (800, 1000), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 40, 760, 110), fill=(30, 60, 120))
    draw.text((60, 58), "APPLICATION FORM 27-B", "white", _font(34))
    for line, name in enumerate(
        ["Name", "Street", "City", "Country", "Phone", "Date", "Number", "Reason", "Amount", "Account"]
    ):
        y = 160 + line * 80
        draw.text((50, y), f"{name}:", "black", _font(22))
        draw.rectangle((260, y - 8, 750, y + 34), outline="black")
        draw.text(
            (270, y),
            f"{' '.join(stream.choice(_WORDS, 2))} {stream.integers(9999)}",
            (20, 20, 120),
            _font(22),
        )
    return image


def slide(number: int) -> Image.Image:
    """A slide of one company."""
    stream, image = np.random.default_rng(number), Image.new("RGB", (960, 540), (245, 245, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 960, 80), fill=(180, 30, 40))
    draw.text((30, 20), " ".join(stream.choice(_WORDS, 3)).title(), "white", _font(36))
    for line in range(5):
        draw.text((60, 120 + line * 70), "- " + " ".join(stream.choice(_WORDS, 5)), "black", _font(26))
    draw.text((30, 505), "Company name    confidential", "gray", _font(16))
    draw.ellipse((860, 480, 930, 530), fill=(180, 30, 40))
    return image


def screen(number: int) -> Image.Image:
    """A screen of one app."""
    stream, image = np.random.default_rng(number), Image.new("RGB", (400, 800), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 400, 60), fill=(0, 120, 100))
    draw.text((20, 15), "Messages", "white", _font(26))
    for line in range(8):
        y = 80 + line * 85
        draw.ellipse((15, y, 75, y + 60), fill=tuple(int(x) for x in stream.integers(60, 220, 3)))
        draw.text((90, y + 5), str(stream.choice(_WORDS)), "black", _font(22))
        draw.text((90, y + 34), " ".join(stream.choice(_WORDS, 4)), "gray", _font(16))
        draw.line((0, y + 74, 400, y + 74), fill=(220, 220, 220))
    draw.rectangle((0, 760, 400, 800), fill=(230, 230, 230))
    return image


def photographs(count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Tiles of one photograph that scikit-learn ships and textures, and as many of the other one."""
    from sklearn.datasets import load_sample_images

    sides = []
    for number, pixels in enumerate(load_sample_images().images):
        image = Image.fromarray(pixels)
        corners = list(product((0, 212), (0, 213, 426)))
        tiles = [image.crop((left, top, left + 213, top + 212)) for top, left in corners]
        sides.append([*tiles, *(texture(1000 * number + k) for k in range(count))][:count])
    return sides[0], sides[1]


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


def records(images: list[Image.Image], folder: Path, store: HashStore) -> list[ImageRecord]:
    """The hashes of pictures, which are written as PNG first."""
    folder.mkdir(parents=True)
    names = [f"{number:05d}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        image.save(folder / name, compress_level=1)
    with redirect_stdout(io.StringIO()):
        return [record for _, record, _ in image_records(folder, names, store) if record is not None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder of pictures; generated ones without it")
    parser.add_argument("--tiles", type=int, help="cut pictures into squares of so many pixels")
    parser.add_argument("--count", type=int, default=24, help="of each kind, in either half")
    parser.add_argument("--max_bits", type=int, default=MAX_BITS)
    options = parser.parse_args()
    if options.images is not None:
        kinds = {"pictures": halves(options.images, options.tiles, options.count)}
    else:
        kinds = {"photographs": photographs(options.count)}
        for name, draw in (("forms", form), ("slides", slide), ("screens", screen)):
            drawn = [draw(number) for number in range(2 * options.count)]
            kinds[name] = drawn[: options.count], drawn[options.count :]
    with tempfile.TemporaryDirectory(prefix="decontamination-") as temporary:
        found = {
            name: measure(*sides, options.max_bits, Path(temporary) / name) for name, sides in kinds.items()
        }
    print(f"| alteration | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for name in ALTERATIONS:
        print(
            f"| {name} | "
            + " | ".join(f"{one['found'][name]} of {one['benchmark']}" for one in found.values())
            + " |"
        )
    cells = [f"{one['false_alarms']} of {one['strangers']}" for one in found.values()]
    print(f"| **others taken for one** | {' | '.join(cells)} |")
    print(json.dumps(found))


def measure(
    benchmark: list[Image.Image], strangers: list[Image.Image], max_bits: int, scratch: Path
) -> dict[str, Any]:
    """How many of each alteration are found as what they are, and how many others are taken for one."""
    store, start = HashStore(None), time.monotonic()
    references = records(benchmark, scratch / "benchmark", store)
    seconds = (time.monotonic() - start) / max(len(benchmark), 1)
    HashList(references).write(scratch / "hashes.parquet")
    index = ImageIndex(HashList.read(scratch / "hashes.parquet").images, max_bits)

    def match(record: ImageRecord, folder: Path) -> ImageMatch | None:
        return index.match(record, lambda: grey_thumbnail(open_image(folder / record.name)))

    found: dict[str, int] = {}
    for number, (name, alter) in enumerate(ALTERATIONS.items()):
        stream, folder = np.random.default_rng(number), scratch / f"altered{number}"
        altered = records([alter(image, stream) for image in benchmark], folder, store)
        matches = [(record, match(record, folder)) for record in altered]
        found[name] = sum(hit is not None and hit.reference == record.name for record, hit in matches)
    folder = scratch / "strangers"
    alarms = sum(match(record, folder) is not None for record in records(strangers, folder, store))
    return {
        "benchmark": len(benchmark),
        "strangers": len(strangers),
        "found": found,
        "false_alarms": alarms,
        "seconds_an_image": round(seconds, 4),
        "bytes_an_image": round((scratch / "hashes.parquet").stat().st_size / max(len(benchmark), 1)),
    }


if __name__ == "__main__":
    main()
