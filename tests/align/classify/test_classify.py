"""`align classify` on a tiny ViT and coloured squares: it learns, it resumes, and its checkpoint is plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.classify import stage as classify
from align.classify.images import ImagesSection, read_images
from align.config.recipe import validate
from align.digest import digest_file
from align.errors import AlignError

COLOURS = {"blue": (30, 30, 220), "green": (30, 200, 30), "red": (220, 30, 30)}
EACH = 20


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise with a square in it for each colour; 20 pictures a class."""
    root = tmp_path_factory.mktemp("squares")
    draw = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(EACH):
            pixels = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            x, y = draw.integers(0, 16, 2)
            pixels[y : y + 16, x : x + 16] = colour
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 70 thousand random weights without a head, as the hub holds pretrained ones."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        initializer_range=0.15,
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def recipe(run_dir: Path, vit: Path, data: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "run_dir": run_dir,
        "model": {"path": str(vit)},
        "data": {"path": data, "held_out": 0.25},
        "lora": {"r": 4, "lora_alpha": 8},
        "trainer": {
            "max_steps": 30,
            "per_device_train_batch_size": 15,
            "learning_rate": 2e-2,
            "save_steps": 10,
        },
    }
    for section, update in changes.items():
        values[section] = {**values[section], **update}
    return validate(classify.Recipe, values, where="test")


@pytest.fixture(scope="module")
def finished(vit: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classify.run(recipe(tmp_path_factory.mktemp("run"), vit, squares)).final


def test_it_learns_and_the_checkpoint_says_the_same(finished: Path, squares: Path) -> None:
    from transformers import pipeline

    metrics = json.loads((finished / "manifest.json").read_text())["metrics"]
    assert metrics["held_out"] == 15
    assert metrics["held_out_commonest"] == pytest.approx(1 / 3)
    assert metrics["held_out_accuracy"] >= 0.8
    assert metrics["merged_logit_difference"] < 1e-4
    assert metrics["trainable_share"] < 0.1
    lines = [json.loads(line) for line in (finished / "held_out.jsonl").read_text().splitlines()]
    plain = pipeline("image-classification", model=str(finished / "checkpoint"), device="cpu")
    for line in lines[:6]:
        found: Any = plain(str(squares / line["image"]))
        assert found[0]["label"] == line["predicted"]
    names = {path.name for path in (finished / "checkpoint").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_interrupted_and_resumed_equals_undisturbed(
    finished: Path, vit: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    step, steps = Trainer.training_step, iter(range(1000))

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(steps) == 14:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classify.run(recipe(tmp_path, vit, squares))
    resumed = classify.run(recipe(tmp_path, vit, squares)).final
    assert next(steps) == 15 + 20  # ten steps were not done again
    for name in ("adapter/adapter_model.safetensors", "checkpoint/model.safetensors", "train_log.jsonl"):
        assert digest_file(resumed / name) == digest_file(finished / name), name
    before = (resumed / "manifest.json").stat().st_mtime_ns
    classify.run(recipe(tmp_path, vit, squares))
    assert (resumed / "manifest.json").stat().st_mtime_ns == before


def test_a_head_that_would_stay_random_is_refused(vit: Path, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match=r"classifier\.bias(.|\n)*lora\.modules_to_save"):
        classify.run(recipe(tmp_path, vit, squares, lora={"modules_to_save": []}))
    with pytest.raises(AlignError, match=r"PEFT refuses(.|\n)*fc2"):
        classify.run(recipe(tmp_path, vit, squares, lora={"target_modules": ["nowhere"]}))


def test_lines_and_folders_are_read_alike_and_bad_images_have_reasons(squares: Path, tmp_path: Path) -> None:
    whole = read_images(ImagesSection(path=squares, held_out=0.25))
    assert whole.labels == sorted(COLOURS)
    assert (len(whole.train), len(whole.held_out)) == (45, 15)
    lines = [item.model_dump() for item in [*whole.held_out, *whole.train]]
    lines += [
        {"image": "red/none.png", "label": "red"},
        {"image": "red/0.png"},
        {"image": "../x.png", "label": "red"},
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    listed = read_images(ImagesSection(path=file, image_root=squares, held_out=0.25))
    assert {item.image for item in listed.held_out} == {item.image for item in whole.held_out}
    reasons = "\n".join(f"{name}: {why}" for name, why in listed.bad.items())
    assert len(listed.bad) == 3
    assert "missing image" in reasons and "leaves the image root" in reasons and "label" in reasons
    with pytest.raises(AlignError, match="bad image"):
        read_images(ImagesSection(path=file, image_root=squares, strict=True))


def test_too_few_classes_or_images_are_refused(squares: Path, tmp_path: Path) -> None:
    def rows(*pairs: tuple[str, str]) -> ImagesSection:
        file = tmp_path / "few.jsonl"
        file.write_text("".join(json.dumps({"image": a, "label": b}) + "\n" for a, b in pairs))
        return ImagesSection(path=file, image_root=squares)

    with pytest.raises(AlignError, match="1 classes"):
        read_images(rows(("red/0.png", "red"), ("red/1.png", "red")))
    with pytest.raises(AlignError, match="class 'blue' has one image"):
        read_images(rows(("red/0.png", "red"), ("red/1.png", "red"), ("blue/0.png", "blue")))
    with pytest.raises(AlignError, match=r"1 images are there twice: red/0\.png"):
        read_images(rows(("red/0.png", "red"), ("red/0.png", "blue")))
