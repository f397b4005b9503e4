"""One variant of a timing in a process of its own: ordered as JSON, answered by one line of JSON.

A process each keeps one variant's memory peak, thread pools and caches from the next one's.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

_MARK = "RECORD "


def run_variant(module: str, order: dict[str, Any]) -> dict[str, Any]:
    """The record of `python -m module ORDER`; its output is shown when it fails."""
    command = [sys.executable, "-m", module, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        raise SystemExit(f"{order['variant']} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix(_MARK))


def answer(train: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other end of `run_variant`: train as ordered on the command line and print the record."""
    from align.progress import quiet_libraries

    quiet_libraries()
    print(_MARK + json.dumps(train(json.loads(sys.argv[1]))))


def peak_bytes() -> int:
    """Maximum of this process's resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def use_compact_head() -> None:
    """Let TRL score completion tokens alone, as it does by itself on a GPU with Triton."""
    from trl.trainer import utils

    utils.__dict__["_use_triton"] = lambda device: True


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {"machine": platform.machine(), "cpus": os.cpu_count(), **packages}
