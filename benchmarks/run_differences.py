"""Two runs of one pipeline, compared by the bytes that their stages wrote.

Pages (`.html`) are left out: they show how long the stages took. All else must be equal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.pipeline.round_end import ROUNDS_FILE
from align.run.state import partial_of, read_record, read_refusal


def finished(run_dir: Path) -> dict[str, dict[str, str]]:
    """Stage -> file -> sha256, of the stages whose folders are whole."""
    found = {}
    for path in sorted(run_dir.glob("*/manifest.json")):
        record = read_record(path.parent) or {}
        if record.get("status") == "complete" and not path.parent.name.endswith(".partial"):
            outputs: Mapping[str, Any] = record["outputs"]
            names = [name for name in outputs if not name.endswith(".html")]
            found[path.parent.name] = {name: outputs[name]["sha256"] for name in names}
    return found


def report_metrics(run_dir: Path) -> list[Any]:
    """The lines of the final report; empty without one."""
    path = run_dir / "report" / "report.json"
    return json.loads(path.read_text())["metrics"] if path.is_file() else []


def differences(one: Path, other: Path) -> list[str]:
    """A sentence for each stage, file, line of the report and word on the rounds that is not the same."""
    first, second = finished(one), finished(other)
    found = [f"{name}: finished in one run alone" for name in sorted(first.keys() ^ second.keys())]
    for stage in [name for name in first if name in second]:
        mine, yours = first[stage], second[stage]
        for name in sorted(mine.keys() | yours.keys()):
            if mine.get(name) != yours.get(name):
                found.append(f"{stage}/{name}: {_how(one / stage / name, other / stage / name)}")
    if _text(one / ROUNDS_FILE) != _text(other / ROUNDS_FILE):
        found.append(f"{ROUNDS_FILE} differs")
    if _unfinished(one) != _unfinished(other):
        found.append(f"unfinished folders: {_unfinished(one)} and {_unfinished(other)}")
    if report_metrics(one) != report_metrics(other):
        found.append("the report's metrics differ")
    return found


def _how(one: Path, other: Path) -> str:
    if not one.is_file() or not other.is_file():
        return "in one run alone"
    if one.suffix not in (".jsonl", ".json", ".md"):
        return "other bytes"
    mine, yours = (Counter(path.read_text().splitlines()) for path in (one, other))
    apart = max((mine - yours).total(), (yours - mine).total())
    return f"{apart} of {mine.total()} lines differ" if apart else "the same lines in another order"


def _unfinished(run_dir: Path) -> dict[str, str]:
    """Left-over attempts, and of those that ended the rounds what they said."""
    folders = sorted(path for path in run_dir.glob("*.partial") if path.is_dir())
    return {path.name: read_refusal(path) for path in folders}


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def progress(run_dir: Path, stage: str) -> str:
    """What is on disk after a kill: finished stages, and how far the attempt at `stage` had come."""
    words = f"{len(finished(run_dir))} stages"
    partial = partial_of(run_dir / stage)
    if not partial.is_dir():
        return words
    steps = [int(path.name.rpartition("-")[2]) for path in partial.glob("**/checkpoint-*") if path.is_dir()]
    if steps:
        return f"{words}, checkpoint {max(steps)}"
    # Stores and logs of servers are no progress; a line is one once its end was written.
    files = [path for path in partial.glob("**/*.jsonl") if "logs" not in path.parts]
    lines = sum(path.read_bytes().count(b"\n") for path in files)
    return f"{words}, {lines} lines" if lines else f"{words}, an attempt"
