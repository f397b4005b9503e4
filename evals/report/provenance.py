"""Where the numbers come from: digests, protocols, packages, commits; and, for readers, time and memory.

`collect` holds only what is the same for equal inputs and goes into `report.json`. Times, memory and
commands differ from run to run; they are shown in the page alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.report.load import read_manifest_if_any
from evals.report.text import short


@dataclass(frozen=True)
class Block:
    """A titled table of the provenance section."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def read_stages(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Manifests of the finished stages among the folders, in the given order."""
    manifests = (read_manifest_if_any(folder) for folder in folders)
    return [manifest for manifest in manifests if manifest]


def collect(
    stages: Sequence[Mapping[str, Any]], cards: Sequence[Mapping[str, Any]], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The reproducible part.

    Args:
        stages: manifests.
        cards: the tasks' protocol cards.
        extra: what the score stage knows: weights digests, sampling, judge.
    """
    packages: dict[str, str] = {}
    for stage in stages:
        packages |= stage.get("packages") or {}
    commits = sorted({str((stage.get("git") or {}).get("commit")) for stage in stages} - {"None"})
    return {
        **extra,
        "tasks": [dict(card) for card in cards],
        "stages": [
            {
                "stage": stage.get("stage"),
                "output_digest": stage.get("output_digest"),
                "recipe_digest": stage.get("recipe_digest"),
                "inputs": {
                    name: item.get("digest") for name, item in sorted((stage.get("inputs") or {}).items())
                },
                "seeds": stage.get("seeds") or {},
            }
            for stage in stages
        ],
        "commits": commits,
        "dirty": any((stage.get("git") or {}).get("dirty") for stage in stages),
        "packages": dict(sorted(packages.items())),
    }


def blocks(record: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The provenance section's tables."""
    found = []
    checkpoints = record.get("checkpoints") or {}
    if checkpoints:
        rows = [[name, str(digest)] for name, digest in checkpoints.items()]
        found.append(Block("Checkpoints", ["name", "sha256 of the weights"], rows))
    if record.get("sampling"):
        rows = [[key, str(value)] for key, value in record["sampling"].items()]
        found.append(Block("Sampling", ["setting", "value"], rows))
    found += [block for block in (_data(record), _judges(record)) if block.rows]
    if record["tasks"]:
        keys = ("prompt", "parser", "split", "aggregation", "source", "licence")
        rows = [
            [str(card.get("task")) if place == 0 else "", key, short(str(card[key]), 400)]
            for card in record["tasks"]
            for place, key in enumerate(key for key in keys if card.get(key))
        ]
        found.append(Block("Protocols", ["task", "what", "as used"], rows))
    if stages:
        rows = [
            [
                str(stage.get("stage")),
                _seconds(stage.get("seconds")),
                _gib(stage.get("peak_memory_bytes")),
                str(stage.get("output_digest") or "")[:16],
                short(str(stage.get("command") or ""), 200),
            ]
            for stage in stages
        ]
        found.append(Block("Stages", ["stage", "time", "peak memory", "output digest", "command"], rows))
    software = [
        ["commit", commit + (" (with local changes)" if record["dirty"] else "")]
        for commit in record["commits"]
    ]
    if record["packages"]:
        names = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
        software.append(["packages", names])
    if software:
        found.append(Block("Software", ["what", "version"], software))
    return found


def _data(record: Mapping[str, Any]) -> Block:
    """The files that questions and truth come from."""
    inputs = next((stage["inputs"] for stage in record["stages"] if stage["stage"] == "score"), {})
    parts = [(name.split(".", 2), digest) for name, digest in inputs.items()]
    rows = [
        [where[1], where[2], str(digest)]
        for where, digest in parts
        if where[0] == "tasks" and len(where) == 3
    ]
    return Block("Data", ["task", "file", "sha256"], rows)


def _judges(record: Mapping[str, Any]) -> Block:
    """Who judged what, and what came of it."""
    rows = []
    for checkpoint, tasks in (record.get("judges") or {}).items():
        for task, notes in tasks.items():
            judge = notes.get("judge") or {}
            wording = ", ".join(str(digest)[:16] for digest in judge.get("prompt_sha256", ()))
            tokens = int(judge.get("prompt_tokens", 0)) + int(judge.get("completion_tokens", 0))
            counts = [f"{judge.get('judgements', 0):,}", f"{judge.get('unscored', 0):,}", f"{tokens:,}"]
            rows.append([checkpoint, task, ", ".join(map(str, judge.get("judge", ()))), wording, *counts])
    header = ["checkpoint", "task", "judge", "wording, sha256", "judgements", "unscored", "tokens"]
    return Block("Judges", header, rows)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.2f} GiB" if size else "–"
