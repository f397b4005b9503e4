"""Write the embedded world: ``python -m data_tools.scenes OUT_DIR --train 4000 --test 500``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from data_tools.scenes.coco_files import write_world
from data_tools.scenes.language import NOISE_SHARE


def main() -> None:
    """Parse the command line, write, and say what was written."""
    parser = argparse.ArgumentParser(description="Write the embedded world of icon scenes.")
    parser.add_argument("out_dir", type=Path, help="a folder that does not hold a world yet")
    for split, size in (("train", 4000), ("dev", 300), ("test", 500), ("unseen", 300)):
        parser.add_argument(f"--{split}", type=int, default=size, help=f"images (default {size})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise_share", type=float, default=NOISE_SHARE)
    args = parser.parse_args()
    start = time.monotonic()

    def report(done: int, total: int) -> None:
        if done == total or done % 1000 == 0:
            rate = done / (time.monotonic() - start)
            print(f"{done:,} of {total:,} images, {rate:.0f} a second", file=sys.stderr)

    sizes = write_world(**vars(args), progress=report)
    print(f"{args.out_dir}: " + ", ".join(f"{size:,} {split}" for split, size in sizes.items()))


if __name__ == "__main__":
    main()
