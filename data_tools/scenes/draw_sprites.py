"""Draw the emoji of every category once, as small sprites in one PNG sheet a style.

Fetch the four icon sets first (any npm client, any registry), and unpack each archive::

    npm pack @iconify-json/noto @iconify-json/twemoji \\
             @iconify-json/openmoji @iconify-json/fluent-emoji-flat
    for f in *.tgz; do mkdir -p "${f%.tgz}"; tar -xzf "$f" -C "${f%.tgz}"; done

Then, with `resvg-py` installed::

    python -m data_tools.scenes.draw_sprites FOLDER_WITH_THE_PACKAGES

The versions drawn are noted in ``sprites/index.json``; licences stand in ``sprites/LICENSES.md``.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.scenes.categories import CATEGORIES

SPRITE_SIZE = 48
"""Pixels of a sprite's longer side, and of a cell in the sheet."""
STYLES = {
    "noto": "noto",
    "twemoji": "twemoji",
    "openmoji": "openmoji",
    "fluent": "fluent-emoji-flat",
}
"""Style name -> npm package under @iconify-json."""
SPRITES_DIR = Path(__file__).parent / "sprites"
_OVERSAMPLE = 4


def find_package(packages_dir: Path, package: str) -> Path:
    """The folder of one icon set below `packages_dir` (with or without a version in its name)."""
    for chars_path in sorted(packages_dir.rglob("chars.json")):
        info = json.loads((chars_path.parent / "package.json").read_text())
        if info["name"] == f"@iconify-json/{package}":
            return chars_path.parent
    raise FileNotFoundError(f"no unpacked @iconify-json/{package} below {packages_dir}")


def icon_svg(icons: dict, name: str) -> str:
    """One icon as an SVG document; iconify keeps bodies and sizes apart, and aliases by name."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def draw(svg: str) -> Image.Image:
    """RGBA sprite, trimmed to its visible pixels; its longer side is `SPRITE_SIZE`."""
    import resvg_py  # only this script needs it

    large = SPRITE_SIZE * _OVERSAMPLE
    png = resvg_py.svg_to_bytes(svg_string=svg, width=large, height=large)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    visible = np.argwhere(np.asarray(image)[..., 3] > 24)
    (top, left), (bottom, right) = visible.min(0), visible.max(0) + 1
    image = image.crop((int(left), int(top), int(right), int(bottom)))
    scale = SPRITE_SIZE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def draw_style(package_dir: Path, columns: int) -> Image.Image:
    """All sprites of one style in a sheet, row by row in the order of `CATEGORIES`."""
    icons = json.loads((package_dir / "icons.json").read_text())
    names = json.loads((package_dir / "chars.json").read_text())
    points = [point for category in CATEGORIES for point in category.emoji]
    rows = -(-len(points) // columns)
    sheet = Image.new("RGBA", (columns * SPRITE_SIZE, rows * SPRITE_SIZE))
    for cell, point in enumerate(points):
        sprite = draw(icon_svg(icons, names.get(point) or names[f"{point}-fe0f"]))
        row, column = divmod(cell, columns)
        sheet.paste(sprite, (column * SPRITE_SIZE, row * SPRITE_SIZE))
    return sheet


def main() -> None:
    """Write one sheet a style and the index which `render` reads."""
    parser = argparse.ArgumentParser(description="Draw the sprites of the embedded world.")
    parser.add_argument("packages_dir", type=Path, help="folder with the unpacked npm packages")
    parser.add_argument("--out_dir", type=Path, default=SPRITES_DIR)
    parser.add_argument("--columns", type=int, default=12)
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    versions = {}
    for style, package in STYLES.items():
        package_dir = find_package(args.packages_dir, package)
        meta = json.loads((package_dir / "package.json").read_text())
        versions[style] = {"package": meta["name"], "version": meta["version"]}
        sheet = draw_style(package_dir, args.columns)
        sheet.save(args.out_dir / f"{style}.png", optimize=True)
    index = {
        "sprite_size": SPRITE_SIZE,
        "columns": args.columns,
        "styles": versions,
        "cells": [[c.name, point] for c in CATEGORIES for point in c.emoji],
    }
    (args.out_dir / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
