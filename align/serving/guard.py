"""Runs one server and never lets it outlive the process that asked for it.

Started as its own session, so the guard, the server and the server's workers are one process group.
When the parent is gone (kill -9 included) or the guard is told to stop, the whole group goes.
Standard library only: `python -S guard.py PARENT_PID COMMAND...` starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

POLL_SECONDS = 0.25
GRACE_SECONDS = 8.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command until it ends, the parent dies, or SIGTERM arrives; returns its exit code."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    told_to_stop = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: told_to_stop.append(True))
    child = subprocess.Popen(command, preexec_fn=_die_with_guard)
    while child.poll() is None and not told_to_stop and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
    code = child.poll()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.1)
    if _others_in_group():
        os.killpg(0, signal.SIGKILL)
    return code if code is not None and code >= 0 else 1


def _die_with_guard() -> None:
    """Where the kernel can (Linux), a guard that is killed itself takes the server along."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _others_in_group() -> bool:
    """Whether workers of the server are still alive in this process group."""
    group = os.getpgid(0)
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if os.getpgid(int(entry)) == group:
                    return True
            except ProcessLookupError:
                continue
    return not os.path.isdir("/proc")


if __name__ == "__main__":
    sys.exit(main())
