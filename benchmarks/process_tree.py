"""A process with all that it started, as /proc of Linux tells: to end it as a crash of the machine would.

A server of `align.serving.server` leads a session of its own, so a kill of the pipeline's process group does
not reach it. Found here are children of children, and whoever shares a session with one of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process that was seen; `started` (clock ticks since boot) tells it from a later one of its number."""

    pid: int
    parent: int
    session: int
    started: int

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """As it is now; None for one that is gone or has ended and only waits to be collected."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # proc(5): after the name come state, ppid, pgrp, session, and starttime as the 20th.
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[1]), int(fields[3]), int(fields[19]))

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        now = Process.read(self.pid)
        return now is not None and now.started == self.started

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it is still there."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def beneath(pid: int) -> list[Process]:
    """All that a process started, directly or not, and that still runs; without itself."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    running = [found for each in pids if (found := Process.read(each)) is not None]
    known, found = {pid}, []
    own = os.getsid(0)
    while True:
        sessions = {process.session for process in found} - {own}
        new = [
            process
            for process in running
            if process.pid not in known and (process.parent in known or process.session in sessions)
        ]
        if not new:
            return found
        found += new
        known.update(process.pid for process in new)


def crash(pid: int) -> int:
    """Kill a process and all beneath it, none of which gets to react to the death of another.

    All are stopped first, until nobody new turns up; then SIGKILL, which a stopped process cannot put off.

    Returns:
        How many were killed.
    """
    stopped: list[Process] = [root] if (root := Process.read(pid)) is not None else []
    for process in stopped:
        process.send(signal.SIGSTOP)
    while new := [process for process in beneath(pid) if process not in stopped]:
        for process in new:
            process.send(signal.SIGSTOP)
        stopped += new
    for process in stopped:
        process.send(signal.SIGKILL)
    return len(stopped)


def seconds_until_gone(processes: Collection[Process], timeout: float) -> float | None:
    """How long the last of them still ran, in seconds; None if one outlives the timeout."""
    began = time.monotonic()
    while any(process.is_alive() for process in processes):
        if time.monotonic() - began > timeout:
            return None
        time.sleep(0.1)
    return time.monotonic() - began
