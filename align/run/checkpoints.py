"""Training checkpoints that a kill cannot spoil: one is whole when its seal matches its bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from align.digest import digest_file
from align.progress import say

_SEAL = "whole.json"
_PREFIX = "checkpoint-"


def seal(checkpoint: Path) -> None:
    """Record every file's digest; written last and atomically, so an unsealed folder is half-written."""
    digests = {
        str(file.relative_to(checkpoint)): digest_file(file)
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != _SEAL
    }
    temporary = checkpoint / (_SEAL + ".tmp")
    temporary.write_text(json.dumps(digests))
    temporary.replace(checkpoint / _SEAL)


def is_whole(checkpoint: Path) -> bool:
    """Whether the seal is there and every file still has the sealed bytes."""
    try:
        digests = json.loads((checkpoint / _SEAL).read_text())
        return bool(digests) and all(
            digest_file(checkpoint / name) == value for name, value in digests.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def last_whole(folder: Path) -> Path | None:
    """The latest whole checkpoint in `folder`; later, half-written ones are deleted."""
    for checkpoint in sorted(folder.glob(_PREFIX + "*"), key=_step, reverse=True):
        if is_whole(checkpoint):
            return checkpoint
        say(f"  {checkpoint.name} was cut off while it was written: ignored")
        shutil.rmtree(checkpoint)
    return None


def whole_steps(folder: Path) -> list[int]:
    """Steps of the sealed checkpoints in `folder`, in order; their bytes are not looked at."""
    return sorted(_step(seal.parent) for seal in folder.glob(f"{_PREFIX}*/{_SEAL}"))


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1
