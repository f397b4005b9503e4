"""SFT on the real base: what trains, what is quarantined, and that a kill changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align import dpo, sft
from align.config.recipe import load_recipe, validate
from align.digest import digest_file
from align.errors import AlignError
from align.models.loading import weights_digest
from align.rows.schema import Message, SFTRow, write_rows
from align.run.checkpoints import is_whole, last_whole
from tests.training_recipes import PROMPT, kill_after_first_checkpoint, sft_recipe, sft_rows

WEIGHTS = Path("adapter") / "adapter_model.safetensors"


def _run(recipe: Path) -> Path:
    return sft.run(load_recipe(sft.Recipe, recipe)).final


def _row(row_id: str, image: str, answer: str = "a cat") -> SFTRow:
    turns = [Message(role="user", content=PROMPT), Message(role="assistant", content=answer)]
    return SFTRow(id=row_id, images=[image], messages=turns)


def test_adapter_moves_and_base_does_not(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.training import loop as training

    seen: dict[str, Any] = {}

    def watched(trainer: Any, *rest: Any) -> dict[str, float]:
        base = trainer.model.get_base_model()
        adapter = {name: p.detach().clone() for name, p in base.named_parameters() if p.requires_grad}
        seen["before"] = weights_digest(base)
        results = training.train(trainer, *rest)
        seen["after"] = weights_digest(base)
        seen["moved"] = [
            name for name, p in base.named_parameters() if name in adapter and not p.equal(adapter[name])
        ]
        seen["trained"] = list(adapter)
        return results

    monkeypatch.setattr("align.training.stage.train", watched)
    _run(sft_recipe(tmp_path, base_checkpoint, tiny_world, trainer__max_steps=2))
    assert seen["before"] == seen["after"]
    assert len(seen["before"]) > 100
    assert sorted(seen["moved"]) == sorted(seen["trained"])  # after two steps A moves too
    assert all("language_model" in name for name in seen["trained"])


def test_killed_and_resumed_equals_undisturbed(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    recipe = sft_recipe(tmp_path, base_checkpoint, tiny_world)
    work = tmp_path / "sft.partial"
    kill_after_first_checkpoint("sft", recipe, work)
    checkpoints = work / "scratch" / "checkpoints"
    whole = last_whole(checkpoints)
    assert whole is not None
    half = checkpoints / "checkpoint-7"  # as a kill in the middle of a save leaves it
    shutil.copytree(whole, half, ignore=shutil.ignore_patterns("whole.json", "optimizer.pt"))
    resumed = _run(recipe)
    assert digest_file(resumed / WEIGHTS) == digest_file(sft_run / WEIGHTS)
    assert (resumed / "train_log.jsonl").read_text() == (sft_run / "train_log.jsonl").read_text()
    assert len((resumed / "train_log.jsonl").read_text().splitlines()) == 8


def test_a_checkpoint_with_changed_bytes_is_not_whole(tmp_path: Path) -> None:
    from align.run.checkpoints import seal

    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "weights").write_bytes(b"abc")
    assert not is_whole(folder)
    seal(folder)
    assert is_whole(folder)
    (folder / "weights").write_bytes(b"ab")
    assert not is_whole(folder)
    assert last_whole(tmp_path) is None
    assert not folder.exists()


def test_finished_stage_is_not_run_again(sft_run: Path) -> None:
    before = (sft_run / "manifest.json").stat().st_mtime_ns
    assert _run(sft_run.parent / "sft.yaml") == sft_run
    assert (sft_run / "manifest.json").stat().st_mtime_ns == before


def test_outputs_name_no_place_or_time(sft_run: Path) -> None:
    log = [json.loads(line) for line in (sft_run / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, 9))
    assert not {"train_runtime", "epoch"} & set(log[0])
    assert log[-1]["loss"] < log[0]["loss"]
    assert sorted(path.name for path in (sft_run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    ]
    assert str(sft_run) not in (sft_run / "adapter" / "adapter_config.json").read_text()


def test_bad_rows_are_quarantined_with_reasons(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    rows = sft_rows(world)
    whole = world / "images" / rows[0].images[0]
    (whole.parent / "truncated.png").write_bytes(whole.read_bytes()[:-200])
    (whole.parent / "text.png").write_text("I am not an image")
    bad = [
        _row("missing", "train/nowhere.png"),
        _row("truncated", "train/truncated.png"),
        _row("text", "train/text.png"),
        _row("token", rows[0].images[0], "look: <image>"),
        _row("long", rows[0].images[0], "cat " * 400),
        _row("outside", "../annotations/captions_train.json"),
    ]
    recipe = sft_recipe(
        tmp_path,
        base_checkpoint,
        world,
        [*bad, *rows, rows[0]],
        trainer__max_steps=1,
        trainer__max_length=256,
    )
    finished = sft.run(load_recipe(sft.Recipe, recipe))
    lines = [json.loads(line) for line in (finished.final / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["detail"] for line in lines}
    assert {line["id"]: line["where"] for line in lines} == {
        **{row.id: f"line {number}" for number, row in enumerate(bad, 1)},
        rows[0].id: f"line {len(bad) + len(rows) + 1}",
    }
    assert reasons[rows[0].id] == f"its id is that of line {len(bad) + 1}"
    assert "missing image" in reasons["missing"]
    assert "truncated" in reasons["truncated"]
    assert "not an image" in reasons["text"]
    assert "image token" in reasons["token"]
    assert "more than trainer.max_length = 256" in reasons["long"]
    assert "leaves the image root" in reasons["outside"]
    metrics = finished.manifest()["metrics"]
    assert metrics["quarantined"] == {"id": 1, "image": 4, "text": 1, "too long": 1}
    assert metrics["rows"] == len(rows)
    with pytest.raises(AlignError, match=r"bad row: missing image(.|\n)*line 1 missing"):
        sft.run(load_recipe(sft.Recipe, recipe, ["data.strict=true"]))


def test_data_that_cannot_be_trained_on(base_checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="no rows to train on"):
        _run(sft_recipe(tmp_path / "empty", base_checkpoint, tiny_world, []))
    gone = [_row(f"r{i}", f"train/gone{i}.png") for i in range(3)]
    with pytest.raises(AlignError, match=r"no rows to train on; the first bad one, line 1: missing image"):
        _run(sft_recipe(tmp_path / "gone", base_checkpoint, tiny_world, gone))
    assert not (tmp_path / "gone" / "sft").exists()


def test_the_other_stages_rows_are_the_wrong_file(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    turns = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    pair = {"id": "p", "prompt": [{"role": "user", "content": "What?"}], **turns}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    recipe = sft_recipe(tmp_path, base_checkpoint, tiny_world, data__path=str(tmp_path / "pairs.jsonl"))
    with pytest.raises(AlignError, match=r"preference pairs, not instruction rows(.|\n)*`align dpo`"):
        _run(recipe)
    write_rows(tmp_path / "rows.jsonl", [_row("r", "train/0.png")])
    values = {
        "run_dir": tmp_path,
        "model": {"path": str(base_checkpoint)},
        "data": {"path": tmp_path / "rows.jsonl"},
    }
    with pytest.raises(AlignError, match=r"instruction rows, not preference pairs(.|\n)*`align sft`"):
        dpo.run(validate(dpo.Recipe, values, "test"))


def test_a_template_that_never_ends_the_answer_is_refused(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    template = (base_checkpoint / "chat_template.jinja").read_text()
    assert "{{- eos_token }}" in template
    (tmp_path / "endless.jinja").write_text(template.replace("{{- eos_token }}", ""))
    recipe = sft_recipe(
        tmp_path, base_checkpoint, tiny_world, model__chat_template=str(tmp_path / "endless.jinja")
    )
    with pytest.raises(AlignError, match="would never learn to stop"):
        _run(recipe)


def test_accumulation_1x8_equals_8x1(base_checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = []
    for batch, accumulation in ((8, 1), (1, 8)):
        recipe = sft_recipe(
            tmp_path / f"{batch}x{accumulation}",
            base_checkpoint,
            tiny_world,
            lora__lora_dropout=0.0,
            trainer__per_device_train_batch_size=batch,
            trainer__gradient_accumulation_steps=accumulation,
            trainer__optim="sgd",  # Adam would blow up the rounding of near-zero gradients
            trainer__learning_rate=0.5,
            trainer__max_steps=2,
        )
        found.append(load_file(_run(recipe) / WEIGHTS))
    moved = 0.0
    for name, tensor in found[0].items():
        assert (tensor - found[1][name]).abs().max() < 1e-5, name
        moved = max(moved, float(tensor.abs().max()) if "lora_B" in name else 0.0)
    assert moved > 1e-3


def test_shared_images_train_the_same_adapter(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    rows = [
        _row(f"{row.id} {answer}", row.images[0], answer)
        for row in sft_rows(tiny_world)[:3]
        for answer in ("a cat", "No, there is none.")
    ]
    found = {}
    for sharing in ("auto", "off"):
        recipe = sft_recipe(
            tmp_path / sharing,
            base_checkpoint,
            tiny_world,
            rows,
            sharing=sharing,
            lora__lora_dropout=0.0,
            trainer__per_device_train_batch_size=6,  # all of them: the order is another one, the sum the same
            trainer__max_steps=2,
            trainer__optim="sgd",
            trainer__learning_rate=0.5,
        )
        found[sharing] = load_file(_run(recipe) / WEIGHTS)
        said = "read once for its rows in a batch: 6 rows, 3 images" in capsys.readouterr().out
        assert said == (sharing == "auto")
    for name, weight in found["off"].items():
        assert (weight - found["auto"][name]).abs().max() < 1e-5, name


def test_sharing_is_switched_off_as_one_writes_it(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    """And FlexAttention is refused where it cannot train."""
    import torch

    recipe = sft_recipe(tmp_path, base_checkpoint, tiny_world)
    assert load_recipe(sft.Recipe, recipe).sharing == "auto"
    assert load_recipe(sft.Recipe, recipe, ["sharing=off"]).sharing == "off"
    recipe.write_text(recipe.read_text() + "sharing: off\n")
    assert load_recipe(sft.Recipe, recipe).sharing == "off"
    with pytest.raises(AlignError, match="sharing"):
        load_recipe(sft.Recipe, recipe, ["sharing=sometimes"])
    if not torch.cuda.is_available():
        with pytest.raises(AlignError, match="GPUs only"):
            sft.run(load_recipe(sft.Recipe, recipe, ["sharing=flex"]))


def test_qlora_trains_on_a_4_bit_base(base_checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    recipe = sft_recipe(
        tmp_path,
        base_checkpoint,
        tiny_world,
        model__quantization="nf4",
        model__dtype="bfloat16",
        trainer__bf16=True,
        trainer__max_steps=2,
        trainer__optim="paged_adamw_8bit",
    )
    weights = load_file(_run(recipe) / WEIGHTS)
    assert all(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name)
