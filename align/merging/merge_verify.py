"""`align merge --verify`: a merged checkpoint, whoever made it, against base + adapter, tensor by tensor."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.errors import AlignError
from align.merging.layer_changes import LAYER_CHANGES, LayerChanges, compare
from align.models.adapter_folder import Adapter, check_mergeable, read_adapter
from align.progress import say

MERGE_INTO = ("auto", "original", "dequantized")

_EXAMPLE = """\
example:
  align merge --verify runs/x/sft_merged/checkpoint --base assets/base --adapter runs/x/sft/adapter

`applied` is how often the adapter is in a weight: 1 as it should be, 0 when it was left out, 2 when it was
merged twice. `rounding` is the share of the adapter's update that storing in 16 bits cost.
"""


def merge_target(adapter: Adapter, merge_into: str) -> str:
    """What the adapter is merged into: `original`, or the quantisation (nf4, int8) of its training.

    Args:
        merge_into: a recipe's value; `auto` is the weights that the adapter was trained on.

    Raises:
        AlignError: `dequantized`, and the adapter's base was not quantised as far as one knows.
    """
    if merge_into == "original":
        return "original"
    if adapter.quantization != "none":
        return adapter.quantization
    if merge_into == "dequantized":
        raise AlignError(
            "the adapter was not trained on a quantised base",
            where=f"merge_into = {merge_into}",
            fix="an adapter from elsewhere may say so: a base.json beside its weights with "
            '{"path": "...", "digest": "...", "quantization": "nf4"}',
        )
    return "original"


def verify(
    base: Path, adapter: Adapter, checkpoint: Path, merge_into: str, tolerance: float
) -> tuple[LayerChanges, list[str]]:
    """Compare and print; returns the comparison and what does not hold.

    Raises:
        AlignError: folders that do not belong together.
    """
    check_mergeable(adapter)
    target = merge_target(adapter, merge_into)
    say(f"{checkpoint} against {base} and {adapter.path} (merged into: {target})")
    changes = compare(base, checkpoint, adapter, target, tolerance)
    changes.show()
    return changes, changes.faults()


def main(words: Sequence[str]) -> int:
    """The command; 0 when the checkpoint is base + adapter, 1 when it is not."""
    parser = argparse.ArgumentParser(
        prog="align merge --verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLE,
    )
    parser.add_argument("checkpoint", type=Path, help="the merged checkpoint folder")
    parser.add_argument("--base", type=Path, required=True, help="the checkpoint folder it was merged from")
    parser.add_argument("--adapter", type=Path, required=True, help="the adapter's folder")
    parser.add_argument(
        "--merge-into", choices=MERGE_INTO, default="auto", help="as `align merge`'s merge_into"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        help="largest difference beyond the dtype's rounding, as a share of a tensor's largest entry",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help=f"where to write {LAYER_CHANGES} (default: here)"
    )
    options = parser.parse_args([word for word in words if word != "--verify"])
    adapter = read_adapter(options.adapter)
    changes, faults = verify(options.base, adapter, options.checkpoint, options.merge_into, options.tolerance)
    path = options.out or Path(LAYER_CHANGES)
    changes.write(path)
    say(f"  every adapted weight: {path}")
    if faults:
        raise AlignError(
            "not base + adapter: " + "; ".join(faults),
            where=str(options.checkpoint),
            fix="merge again (`align merge`)",
        )
    say(f"  base + adapter, {len(changes.layers)} adapted weights: verified")
    return 0
