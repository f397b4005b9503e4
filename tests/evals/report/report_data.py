"""Simulated checkpoints with known habits, answering a small world and scored by the real score stage."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.rows.schema import Prediction, Score, write_rows
from data_tools.scenes.coco_files import write_world
from evals import score
from evals.protocol import Sample
from evals.tasks.registry import load_tasks

Answer = Callable[[str, Sample, str], str | None]
"""(checkpoint, sample, simulated text) -> the text to use, None for a failed request."""


@dataclass(frozen=True)
class Habits:
    """How a simulated model answers.

    Attributes:
        sees: chance to name an object that is there.
        invents: chance of each of two made-up objects a caption.
        vqa: chance to answer a question right.
        keeps: share of a caption's sentences that is kept, from the front.
    """

    sees: float
    invents: float
    vqa: float
    keeps: float = 1.0


THREE = {
    "base": Habits(0.80, 0.42, 0.30),
    "sft": Habits(0.84, 0.40, 0.80),
    "dpo": Habits(0.86, 0.12, 0.82),
}
COMMON = ["person", "chair", "cup", "car", "dog", "book"]


def write_scores(
    root: Path,
    habits: Mapping[str, Habits],
    *,
    num_images: int = 40,
    seed: int = 0,
    change: Answer | None = None,
    amber: bool = False,
) -> Path:
    """Make a world, simulate every checkpoint's answers, run the score stage; returns its folder.

    Args:
        change: see `Answer`; for hostile texts and failures.
        amber: ask for AMBER's descriptions and questions as well.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_world(root / "world", train=0, dev=0, test=num_images, unseen=0, seed=5)
    sections = _sections(root / "world")
    if amber:
        sections["amber"] = _amber(root / "world")
    tasks = load_tasks(sections)
    folders = {}
    for name, habit in habits.items():
        rng = random.Random(f"{seed} {name}")
        predictions = []
        for task in tasks.values():
            for sample in task.samples():
                text: str | None = _text(task.type, sample, habit, rng, seed)
                if change is not None:
                    text = change(name, sample, str(text))
                key = f"{name} {task.name} {sample.id}"
                error = "timed out" if text is None else None
                predictions.append(
                    Prediction(
                        key=key,
                        task=task.name,
                        sample_id=sample.id,
                        text=text,
                        error=error,
                        finish_reason="stop",
                        num_tokens=9,
                    )
                )
        folders[name] = root / f"generate_{name}"
        folders[name].mkdir()
        write_rows(folders[name] / "predictions.jsonl", predictions)
        OmegaConf.save(
            OmegaConf.create({"tasks": sections, "sampling": {"temperature": 0.0}}),
            folders[name] / "recipe.yaml",
        )
        manifest = {
            "stage": f"generate_{name}",
            "inputs": {"model": {"path": "x", "digest": f"{name:0<64}"}},
            "output_digest": f"{name:1<64}",
            "seconds": 61.5,
            "peak_memory_bytes": 2**30,
            "command": "align generate x.yaml",
            "packages": {"vllm": "0.32.0"},
        }
        (folders[name] / "manifest.json").write_text(json.dumps(manifest))
    return score.run(score.Recipe(run_dir=root, checkpoints=folders, resamples=500)).final


def caption_row(words: Sequence[str], truth: Sequence[str], sample_id: str = "1") -> Score:
    """A CHAIR row by hand: `words` are the objects named in order, one sentence each."""
    text = " ".join(f"There is a {word}." for word in words)
    mentions: list[dict[str, Any]] = []
    at = 0
    for sentence, word in enumerate(words):
        at = text.index(word, at)
        mentions.append(
            {
                "start": at,
                "end": at + len(word),
                "text": word,
                "category": word,
                "invented": word not in truth,
                "sentence": sentence,
            }
        )
        at += len(word)
    return Score(
        task="chair",
        sample_id=sample_id,
        cluster=sample_id,
        values={},
        meta={"text": text, "mentions": mentions, "label": list(truth)},
    )


def line(
    task: str, metric: str, values: Sequence[float], low: float, high: float, **more: Any
) -> dict[str, Any]:
    """A line of `metrics.json` by hand, with base, sft and dpo values and a chosen interval of dpo - sft."""
    better = {"chair_i": False, "chair_s": False, "yes_ratio": None}.get(metric, True)
    measures = {"chair": "invention", "pope": "probing"}.get(task, "ability")
    low_p = not low <= 0 <= high
    found = {
        "task": task,
        "metric": metric,
        "split": "test",
        "mode": "official",
        "higher_is_better": better,
        "primary": metric != "recall",
        "measures": measures,
        "scale": 100.0,
        "values": dict(zip(("base", "sft", "dpo"), values, strict=True)),
        "delta": values[2] - values[1],
        "ci_low": low,
        "ci_high": high,
        "p": 0.001 if low_p else 0.5,
        "p_holm": 0.004 if low_p else 0.9,
        "mde": 2.0,
        "n": 400,
        "clusters": 400,
        "steps": {
            "base": {"sft": {"delta": values[1] - values[0], "ci_low": -1.0, "ci_high": 1.0, "p": 0.5}}
        },
    }
    return found | more


