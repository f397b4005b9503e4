"""A score folder as the score stage writes it, made from a simulated set of checkpoints with known habits."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from align.schema import Score, write_rows
from evals.stats import compare, holm

OBJECTS = ["dog", "cat", "car", "bus", "chair", "bench", "person", "pizza", "cup", "clock", "zebra", "kite"]
KINDS = ["exists", "how many", "where", "what"]


@dataclass(frozen=True)
class Habits:
    """How a simulated model answers.

    Attributes:
        sees: chance to name an object that is there.
        invents: chance of each of two made-up objects per caption.
        vqa: chance to answer a question right.
    """

    sees: float
    invents: float
    vqa: float


THREE = {"base": Habits(0.80, 0.42, 0.45), "sft": Habits(0.82, 0.38, 0.78), "dpo": Habits(0.82, 0.15, 0.785)}


def write_scores(folder: Path, habits: Mapping[str, Habits], *, num_images: int = 200, seed: int = 0) -> Path:
    """Write `metrics.json`, `health.json`, `rows/` and pictures for the checkpoints; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    truths = {f"{index:012d}.png": rng.sample(OBJECTS, rng.randint(2, 5)) for index in range(num_images)}
    _draw_pictures(folder / "images", truths, rng)
    rows: dict[str, dict[str, list[Score]]] = {}
    for name, habit in habits.items():
        own = random.Random(f"{seed} {name}")
        rows[name] = {
            "chair": [caption_row(image, truth, _caption(truth, habit, own)) for image, truth in truths.items()],
            "pope": [_pope_row(image, truth, split, habit, own, seed) for image, truth in truths.items() for split in ("random", "popular", "adversarial")],
            "vqa": [_vqa_row(image, kind, habit, own) for image in truths for kind in KINDS],
        }
    save_rows(folder, rows)
    metrics = _metrics(rows)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    health = {
        name: {task: {"n": len(found), "unparsed": 0, "empty": 0, "truncated": 1, "failed": 0, "mean_words": 9.0} for task, found in tasks.items()}
        for name, tasks in rows.items()
    }
    (folder / "health.json").write_text(json.dumps(health, indent=1))
    return folder


def save_rows(folder: Path, rows: Mapping[str, Mapping[str, Sequence[Score]]]) -> None:
    """Write `rows/<checkpoint>/<task>.jsonl`."""
    for name, tasks in rows.items():
        for task, found in tasks.items():
            path = folder / "rows" / name / f"{task}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(path, found)


def caption_row(image: str, truth: Sequence[str], words: Sequence[str], text: str | None = None) -> Score:
    """A CHAIR row: `words` are the objects named, in order, one sentence each."""
    if text is None:
        text = " ".join(f"There is a {word} in the picture." for word in words)
    mentions: list[dict[str, Any]] = []
    at = 0
    for sentence, word in enumerate(words):
        at = text.find(word, at)
        if at < 0:
            break
        mentions.append({"start": at, "end": at + len(word), "text": word, "category": word, "invented": word not in truth, "sentence": sentence})
        at += len(word)
    invented = sum(mention["invented"] for mention in mentions)
    values = {
        "mentions": len(mentions), "invented": invented, "has_invented": float(invented > 0), "captions": 1,
        "covered": len({m["category"] for m in mentions if not m["invented"]}), "truth": len(truth),
    }  # fmt: skip
    meta = {"image": image, "text": text, "mentions": mentions, "truth": list(truth), "subsets": []}
    return Score(task="chair", sample_id=image, cluster=image, values={k: float(v) for k, v in values.items()}, meta=meta)


def metric(name: str, task: str, values: Sequence[float], low: float, high: float, **more: Any) -> dict[str, Any]:
    """A line of `metrics.json` with base, sft and dpo values and a chosen interval."""
    better = {"chair_i": False, "chair_s": False, "yes_ratio": None}.get(name, True)
    line = {
        "task": task, "metric": name, "split": "test", "higher_is_better": better, "primary": True,
        "base": values[0], "sft": values[1], "dpo": values[2], "delta": values[2] - values[1], "ci_low": low, "ci_high": high,
        "p": 0.5 if low <= 0 <= high else 0.001, "p_holm": 0.9 if low <= 0 <= high else 0.004, "mde": 2.0, "n": 400, "clusters": 400, "mode": "official",
        "base_to_sft": {"delta": values[1] - values[0], "ci_low": -1.0, "ci_high": 1.0, "p": 0.5},
    }  # fmt: skip
    return line | more


def _caption(truth: Sequence[str], habit: Habits, rng: random.Random) -> list[str]:
    seen = [word for word in truth if rng.random() < habit.sees]
    absent = [word for word in OBJECTS if word not in truth]
    return seen + [rng.choice(absent[:4]) for _ in range(2) if rng.random() < habit.invents]


