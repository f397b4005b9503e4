"""A dev check in a real training: nothing of the training changes, and the right step becomes the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import sft
from align.config.recipe import load_recipe, validate
from align.dev_check import DEV_LOG, DEV_SAMPLES
from align.dev_check.rule import KeepRule, Kept
from align.dev_check.state import DevState
from align.digest import digest_file
from align.errors import AlignError, RecipeError
from align.inputs.chat import render
from align.inputs.images import open_image
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import Message, PromptRow, write_rows
from tests.training_recipes import captions, kill_after_first_checkpoint, sft_recipe

WEIGHTS = Path("adapter") / "adapter_model.safetensors"
KEEP = {"most": "instance_precision_gain", "while": {"vqa": -50.0}, "patience": 3}


def dev_section(world: Path, **changes: Any) -> dict[str, Any]:
    """The tiny world's eight dev pictures, described, and eight questions about them."""
    annotations = world / "annotations"
    return {
        "instances": str(annotations / "instances_dev.json"),
        "captions": str(annotations / "captions_dev.json"),
        "prefix": "dev/",
        "questions": {
            "questions": str(annotations / "questions_dev.json"),
            "annotations": str(annotations / "vqa_dev.json"),
            "file_name": "dev/{image_id:012d}.png",
            "num_questions": 8,
        },
        "every": 3,
        "max_new_tokens": 24,
        "batch_size": 8,
        "samples": 2,
    } | changes