def hand_made(
    folder: Path, lines: Sequence[Mapping[str, Any]], captions: Mapping[str, Sequence[Score]] | None = None
) -> Path:
    """A score folder from lines and caption rows written by hand."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(list(lines)))
    (folder / "health.json").write_text(
        json.dumps({name: {"chair": {"n": 400, "mean_words": 9.0}} for name in ("base", "sft", "dpo")})
    )
    for name in ("base", "sft", "dpo"):
        (folder / "rows" / name).mkdir(parents=True)
        if captions and name in captions:
            write_rows(folder / "rows" / name / "chair.jsonl", captions[name])
    return folder


def _sections(world: Path) -> dict[str, Any]:
    images, notes = str(world / "images" / "test"), world / "annotations"
    shared = {"image_root": images, "instances": str(notes / "instances_test.json")}
    return {
        "chair": {"type": "chair", **shared},
        "pope": {"type": "pope", **shared, "min_objects": 2, "num_positives": 2},
        "vqa": {
            "type": "vqa",
            "image_root": images,
            "questions": str(notes / "questions_test.json"),
            "annotations": str(notes / "vqa_test.json"),
            "file_name": "{image_id:012d}.png",
        },
    }


def _amber(world: Path) -> dict[str, Any]:
    """AMBER's files about the world's test pictures: each described, and asked about twice."""
    instances = json.loads((world / "annotations" / "instances_test.json").read_text())
    names = {item["id"]: item["name"] for item in instances["categories"]}
    annotations: list[dict[str, Any]] = []
    queries: list[dict[str, Any]] = []
    for number, image in enumerate(instances["images"]):
        there = sorted(
            {names[a["category_id"]] for a in instances["annotations"] if a["image_id"] == image["id"]}
        )
        absent = [word for word in COMMON if word not in there][:2]
        rows: list[tuple[str, Any, str]] = [("generative", there, "Describe this image.")]
        rows += [("discriminative-hallucination", truth, "Is it there?") for truth in ("yes", "no")]
        for place, (kind, truth, query) in enumerate(rows):
            key = 1 + 3 * number + place
            annotations.append({"id": key, "type": kind, "truth": truth, "hallu": absent})
            queries.append({"id": key, "image": image["file_name"], "query": query})
    folder = world / "amber"
    folder.mkdir()
    relation: dict[str, list[str]] = {word: [] for word in (*names.values(), *COMMON)}
    texts = {"annotations": annotations, "query_all": queries, "relation": relation}
    for name, value in texts.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "safe_words.txt").write_text("light\n")
    return {
        "type": "amber",
        "image_root": str(world / "images" / "test"),
        "annotations": str(folder / "annotations.json"),
        "queries": [str(folder / "query_all.json")],
        "relation": str(folder / "relation.json"),
        "safe_words": str(folder / "safe_words.txt"),
    }


def _text(kind: str, sample: Sample, habit: Habits, rng: random.Random, seed: int) -> str:
    if kind == "chair":
        return _caption(sample.reference["official"], habit, rng)
    if kind == "amber" and "generative" in sample.subsets:
        return _caption(sample.reference["truth"], habit, rng)
    if kind == "amber":
        right = rng.random() > habit.invents / 2
        return "Yes" if right == (sample.reference["truth"] == "yes") else "No"
    if kind == "pope":
        right = rng.random() > habit.invents * (0.25 if sample.reference["label"] == "yes" else 0.5)
        return "Yes" if right == (sample.reference["label"] == "yes") else "No"
    return (
        str(sample.meta["label"])
        if rng.random() < habit.vqa
        else random.Random(f"{seed} {sample.id}").choice(["red", "none", "9"])
    )


def _caption(truth: Sequence[str], habit: Habits, rng: random.Random) -> str:
    words = [word for word in truth if rng.random() < habit.sees] or [truth[0]]
    words += [
        rng.choice([word for word in COMMON if word not in truth])
        for _ in range(2)
        if rng.random() < habit.invents
    ]
    kept = words[: max(1, round(habit.keeps * len(words)))]
    openings = [
        "I can see a",
        "Beside it there is a",
        "There is also a",
        "In the back stands a",
        "Next to that is a",
    ]
    return " ".join(f"{openings[min(index, 4)]} {word}." for index, word in enumerate(kept))
