"""Text-only models through the stages: rows without images, Conv1D layers and a window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align import dpo, merge, sft
from align.config.recipe import load_recipe, validate
from align.errors import AlignError
from align.inputs.text_rows import sequence_ids
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import BaseRow, Message, PreferenceRow, SFTRow, write_rows
from tests.twins import TEXT_TWINS, Twins

PAIRS = [
    ("She go to school.", "She goes to school."),
    ("There is two dogs.", "There are two dogs."),
    ("He have a red ball.", "He has a red ball."),
    ("A bird sit on the tree.", "A bird sits on the tree."),
]
TRAINER = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_steps": 3,
}


def _prompt(wrong: str) -> list[Message]:
    return [Message(role="user", content=f"Correct the sentence: {wrong}")]


def _say(text: str) -> list[Message]:
    return [Message(role="assistant", content=text)]


def instructions() -> list[SFTRow]:
    return [
        SFTRow(id=f"r{n}", messages=[*_prompt(wrong), *_say(right)]) for n, (wrong, right) in enumerate(PAIRS)
    ]


def preferences() -> list[PreferenceRow]:
    return [
        PreferenceRow(id=f"p{n}", prompt=_prompt(wrong), chosen=_say(right), rejected=_say(wrong))
        for n, (wrong, right) in enumerate(PAIRS)
    ]


def _train(stage: Any, run_dir: Path, name: str, model: Path, rows: list[Any], **changes: Any) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    data = run_dir / f"{name}.jsonl"
    written: list[BaseRow] = rows
    write_rows(data, written)
    values = {
        "run_dir": str(run_dir),
        "name": name,
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": str(data)},
        "lora": {"r": 4, "lora_alpha": 8},
        "trainer": TRAINER,
        **changes,
    }
    OmegaConf.save(OmegaConf.create(values), run_dir / f"{name}.yaml")
    return stage.run(load_recipe(stage.Recipe, run_dir / f"{name}.yaml")).final


def _merge(run_dir: Path, name: str, model: Path, adapter: Path, **changes: Any) -> Path:
    values = {
        "run_dir": run_dir,
        "name": name,
        "model": {"path": str(model)},
        "adapter": adapter,
        "serve_check": False,
        **changes,
    }
    return merge.run(validate(merge.Recipe, values, where="test")).final


@pytest.mark.parametrize("name", TEXT_TWINS)
def test_sft_merge_dpo_merge(
    twins: Twins, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each merged checkpoint is verified by the stage itself; here: that both stages learnt something."""
    base = twins(name)
    tuned = _train(sft, tmp_path, "sft", base, instructions())
    merged = _merge(tmp_path, "sft_merged", base, tuned / "adapter") / "checkpoint"
    preferred = _train(dpo, tmp_path, "dpo", merged, preferences())
    final = _merge(tmp_path, "dpo_merged", merged, preferred / "adapter") / "checkpoint"
    shared = "nothing shared: decoder 'gpt2' has not been compared" not in capsys.readouterr().out
    assert shared == (name != "gpt2")
    for stage in (tuned, preferred):
        losses = [json.loads(line)["loss"] for line in (stage / "train_log.jsonl").read_text().splitlines()]
        assert losses[-1] < losses[0]
    metrics = json.loads((final.parent / "manifest.json").read_text())["metrics"]
    assert metrics["lora_modules"] == metrics["weights_changed"] > 0
    assert metrics["merged_logit_difference"] < 1e-4
    assert (final / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    assert type(load_model(ModelSection(path=str(final)))).__name__.endswith(("CausalLM", "LMHeadModel"))


@pytest.mark.parametrize("name", TEXT_TWINS)
def test_the_prompt_keeps_its_ids_and_the_answer_its_text(twins: Twins, name: str) -> None:
    """GPT-2's generation prompt ends in a space, which the answer's first word would take."""
    tokenizer: Any = load_processor(ModelSection(path=str(twins(name))))
    prompt, answer = "USER: Correct it.\nASSISTANT: ", "A cat.<|endoftext|>"
    [[first, second]] = sequence_ids(tokenizer, [(prompt, answer)])
    assert first == tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(first + second) == prompt + answer
    assert sequence_ids(tokenizer, [("A cat.",)]) == [[tokenizer("A cat.")["input_ids"]]]


def test_what_a_text_only_model_cannot_do_is_said(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    base = twins("llama")
    pictured = instructions()[0].model_copy(update={"id": "seen", "images": ["train/0.png"]})
    finished = _train(sft, tmp_path, "sft", base, [pictured, *instructions()])
    [line] = [json.loads(line) for line in (finished / "quarantine.jsonl").read_text().splitlines()]
    why = "the row has images, and the model reads text only"
    assert (line["id"], line["reason"], line["detail"]) == ("seen", "image", why)
    with pytest.raises(AlignError, match="reads text only"):
        verify = {"image_root": tiny_world / "images"}
        _merge(tmp_path, "merged", base, finished / "adapter", verify=verify)
    with pytest.raises(AlignError, match="no vision features to keep"):
        _train(dpo, tmp_path, "dpo", base, preferences(), feature_store={})


def test_a_base_without_a_template_is_refused(twins: Twins, tmp_path: Path) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(twins("gpt2"), base, ignore=shutil.ignore_patterns("chat_template.jinja"))
    with pytest.raises(AlignError, match=r"no chat template(.|\n)*`chat_template`"):
        load_processor(ModelSection(path=str(base)))


def test_objectives_and_the_reference_store_work_without_images(twins: Twins, tmp_path: Path) -> None:
    rows = preferences()
    spans = {"chosen": [{"start": 4, "end": 8, "weight": 3.0}], "rejected": []}
    rows[0] = PreferenceRow.model_validate({**rows[0].model_dump(), "spans": spans, "meta": {"margin": 1.0}})
    objective = {"token_weights": {"gamma": 2.0}, "sft": {"weight": 0.1}}
    finished = _train(
        dpo, tmp_path, "dpo", twins("qwen2"), rows, objective=objective, reference_store={"enabled": True}
    )
    metrics = json.loads((finished / "manifest.json").read_text())["metrics"]
    assert metrics["stores"]["reference"] == {"hits": 8, "misses": 4}
    assert metrics["final_terms/sft"] > 0


@pytest.mark.parametrize("name", TEXT_TWINS)
def test_what_a_row_teaches_is_shown(twins: Twins, name: str, tmp_path: Path) -> None:
    from align.show.tokens import row_tokens

    tokenizer: Any = load_processor(ModelSection(path=str(twins(name))))
    [(_, taught)] = row_tokens(instructions()[0], tokenizer, tmp_path)
    sides = dict(row_tokens(preferences()[0], tokenizer, tmp_path))
    for tokens, words in (
        (taught, PAIRS[0][1]),
        (sides["chosen"], PAIRS[0][1]),
        (sides["rejected"], PAIRS[0][0]),
    ):
        learnt = "".join(token.text * token.count for token in tokens if token.learnt).strip()
        assert learnt == words + tokenizer.eos_token
        assert "Correct the sentence" in "".join(token.text for token in tokens if not token.learnt)
