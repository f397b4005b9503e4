"""What a person sees while a stage runs: plain lines, and a bar with rate and time left.

On a terminal the bar is live; elsewhere it becomes a log line every few seconds.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_LOG_EVERY_SECONDS = 10.0


def say(text: str) -> None:
    """Print one line for the user, in order with whatever else goes to standard output."""
    print(text, flush=True)


class Bar:
    """A progress bar: `with Bar("sampling", total) as bar: bar.step()`; `total` 0 is unknown."""

    def __init__(self, title: str, total: int, unit: str = "it", done: int = 0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._start = self._last = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Bar:
        self._start = self._last = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self._show(final=True)

    def step(self, count: int = 1, note: str = "") -> None:
        """Advance; `note` (a loss, a count) stands at the end of the line."""
        self.done += count
        every = 0.2 if self._live else _LOG_EVERY_SECONDS
        if time.monotonic() - self._last >= every:
            self._last = time.monotonic()
            self._show(note=note)

    def _show(self, note: str = "", final: bool = False) -> None:
        seconds = max(time.monotonic() - self._start, 1e-6)
        rate = (self.done - self._first) / seconds
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        share = min(self.done / self.total, 1.0) if self.total else float(final)
        clock = f"took {_clock(seconds)}" if final else f"{_clock(left)} left" if self.total else "so far"
        count = f"{share:4.0%} {self.done}/{self.total}" if self.total else f"{self.done}"
        text = f"  {self.title} {count} {self.unit}, {rate:.1f} {self.unit}/s, {clock} {note}"
        if self._live:
            width = 24
            bar = "#" * int(share * width)
            print(
                f"\r\033[2K  [{bar:<{width}}]{text}", end="\n" if final else "", file=sys.stderr, flush=True
            )
        else:
            print(text.rstrip(), flush=True)


def track(rows: Iterable[T], title: str, total: int, unit: str = "rows") -> Iterator[T]:
    """Iterate with a bar."""
    with Bar(title, total, unit) as bar:
        for row in rows:
            yield row
            bar.step()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def quiet_libraries() -> None:
    """Leave the screen to the stage: no notices from TRL, transformers and datasets."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


def readable(size: int) -> str:
    """Bytes as MiB, from a quarter of a GiB on as GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
