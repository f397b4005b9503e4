"""Peak memory of a stage: this process and all its children together, sampled while it runs."""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from align.errors import AlignError

EFFICIENCY = "logs/efficiency.json"
"""Where a training stage keeps what it cost."""
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_SAMPLE_SECONDS = 1.0
_PAUSE_PER_COST = 50
"""A sample of a large process tree takes 0.1 s and more: sampling may take one part in so many."""


class MemoryPeak:
    """Samples the proportional set size (shared pages counted once) of the process tree, in bytes.

    Falls back to the resident set where the kernel does not tell the proportional one.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak", daemon=True)

    def start(self) -> None:
        """Begin sampling in a daemon thread."""
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling; returns the peak in bytes."""
        self._stop.set()
        self._thread.join(timeout=5)
        self.bytes = max(self.bytes, _tree_bytes())
        return self.bytes

    def _watch(self) -> None:
        pause = _SAMPLE_SECONDS
        while not self._stop.wait(pause):
            started = time.perf_counter()
            self.bytes = max(self.bytes, _tree_bytes())
            pause = max(_SAMPLE_SECONDS, _PAUSE_PER_COST * (time.perf_counter() - started))


def _tree_bytes() -> int:
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except psutil.Error:
            continue
    return total


class Growth:
    """How far this process's memory rises above where it stood: the GPU's tensors, else the resident set.

    On a GPU it is PyTorch's allocated bytes. On a CPU the kernel's high-water mark, reset at the start
    (Linux: `clear_refs`, proc(5)); freed memory is given back first, so that the start is not too high.
    Elsewhere the mark since the process began, which another stage may have set.
    """

    def __init__(self) -> None:
        self._start = 0

    def start(self) -> None:
        """Take the present as the level."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
            return
        _give_back()
        with suppress(OSError):
            _CLEAR_REFS.write_text("5")
        self._start = psutil.Process().memory_info().rss

    def bytes(self) -> int:
        """The highest level since then, above it."""
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else high_water()
        return max(0, peak - self._start)


def _give_back() -> None:
    """Return freed heap pages to the kernel, where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def high_water() -> int:
    """The most that was resident in this process, in bytes, since it began or the mark was reset."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_efficiency(stage_dir: Path) -> dict[str, Any] | None:
    """What a finished training stage recorded; None where it did not.

    Raises:
        AlignError: a file that is not JSON.
    """
    path = stage_dir / EFFICIENCY
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error
