"""Every family through the real stages on its twin; docs/families.md says what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align import dpo, merge, sft
from align.cli import main
from align.config import validate
from align.schema import Message, PreferenceRow, SFTRow, write_rows
from tests import families_table
from tests.twins import IMAGE_TWINS, Twins

NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "llava": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision",
    "idefics2": "Idefics2",
    "idefics3": "Idefics3, SmolVLM",
    "internvl": "InternVL",
    "gemma3": "Gemma 3",
    "paligemma": "PaliGemma 2",
    "blip-2": "BLIP-2",
}
QUESTIONS = ("What is this?", "Is there a cat in the picture?", "How many dogs do you see?")
ANSWERS = ("A small red ball.", "No, there is no cat.", "There are three, on the grass.")
NUM_IMAGES = 20


@dataclass(frozen=True)
class Rows:
    """A folder of images, instruction rows on three of them and pairs."""

    images: Path
    sft: Path
    dpo: Path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    root = tmp_path_factory.mktemp("rows")
    images = root / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        height, width = draw.integers(24, 72, 2)
        colours = Image.fromarray(draw.integers(0, 255, (3, 4, 3), dtype=np.uint8))
        colours.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(images / f"{number:02}.png")
    prompts = [[Message(role="user", content=text)] for text in QUESTIONS]
    answers = [[Message(role="assistant", content=text)] for text in ANSWERS]
    asked = [(f"{k:02}.png", q) for k in range(2) for q in range(len(QUESTIONS))]
    write_rows(
        root / "sft.jsonl",
        [
            SFTRow(id=f"{image} {q}", images=[image], messages=[*prompts[q], *answers[q]])
            for image, q in asked
        ],
    )
    write_rows(
        root / "dpo.jsonl",
        [
            PreferenceRow(
                id=f"{image} {q}",
                images=[image],
                prompt=prompts[q],
                chosen=answers[q],
                rejected=answers[q - 1],
            )
            for image, q in asked[1:5]
        ],
    )
    return Rows(images, root / "sft.jsonl", root / "dpo.jsonl")


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_family(name: str, twins: Twins, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = twins(name)
    seen = {"preflight": preflight(twin, rows)}
    seen["SFT"] = train(sft, tmp_path / "run", twin, rows, monkeypatch)
    checkpoint, seen["merge, reload"] = merged(tmp_path / "run", twin, tmp_path / "run" / "sft", rows)
    seen["DPO"] = train(dpo, tmp_path / "run", checkpoint, rows, monkeypatch)
    seen["QLoRA"] = qlora(tmp_path / "qlora", twin, rows, monkeypatch)
    families_table.check(NAMES[name], seen)


def test_the_page_is_whole() -> None:
    assert families_table.families() == [NAMES[name] for name in IMAGE_TWINS]
    assert not families_table.missing_footnotes()


def preflight(twin: Path, rows: Rows) -> str:
    """All rows fit and none is lost."""
    for data in (rows.sft, rows.dpo):
        words = [str(data), "--model", str(twin), "--image_root", str(rows.images), "--max_length", "512"]
        assert main(["preflight", *words]) == 0
        report = json.loads(data.with_name(data.name + ".preflight.json").read_text())
        assert report["rows"]["kept"] == len(data.read_text().splitlines())
    return "yes"


def train(
    stage: ModuleType,
    run_dir: Path,
    model: Path,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, dict[str, Any]] | None = None,
) -> str:
    """Three steps of the stage, after which its adapter says something; how rows were computed."""
    trainers: list[Any] = []

    def kept(trainer: Any, *words: Any) -> Any:
        trainers.append(trainer)
        return run_steps(trainer, *words)

    run_steps = stage.train
    kind = stage.Recipe.model_fields["name"].default
    values: dict[str, dict[str, Any]] = {
        "model": {"path": str(model), "dtype": "float32", **(changes or {}).get("model", {})},
        "data": {"path": rows.sft if kind == "sft" else rows.dpo, "image_root": rows.images, "strict": True},
        "lora": {"r": 4, "lora_alpha": 8},
        "trainer": {
            "max_steps": 3,
            "per_device_train_batch_size": 6,  # all rows, so that losses compare
            "learning_rate": 1e-2,
            "bf16": False,
            "gradient_checkpointing": False,
            **(changes or {}).get("trainer", {}),
        },
    }
    with monkeypatch.context() as patch:
        patch.setattr(stage, "train", kept)
        folder = stage.run(validate(stage.Recipe, {"run_dir": run_dir, **values}, where="test"))
    losses = [json.loads(line)["loss"] for line in (folder.final / "train_log.jsonl").open()]
    assert len(losses) == 3 and all(map(math.isfinite, losses))
    if kind == "dpo":
        assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < losses[0]
    (trainer,) = trainers
    if trainer.shares:
        return "shared"
    assert trainer.obstacles
    return "rows apart" if kind == "sft" else "two rows"


def merged(run_dir: Path, base: Path, stage_dir: Path, rows: Rows) -> tuple[Path, str]:
    """The merged checkpoint; the stage has compared it, saved and loaded again, with the adapter on."""
    values = {
        "run_dir": run_dir,
        "model": {"path": str(base)},
        "adapter": stage_dir / "adapter",
        "verify": {"image_root": rows.images, "num_images": 2, "max_tokens": 4},
        "serve_check": False,
    }
    folder = merge.run(validate(merge.Recipe, values, where="test"))
    metrics = folder.manifest()["metrics"]
    assert metrics["dtype"] == "float32" and metrics["lora_modules_zero"] == 0
    assert metrics["saved_logit_difference"] < 1e-3
    checkpoint = folder.final / "checkpoint"
    assert moved(base, checkpoint, rows) > 1e-2
    return checkpoint, "yes"


def moved(base: Path, checkpoint: Path, rows: Rows) -> float:
    """How far the logits of the two checkpoints are apart."""
    from align.merge_checks import largest_difference, logits, make_probes
    from align.modeling import ModelSection, load_model, load_processor

    probes = make_probes(rows.images, 1, QUESTIONS)
    found = []
    for folder in (base, checkpoint):
        section = ModelSection(path=str(folder))
        found.append(logits(load_model(section), load_processor(section), probes))
    return largest_difference(*found)


def qlora(run_dir: Path, twin: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> str:
    """SFT on NF4 weights, merged into the original ones."""
    changes = {"model": {"quantization": "nf4"}, "trainer": {"optim": "paged_adamw_8bit"}}
    train(sft, run_dir, twin, rows, monkeypatch, changes)
    merged(run_dir, twin, run_dir / "sft", rows)
    return "yes"
