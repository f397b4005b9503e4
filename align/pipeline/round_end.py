"""How the rounds went, read from their stages' folders: what ended them, and `rounds.json` for the report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.pipeline.rounds import Ended, Loop, RoundSection
from align.run.state import read_record

ROUNDS_FILE = "rounds.json"
Believed = Mapping[str, str]
"""Stages whose folders can be trusted; the text, empty for a finished one, is what its `EndOfRounds` said."""


def read_end(loop: Loop, believed: Believed) -> Ended | None:
    """Which stage ended the loop, as the folders of `believed` stages tell; None if none did so far."""
    first: Mapping[str, Any] | None = None
    for number in range(1, loop.asked + 1):
        for stage in loop.section.stages:
            name = loop.name(stage, number)
            if name not in believed:
                return None
            if believed[name]:
                return Ended(number, stage, f"{name}: {believed[name]}", is_whole=False)
            folder = loop.run_dir / name
            agreement = read_agreement(folder)
            why = _nothing_kept(folder)
            if number == 1:
                first = agreement or first
            elif not why:
                why = _drifted(loop.section, agreement, first)
            if why:
                return Ended(number, stage, why)
    return None


def read_agreement(folder: Path, kind: str | None = None) -> dict[str, Any] | None:
    """A judge stage's balanced accuracy: `value`, `ci_low`, `ci_high`; None where it was not measured."""
    try:
        found = json.loads((folder / "agreement.json").read_text())
        found = (found if kind is None else found["by_kind"][kind])["balanced_accuracy"]
        return {key: float(found[key]) for key in ("value", "ci_low", "ci_high")}
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_rounds(loop: Loop) -> Path:
    """Write `rounds.json`: what each round made, whether it was kept, and what ended the loop.

    Folders stand by name, so that equal runs in two places write equal bytes.
    """
    rounds = [_told(loop, number) for number in range(1, loop.asked + 1)]
    end = loop.ended
    told = {
        "asked": loop.asked,
        "kept": loop.kept,
        "ended": None if end is None else {"round": end.round, "stage": end.stage, "why": end.why},
        "rounds": [found for found in rounds if found["stages"]],
    }
    path = loop.run_dir / ROUNDS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    os.replace(temporary, path)
    return path


def _told(loop: Loop, number: int) -> dict[str, Any]:
    stages = {stage: loop.name(stage, number) for stage in loop.section.stages if loop.came(stage, number)}
    agreement = kept = None
    by_kind: dict[str, Any] = {}
    for name in stages.values():
        folder = loop.run_dir / name
        agreement = read_agreement(folder) or agreement
        by_kind |= {kind: read_agreement(folder, kind) for kind in _kinds(folder)}
        kept = _kept(folder) or kept
    return {
        "round": number,
        "is_kept": number <= loop.kept,
        "kept": kept,
        "agreement": agreement,
        "agreement_by_kind": by_kind,
        "stages": stages,
    }


def _kinds(folder: Path) -> list[str]:
    """The kinds of claims that a judge stage was measured on one by one."""
    try:
        return list(json.loads((folder / "agreement.json").read_text())["by_kind"])
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _nothing_kept(folder: Path) -> str:
    kept = _kept(folder)
    if not kept.get("nothing"):
        return ""
    return f"{folder.name} kept nothing" + (f": {kept['why']}" if kept.get("why") else "")


def _drifted(
    section: RoundSection, agreement: Mapping[str, Any] | None, first: Mapping[str, Any] | None
) -> str:
    if agreement is None:
        return ""
    value, low, high = (agreement[key] for key in ("value", "ci_low", "ci_high"))
    told = f"policy and judge drift apart: balanced accuracy {value:.3f} [{low:.3f}, {high:.3f}]"
    if section.min_agreement is not None and low < section.min_agreement:
        return f"{told}, its lower bound must reach {section.min_agreement} (round.min_agreement)"
    drop = section.max_agreement_drop
    if drop is not None and first is not None and high < first["value"] - drop:
        return (
            f"{told}, in round 1 {first['value']:.3f}: a fall of more than {drop} (round.max_agreement_drop)"
        )
    return ""


def _kept(folder: Path) -> Mapping[str, Any]:
    """What a keep rule decided, as the stage that has one tells; others count rows by the same word."""
    found = ((read_record(folder) or {}).get("metrics") or {}).get("kept")
    return found if isinstance(found, Mapping) else {}