def _pope_row(image: str, truth: Sequence[str], split: str, habit: Habits, rng: random.Random, seed: int) -> Score:
    ask = random.Random(f"{seed} {image} {split}")
    positive = ask.random() < 0.5
    thing = ask.choice(list(truth) if positive else [word for word in OBJECTS if word not in truth])
    right = rng.random() < 1 - habit.invents * (0.3 if positive else 0.6)
    yes = positive if right else not positive
    values = {"asked": 1.0, "correct": float(right), "yes": float(yes)}
    meta = {"image": image, "question": f"Is there a {thing} in the image?", "label": "yes" if positive else "no", "text": "Yes" if yes else "No", "subsets": [split]}
    return Score(task="pope", sample_id=f"{image}-{split}", cluster=image, parsed="yes" if yes else "no", values=values, meta=meta)


def _vqa_row(image: str, kind: str, habit: Habits, rng: random.Random) -> Score:
    right = rng.random() < habit.vqa * (0.8 if kind == "where" else 1.05)
    meta = {"image": image, "question": f"A question about {kind}?", "answer": "two", "text": "two" if right else "three", "kind": kind, "subsets": [kind]}
    return Score(task="vqa", sample_id=f"{image}-{kind}", cluster=image, parsed=meta["text"], values={"asked": 1.0, "accuracy": float(right)}, meta=meta)


def _metrics(rows: Mapping[str, Mapping[str, Sequence[Score]]]) -> list[dict[str, Any]]:
    specs = [
        ("chair", "chair_i", "test", False, True, "invented", "mentions", ""),
        ("chair", "chair_s", "test", False, True, "has_invented", "captions", ""),
        ("chair", "recall", "test", True, True, "covered", "truth", ""),
        ("vqa", "accuracy", "test", True, True, "accuracy", "asked", ""),
        *[("vqa", "accuracy", kind, True, False, "accuracy", "asked", kind) for kind in KINDS],
        *[("pope", "accuracy", split, True, split == "adversarial", "correct", "asked", split) for split in ("random", "popular", "adversarial")],
        *[("pope", "yes_ratio", split, None, False, "yes", "asked", split) for split in ("random", "popular", "adversarial")],
    ]  # fmt: skip
    lines = []
    for task, name, split, better, primary, top, bottom, subset in specs:
        sums = {one: _sums(found[task], top, bottom, subset) for one, found in rows.items()}
        names = list(rows)
        found = compare([sums[names[-2]]], [sums[names[-1]]], [False], resamples=1000)[0]
        step = compare([sums[names[0]]], [sums[names[-2]]], [False], resamples=1000)[0]
        values = {one: 100 * float(part[:, 0].sum() / part[:, 1].sum()) for one, part in sums.items()}
        lines.append({
            "task": task, "metric": name, "split": split, "higher_is_better": better, "primary": primary, **values,
            "delta": 100 * found.delta, "ci_low": 100 * found.ci_low, "ci_high": 100 * found.ci_high, "p": found.p, "p_holm": None,
            "mde": 100 * found.mde, "n": int(sum(not subset or subset in row.meta["subsets"] for row in rows[names[-1]][task])),
            "clusters": len(sums[names[-1]]), "mode": "official",
            "base_to_sft": {"delta": 100 * step.delta, "ci_low": 100 * step.ci_low, "ci_high": 100 * step.ci_high, "p": step.p},
        })  # fmt: skip
    primary_lines = [line for line in lines if line["primary"]]
    for line, p in zip(primary_lines, holm([line["p"] for line in primary_lines]), strict=True):
        line["p_holm"] = p
    return lines


def _sums(rows: Sequence[Score], top: str, bottom: str, subset: str) -> np.ndarray:
    clusters: dict[str, list[float]] = {}
    for row in rows:
        if not subset or subset in row.meta["subsets"]:
            entry = clusters.setdefault(row.cluster, [0.0, 0.0])
            entry[0] += row.values[top]
            entry[1] += row.values[bottom]
    return np.array([clusters[name] for name in sorted(clusters)])


def _draw_pictures(folder: Path, truths: Mapping[str, Sequence[str]], rng: random.Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, truth in truths.items():
        image = Image.new("RGB", (96, 96), (rng.randint(120, 220), rng.randint(120, 220), rng.randint(120, 220)))
        draw = ImageDraw.Draw(image)
        for word in truth:
            x, y = rng.randint(0, 70), rng.randint(0, 70)
            color = tuple(random.Random(word).randint(0, 200) for _ in range(3))
            draw.ellipse((x, y, x + 24, y + 24), fill=color)
        image.save(folder / name)