def log_of(folder: Path, name: str = DEV_LOG) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def checked_run(base_checkpoint: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = sft_recipe(
        tmp_path_factory.mktemp("dev"), base_checkpoint, tiny_world, dev=dev_section(tiny_world)
    )
    return sft.run(load_recipe(sft.Recipe, recipe)).final


def test_the_training_is_the_same_as_without(sft_run: Path, checked_run: Path) -> None:
    """With LoRA dropout, so that a draw too many or a mode left behind would show."""
    assert digest_file(checked_run / WEIGHTS) == digest_file(sft_run / WEIGHTS)
    assert (checked_run / "train_log.jsonl").read_text() == (sft_run / "train_log.jsonl").read_text()


def test_the_log_has_every_check_with_intervals(checked_run: Path) -> None:
    log = log_of(checked_run)
    assert [line["step"] for line in log] == [0, 3, 6, 8]
    assert all(one["delta"] == one["ci_low"] == 0 for one in log[0]["all"].values())
    assert {"distinct_invention", "instance_precision", "repeated_captions", "vqa_accuracy"} <= set(
        log[0]["all"]
    )
    for line in log[1:]:
        for view in ("all", "first_half", "second_half"):
            assert all(one["ci_low"] <= one["delta"] <= one["ci_high"] for one in line[view].values())
    samples = log_of(checked_run, DEV_SAMPLES)
    assert [(line["step"], line["id"]) for line in samples] == [
        (step, samples[number]["id"]) for step in (0, 3, 6, 8) for number in (0, 1)
    ]
    record = json.loads((checked_run / "manifest.json").read_text())
    assert record["metrics"]["dev_check"]["checks"] == 4
    assert "kept" not in record["metrics"]
    assert not {"dev_seconds.jsonl"} & {Path(name).name for name in record["outputs"]}


def test_the_last_check_is_what_the_saved_adapter_answers(
    checked_run: Path, base_checkpoint: Path, tiny_world: Path
) -> None:
    """One question at a time, through a merged model that never trained."""
    from peft import PeftModel

    section = ModelSection(path=str(base_checkpoint), dtype="float32")
    processor: Any = load_processor(section)
    merged: Any = PeftModel.from_pretrained(load_model(section), str(checked_run / "adapter"))
    merged = merged.merge_and_unload()
    answers = log_of(checked_run, "logs/dev_answers/step-8.jsonl")
    same = 0
    for line in answers:
        text = render(processor, [Message(role="user", content=line["prompt"])], 1, True)
        image = open_image(tiny_world / "images" / line["images"][0])
        inputs = processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens=False)
        longest = 24 if line["kind"] == "description" else 16
        ids = merged.generate(**inputs, max_new_tokens=longest, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        same += processor.tokenizer.decode(new, skip_special_tokens=True).strip() == line["answer"]
    assert (same, len(answers)) == (16, 16)


@pytest.fixture(scope="module")
def kept_run(base_checkpoint: Path, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = _keeping(tmp_path_factory.mktemp("keep"), base_checkpoint, tiny_world)
    return sft.run(load_recipe(sft.Recipe, recipe)).final


def _keeping(run_dir: Path, base: Path, world: Path, **changes: Any) -> Path:
    changes = {"dev": dev_section(world, level=0.51), "keep": KEEP} | changes
    return sft_recipe(run_dir, base, world, trainer__save_steps=3, **changes)


def test_the_kept_step_becomes_the_adapter(
    base_checkpoint: Path,
    tiny_world: Path,
    checked_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the rule keeps, here the first check after the start, has the weights that it had then."""
    seen: dict[int, dict[str, Any]] = {}
    save = DevState.save_weights

    def keep_a_copy(state: DevState, model: Any, step: int) -> None:
        weights = model.named_parameters()
        seen[step] = {name: value.detach().clone() for name, value in weights if value.requires_grad}
        save(state, model, step)

    def keep_step_3(rule: KeepRule, lines: Sequence[Any]) -> Kept:
        found = next((line for line in lines if line["step"] == 3), None)
        return Kept(3, False, "told to", found["all"]) if found else Kept(0, True, "too early", {})

    monkeypatch.setattr(DevState, "save_weights", keep_a_copy)
    monkeypatch.setattr(KeepRule, "decide", keep_step_3)
    folder = sft.run(load_recipe(sft.Recipe, _keeping(tmp_path, base_checkpoint, tiny_world))).final
    kept = json.loads((folder / "manifest.json").read_text())["metrics"]["kept"]
    assert (kept["step"], kept["nothing"], kept["why"]) == (3, False, "told to")
    written = load_file(folder / WEIGHTS)
    assert len(written) == len(seen[3]) > 0
    for name, value in seen[3].items():
        assert torch.equal(written[name.replace(".default", "")], value), name
    assert any(not torch.equal(seen[0][name], value) for name, value in seen[3].items())
    assert digest_file(folder / WEIGHTS) != digest_file(checked_run / WEIGHTS)


def test_killed_and_resumed_equals_undisturbed(
    kept_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    recipe = _keeping(tmp_path, base_checkpoint, tiny_world)
    kill_after_first_checkpoint("sft", recipe, tmp_path / "sft.partial")
    resumed = sft.run(load_recipe(sft.Recipe, recipe)).final
    for name in (WEIGHTS, DEV_LOG, DEV_SAMPLES, "train_log.jsonl"):
        assert digest_file(resumed / name) == digest_file(kept_run / name), name
    records = [json.loads((run / "manifest.json").read_text()) for run in (resumed, kept_run)]
    assert records[0]["metrics"]["kept"] == records[1]["metrics"]["kept"]
    assert records[0]["outputs"] == records[1]["outputs"] or set(records[0]["outputs"]) == set(
        records[1]["outputs"]
    )


def test_losers_are_deleted_as_they_lose(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.dev_check.state import DevState

    there: list[set[int]] = []
    drop: Callable[..., None] = DevState.drop_losers

    def watched(state: Any, best_at: dict[int, int]) -> None:
        drop(state, best_at)
        there.append({int(path.stem.split("-")[-1]) for path in state._scratch.glob("weights-*.safetensors")})
        assert 0 in there[-1] and list(best_at.values())[-1] in there[-1]

    monkeypatch.setattr(DevState, "drop_losers", watched)
    recipe = _keeping(tmp_path, base_checkpoint, tiny_world, dev=dev_section(tiny_world, every=1, level=0.51))
    folder = sft.run(load_recipe(sft.Recipe, recipe))
    assert max(map(len, there)) <= 4, "the start, the best, and the best at two checkpoints"
    assert not (folder.final / "scratch").exists()


def test_where_nothing_is_kept_the_adapter_does_nothing(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training at no rate gains nothing; patience ends it at the second check."""
    from safetensors.torch import load_file

    recipe = _keeping(
        tmp_path,
        base_checkpoint,
        tiny_world,
        keep={"most": "invention_drop", "patience": 1},
        trainer__learning_rate=0.0,
    )
    folder = sft.run(load_recipe(sft.Recipe, recipe))
    metrics = folder.manifest()["metrics"]
    assert metrics["kept"]["nothing"] and metrics["kept"]["step"] == 0
    assert (metrics["steps"], metrics["dev_check"]["stopped_at"]) == (3, 3)
    assert [line["step"] for line in log_of(folder.final)] == [0, 3]
    tensors = load_file(folder.final / WEIGHTS)
    assert all(not tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    assert "nothing of this training is kept" in capsys.readouterr().out


def test_own_questions_and_a_text_only_model(twins: Any, tmp_path: Path) -> None:
    from align.rows.schema import SFTRow

    path = tmp_path / "own.jsonl"
    write_rows(
        path,
        [
            PromptRow(
                id=f"own{number}",
                prompt=[Message(role="user", content=f"How many is {number} and one?")],
                meta={"answers": [str(number + 1)]},
            )
            for number in range(5)
        ],
    )
    turns = [Message(role="user", content="How many?"), Message(role="assistant", content="two dogs")]
    recipe = sft_recipe(
        tmp_path,
        twins("llama"),
        tmp_path,
        [SFTRow(id=f"row{number}", messages=turns) for number in range(8)],
        dev={"own": {"path": str(path), "max_new_tokens": 4}, "checks": 2, "batch_size": 2},
        data__image_root=None,
        trainer__max_steps=2,
    )
    folder = sft.run(load_recipe(sft.Recipe, recipe))
    log = log_of(folder.final)
    assert [line["step"] for line in log] == [0, 2]
    assert set(log[0]["all"]) == {"own_accuracy"}


def test_dev_pictures_that_are_trained_on_are_refused(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    image = captions(tiny_world)[0][0]
    rows = [
        PromptRow(
            id="own", images=[image], prompt=[Message(role="user", content="?")], meta={"answers": ["x"]}
        )
    ]
    write_rows(tmp_path / "own.jsonl", rows)
    recipe = sft_recipe(
        tmp_path, base_checkpoint, tiny_world, dev={"own": {"path": str(tmp_path / "own.jsonl")}}
    )
    with pytest.raises(AlignError, match="1 dev pictures are trained on"):
        sft.run(load_recipe(sft.Recipe, recipe))


def test_keep_needs_dev_and_dev_needs_questions() -> None:
    base = {"run_dir": "runs", "model": {"path": "base"}, "data": {"path": "rows.jsonl"}}
    with pytest.raises(RecipeError, match="keep chooses among the checks of `dev`"):
        validate(sft.Recipe, base | {"keep": {"most": "invention_drop"}}, where="recipe")
    with pytest.raises(RecipeError, match="nothing is asked"):
        validate(sft.Recipe, base | {"dev": {}}, where="recipe")
    with pytest.raises(RecipeError, match=r"keep\.most.*did you mean 'invention_drop'"):
        validate(
            sft.Recipe,
            base | {"dev": {"instances": "x.json"}, "keep": {"most": "invention_drops"}},
            where="recipe",
        )


def test_help_and_errors_speak_of_while(capsys: pytest.CaptureFixture[str]) -> None:
    from align.cli import main

    with pytest.raises(SystemExit):
        main(["dpo", "--help"])
    told = capsys.readouterr().out
    assert "keep.while (default {})" in told and "keep.most (required)" in told
    assert "dev.questions.num_questions (default 100)" in told and "instance_precision" in told
    keep = {"most": "invention_drop", "whilst": {}}
    base = {"run_dir": "runs", "model": {"path": "base"}, "data": {"path": "rows.jsonl"}}
    with pytest.raises(RecipeError, match=r"unknown key 'keep\.whilst'.*did you mean 'while'"):
        validate(sft.Recipe, base | {"dev": {"instances": "x.json"}, "keep": keep}, where="recipe")


def test_fewer_checks_where_they_would_take_too_much() -> None:
    from align.dev_check.cost import Cost, check_steps
    from align.dev_check.recipe import DevSection

    section = DevSection(instances=Path("x.json"))
    cheap, dear = Cost(row=1.0, check=1.0), Cost(row=1.0, check=100.0)
    assert check_steps(section, cheap, 100, 10) == [0, 14, 29, 43, 57, 71, 86, 100]
    # 5 checks of 100 in 1,000 units of training are a third of the run: at most three are made
    assert check_steps(section, dear, 100, 10) == [0, 50, 100]
    assert check_steps(section.model_copy(update={"every": 40}), dear, 100, 10) == [0, 40, 80, 100]
    assert check_steps(section, cheap, 3, 10) == [0, 1, 2, 3]
    assert Cost(1.0, 10.0).share(8, 50, 16) == pytest.approx(80 / 880)
