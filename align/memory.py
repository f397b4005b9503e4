"""Peak memory of a stage: this process and all its children together, sampled while it runs."""

from __future__ import annotations

import threading
import time

import psutil

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
