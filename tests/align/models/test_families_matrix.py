"""Every family through the real stages on its twin; docs/families.md says what came of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align import dpo, merge, sft
from align.cli import main
from align.config.recipe import validate
from align.inputs.chat import render
from align.merging.merge_checks import Probe, largest_difference, logits
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import Message, PreferenceRow, SFTRow, write_rows
from align.training.loop import train as run_training_steps
from tests.align.models import families_engine, families_table
from tests.twins import IMAGE_TWINS, LEAVE_OUT, TEXT_TWINS, VARIANT_TWINS, Twins

QUESTIONS = ("What is this?", "Is there a cat in the picture?", "How many dogs do you see?")
ANSWERS = ("A small red ball.", "No, there is no cat.", "There are three, on the grass.")
NUM_IMAGES = 20
MAX_TOKENS = 12
# What vLLM refuses: the page's cell, and what it says.
_DELTA_NETS = "CPU GDN attention requires BF16"
REFUSED = {
    "idefics2": ("no[^idefics2]", "_get_num_multimodal_tokens"),
    "minicpmv4_6": ("no[^minicpm]", _DELTA_NETS),
    "minicpmv4_7": ("no[^minicpm]", _DELTA_NETS),
    "muse_glimmer": ("no[^muse_glimmer]", "does not match pixel-shuffle output"),
}
# What its CPU engine serves in bfloat16 alone, whose rounding moves random logits by more than a near-tie.
HALF = {"qwen3_5": "bfloat16[^qwen3_5]", "qwen3_5_moe": "bfloat16[^qwen3_5]"}
# What it serves with other answers: the page's cell.
DIFFERS = {
    "paligemma": "differs[^paligemma]",
    "gemma3": "differs[^gemma3]",
    "gemma4_unified": "differs[^gemma3]",
}

# What it serves with other answers, and nobody has found out why; the page says what was seen.
UNEXPLAINED = {name: f"differs[^{name}]" for name in ("exaone4_5", "cohere2_vision", "lfm2_vl")}
# What it serves with the same answers, within limits that the page says.
LIMITED = {"ministral3": "yes[^ministral3]"}


@dataclass(frozen=True)
class Rows:
    """Instruction rows and pairs, and the folder of their images; None where they have none."""

    images: Path | None
    sft: Path
    dpo: Path


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    root = tmp_path_factory.mktemp("rows")
    images = root / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        height, width = draw.integers(24, 72, 2)
        colours = Image.fromarray(draw.integers(0, 255, (3, 4, 3), dtype=np.uint8))
        colours.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(images / f"{number:02}.png")
    return write(root, images)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return write(tmp_path_factory.mktemp("texts"), None)


def write(root: Path, images: Path | None) -> Rows:
    """Three questions about each of two images, or about none."""
    prompts = [[Message(role="user", content=text)] for text in QUESTIONS]
    answers = [[Message(role="assistant", content=text)] for text in ANSWERS]
    asked = [(["00.png"], q) for q in range(3)] + [(["01.png"], q) for q in range(3)]
    shown = [(image if images else [], q) for image, q in asked[: None if images else 3]]
    write_rows(
        root / "sft.jsonl",
        [
            SFTRow(id=f"{n}", images=image, messages=[*prompts[q], *answers[q]])
            for n, (image, q) in enumerate(shown)
        ],
    )
    write_rows(
        root / "dpo.jsonl",
        [
            PreferenceRow(
                id=f"{n}", images=image, prompt=prompts[q], chosen=answers[q], rejected=answers[q - 1]
            )
            for n, (image, q) in enumerate(shown[:4])
        ],
    )
    return Rows(images, root / "sft.jsonl", root / "dpo.jsonl")


@pytest.mark.parametrize("name", [*IMAGE_TWINS, *VARIANT_TWINS, *TEXT_TWINS])
def test_family(
    name: str, twins: Twins, pictured: Rows, texts: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, rows = twins(name), texts if name in TEXT_TWINS else pictured
    seen = {"preflight": preflight(twin, rows)}
    seen["SFT"] = train(sft, tmp_path / "run", twin, rows, monkeypatch)
    checkpoint, seen["merge, reload"] = merged(tmp_path / "run", twin, tmp_path / "run" / "sft", rows)
    seen["DPO"] = train(dpo, tmp_path / "run", checkpoint, rows, monkeypatch)
    seen["QLoRA"] = qlora(tmp_path / "qlora", twin, rows, monkeypatch)
    families_table.check(name, seen)


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_adapted_experts(
    name: str,
    twins: Twins,
    pictured: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through SFT, merge and DPO: each expert tensor is adapted, and is so in the merged checkpoint."""
    experts = [one for one in LEAVE_OUT[name] if ".experts." in one]
    rest = [one for one in LEAVE_OUT[name] if one not in experts]
    changes = {"lora": {"target_parameters": experts, "leave_out": rest}}
    train(sft, tmp_path, twins(name), pictured, monkeypatch, changes)
    assert "router losses are off" in capsys.readouterr().out
    checkpoint, _ = merged(tmp_path, twins(name), tmp_path / "sft", pictured)
    found = json.loads((tmp_path / "merge" / "layer_changes.json").read_text())["layers"]
    adapted = [layer for layer in found if ".mlp.experts." in layer["parameter"]]
    assert len(adapted) == 6
    assert all(layer["status"] == "merged" and layer["relative_change"] > 1e-4 for layer in adapted)
    train(dpo, tmp_path, checkpoint, pictured, monkeypatch, changes)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(
    "ALIGN_SERVE_FAMILIES" not in os.environ, reason="an engine a family: ALIGN_SERVE_FAMILIES=1"
)
@pytest.mark.parametrize("name", [*IMAGE_TWINS, *VARIANT_TWINS, *TEXT_TWINS])
def test_served(
    name: str, twins: Twins, pictured: Rows, texts: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's greedy tokens of the merged twin are transformers', up to each answer's first near-tie."""
    twin, rows = twins(name), texts if name in TEXT_TWINS else pictured
    train(sft, tmp_path, twin, rows, monkeypatch)
    checkpoint, _ = merged(tmp_path, twin, tmp_path / "sft", rows)
    if name == "qwen2":
        without_window(checkpoint)
    if name == "ministral3":
        without_scaled_queries(checkpoint)
    probes = [
        Probe(picture, QUESTIONS[number % 3])
        for number, picture in enumerate(sorted(rows.images.iterdir()) if rows.images else [None] * 3)
    ]
    dtype: families_engine.Dtype = "bfloat16" if name in HALF else "float32"
    wanted = greedy(checkpoint, probes, dtype=dtype)
    assert sum(map(len, wanted)) >= (4 if dtype == "float32" else 1.5) * len(probes)
    if name in REFUSED:
        why, said = REFUSED[name]
        with pytest.raises(Exception, match=said):
            families_engine.answers(checkpoint, probes, MAX_TOKENS)
        families_table.check(name, {"vLLM": why})
        return
    found = families_engine.answers(checkpoint, probes, MAX_TOKENS, dtype)
    share = agreement(name, wanted, found)
    if name in HALF:
        assert share >= 0.9, (wanted, found)
        families_table.check(name, {"vLLM": HALF[name]})
        return
    assert (share >= 0.99) == (name not in DIFFERS | UNEXPLAINED), (wanted, found)
    if name in DIFFERS:  # why: vLLM's CPU attention is causal everywhere
        assert agreement(f"{name}, causal", greedy(checkpoint, probes, causal=True), found) >= 0.99
    families_table.check(name, {"vLLM": (DIFFERS | UNEXPLAINED | LIMITED).get(name, "yes")})


def without_window(checkpoint: Path) -> None:
    """As published checkpoints are: vLLM refuses a window in the upper layers only, which the twin has."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    assert config["use_sliding_window"] and "sliding_attention" in config["layer_types"]
    config |= {"use_sliding_window": False, "layer_types": ["full_attention"] * len(config["layer_types"])}
    path.write_text(json.dumps(config))


def without_scaled_queries(checkpoint: Path) -> None:
    """As every prompt of a published checkpoint is up to 16,384 tokens; behind them vLLM does not scale."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    assert config["text_config"]["rope_parameters"]["llama_4_scaling_beta"] > 0
    config["text_config"]["rope_parameters"]["llama_4_scaling_beta"] = 0.0
    path.write_text(json.dumps(config))


def test_the_page_is_whole() -> None:
    assert set(families_table.families()) == {
        families_table.NAMES[name] for name in [*IMAGE_TWINS, *VARIANT_TWINS, *TEXT_TWINS]
    }
    assert not families_table.missing_footnotes()


def agreement(name: str, wanted: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float:
    """The share of the wanted tokens that were found; also printed."""
    same = sum(a == b for one, two in zip(wanted, found, strict=True) for a, b in zip(one, two, strict=False))
    total = sum(map(len, wanted))
    print(f"{name}: {same} of {total} tokens")
    return same / total


def greedy(
    checkpoint: Path, probes: Sequence[Probe], causal: bool = False, dtype: families_engine.Dtype = "float32"
) -> list[list[int]]:
    """transformers' greedy tokens, up to where the two best are within 0.01, or 0.05 in bfloat16.

    Args:
        causal: read the prompt so even where the family's attention goes both ways in it or in its images.
    """
    import torch

    section = ModelSection(path=str(checkpoint), dtype=dtype)
    near = 0.01 if dtype == "float32" else 0.05
    processor: Any = load_processor(section)
    model: Any = load_model(section)
    found = []
    for probe in probes:
        text = render(processor, probe.messages, len(probe.images), add_generation_prompt=True)
        pictures = {"images": [Image.open(path) for path in probe.images]} if probe.images else {}
        inputs = processor(text=[text], **pictures, return_tensors="pt", add_special_tokens=False)
        if causal:
            for name in ("token_type_ids", "mm_token_type_ids"):
                inputs.pop(name, None)
        with torch.no_grad():
            made = model.generate(
                **inputs, max_new_tokens=MAX_TOKENS, return_dict_in_generate=True, output_logits=True
            )
        best = torch.stack(made.logits)[:, 0].topk(2).values
        close = (best[:, 0] - best[:, 1] < near).tolist()
        ids = made.sequences[0, -len(close) :].tolist()
        found.append(ids[: close.index(True)] if True in close else ids)
    return found


def preflight(twin: Path, rows: Rows) -> str:
    """All rows fit and none is lost."""
    for data in (rows.sft, rows.dpo):
        words = [str(data), "--model", str(twin), "--max_length", "512"]
        assert main(["preflight", *words, *(["--image_root", str(rows.images)] if rows.images else [])]) == 0
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
        return run_training_steps(trainer, *words)

    kind = stage.Recipe.model_fields["name"].default
    left = LEAVE_OUT.get(json.loads((model / "config.json").read_text())["model_type"])
    values: dict[str, dict[str, Any]] = {
        "model": {"path": str(model), "dtype": "float32", **(changes or {}).get("model", {})},
        "data": {"path": getattr(rows, kind), "image_root": rows.images, "strict": True},
        "lora": {
            "r": 4,
            "lora_alpha": 8,
            **({"leave_out": left} if left else {}),
            **(changes or {}).get("lora", {}),
        },
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
        patch.setattr("align.training.stage.train", kept)
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


def merged(
    run_dir: Path, base: Path, stage_dir: Path, rows: Rows, min_top1_agreement: float = 0.98
) -> tuple[Path, str]:
    """The merged checkpoint; the stage has compared it, saved and loaded again, with the adapter on."""
    values = {
        "run_dir": run_dir,
        "model": {"path": str(base)},
        "adapter": stage_dir / "adapter",
        "verify": {
            "image_root": rows.images,
            "num_images": 2,
            "max_tokens": 4,
            "prompts": list(QUESTIONS),
            "min_top1_agreement": min_top1_agreement,
        },
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
    probes = [Probe(rows.images / "00.png" if rows.images else None, QUESTIONS[0])]
    found = []
    for folder in (base, checkpoint):
        section = ModelSection(path=str(folder))
        found.append(logits(load_model(section), load_processor(section), probes))
    return largest_difference(*found)


def qlora(run_dir: Path, twin: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> str:
    """SFT on NF4 weights, merged into the original ones."""
    changes = {"model": {"quantization": "nf4"}, "trainer": {"optim": "paged_adamw_8bit"}}
    train(sft, run_dir, twin, rows, monkeypatch, changes)
    # the stage compares with the 4-bit model; random weights have near-ties, on which few words may turn
    merged(run_dir, twin, run_dir / "sft", rows, min_top1_agreement=0.8)
    return "yes"
