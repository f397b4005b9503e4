"""AMBER's numbers: exact ratios for comparisons, and what its own script prints of the same sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.rows.schema import Score
from evals.protocol import Metric, Mode

QUESTION_PARTS = ("discriminative", "existence", "attribute", "state", "number", "action", "relation")


def amber_metrics(mode: Mode, is_primary: bool) -> list[Metric]:
    """All metrics of one mode, over the values that `Amber` names."""
    mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    described: list[tuple[str, str, str, bool, str]] = [
        ("chair", f"{mark}invented", f"{mark}nouns", False, "nouns that are invented"),
        ("cover", f"{mark}covered", "truth", True, "things there that are named"),
        ("hal", f"{mark}has_invented", "descriptions", False, "descriptions with an invention"),
        ("cog", f"{mark}expected_made", "expected", False, "expected inventions that are made"),
    ]
    found = [
        Metric(
            name=name + suffix,
            split="generative",
            numerator={top: 1},
            denominator={bottom: 1},
            higher_is_better=better,
            primary=is_primary and name in ("chair", "hal"),
            description=description,
            mode=mode,
            subsets=("generative",),
        )
        for name, top, bottom, better, description in described
    ]
    right, hit, answered = f"{mark}right", f"{mark}no_right", f"{mark}no_answered"
    for part in QUESTION_PARTS:
        asked: list[tuple[str, dict[str, float], dict[str, float]]] = [
            ("accuracy", {right: 1}, {"questions": 1}),
            ("precision", {hit: 1}, {answered: 1}),
            ("recall", {hit: 1}, {"no_true": 1}),
            ("f1", {hit: 2}, {answered: 1, "no_true": 1}),
        ]
        found += [
            Metric(
                name=name + suffix,
                split=part,
                numerator=top,
                denominator=bottom,
                higher_is_better=True,
                primary=is_primary and name == "f1" and part == "discriminative",
                description="no is positive",
                mode=mode,
                subsets=(part,),
                measures="probing",
            )
            for name, top, bottom in asked
        ]
    whole = Metric(
        name="amber" + suffix,
        split="amber",
        numerator={f"{mark}amber_top": 1},
        denominator={f"{mark}amber_bottom": 1},
        higher_is_better=True,
        description="(100 - chair + f1) / 2",
        mode=mode,
        subsets=("generative", "discriminative"),
    )
    return [*found, whole]


def published(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """With the script's 0.001 below every line, and rounded to one digit where it rounds."""
    found: dict[str, dict[str, float]] = {}
    whole: dict[str, float] = {}
    for part in ("generative", *QUESTION_PARTS):
        members = [score for score in scores if part in score.meta["subsets"]]
        if members:
            sums = {name: sum(score.values[name] for score in members) for name in members[0].values}
            found[part] = _describe_sums(sums) if part == "generative" else _question_sums(sums, part)
    for part in ("generative", "discriminative"):
        whole |= found.get(part, {})
    if "chair" in whole and "f1" in whole:
        whole["amber"] = round((100 - whole["chair"] + whole["f1"]) / 2, 2)
        found["amber"] = {"amber": whole["amber"]}
    return {**found, "": whole}


def _per(top: float, bottom: float) -> float:
    return round(top / (bottom + 0.001) * 100, 1)


def _describe_sums(sums: Mapping[str, float]) -> dict[str, float]:
    clean = sums["descriptions"] - sums["has_invented"]
    return {
        "chair": _per(sums["invented"], sums["nouns"]),
        "cover": _per(sums["covered"], sums["truth"]),
        "hal": round(100 - clean / (sums["descriptions"] + 0.001) * 100, 1),
        "cog": _per(sums["expected_made"], sums["expected"]),
    }


def _question_sums(sums: Mapping[str, float], part: str) -> dict[str, float]:
    """F1 is of the rounded precision and recall; the script adds 0.001 below for existence, else 0.0001."""
    precision, recall = _per(sums["no_right"], sums["no_answered"]), _per(sums["no_right"], sums["no_true"])
    below = (precision + recall) / 100 + (0.001 if part == "existence" else 0.0001)
    return {
        "accuracy": _per(sums["right"], sums["questions"]),
        "precision": precision,
        "recall": recall,
        "f1": round(2 * (precision / 100) * (recall / 100) / below * 100, 1),
    }
