"""`align doctor MODEL` on a sound checkpoint, and on the same with one thing broken at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from align.doctor.check import Check
from align.doctor.checkpoint import check_checkpoint
from tests.twins import Twins


def by_name(path: Path) -> dict[str, Check]:
    return {f"{check.group}: {check.name}": check for check in check_checkpoint(str(path))}


@pytest.fixture
def copy(twins: Twins, tmp_path: Path) -> Path:
    return Path(shutil.copytree(twins("qwen2_vl"), tmp_path / "model"))


def changed(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_sound_checkpoint(twins: Twins, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(twins("qwen2_vl"))]) == 0
    said = "".join(capsys.readouterr())
    for words in (
        "qwen2_vl, known",
        "14 of 14 weight matrices",
        "a row is the served prompt and its answer",
        "'A red ball on a table.<|im_end|>'",
        "counted as the processor makes them, on 5 sizes",
        "dpo, QLoRA",
        "answers to one prompt are computed behind it once",
        "vLLM has Qwen2VLForConditionalGeneration",
        "It can be trained and served.",
    ):
        assert words in said, words


def test_a_text_only_model_has_no_pictures(twins: Twins) -> None:
    found = by_name(twins("qwen2"))
    assert {check.status for check in found.values()} <= {"ok", "warn"}
    assert not any(name.startswith("pictures") for name in found) and "LoRA: vision" not in found


def test_layers_that_are_never_read_are_said(twins: Twins) -> None:
    assert "never read by the model: self_attn.k_proj 1" in by_name(twins("llava"))["LoRA: vision"].found


def test_a_template_that_does_not_learn_the_end_of_the_turn(copy: Path) -> None:
    template = copy / "chat_template.jinja"
    text = template.read_text()
    ended = "{{- words(message['content']) + '<|im_end|>' }}{%- endgeneration %}"
    assert ended in text
    template.write_text(
        text.replace(ended, "{{- words(message['content']) }}{%- endgeneration %}{{- '<|im_end|>' }}")
    )
    found = by_name(copy)["rows: what is learnt"]
    assert found.status == "fail" and "not the end of the turn (<|im_end|>)" in found.found


def test_a_template_whose_prompt_is_not_what_is_served(copy: Path) -> None:
    template = copy / "chat_template.jinja"
    asks = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    assert asks in template.read_text()
    template.write_text(template.read_text().replace(asks, asks.replace("\\n", " ")))
    found = by_name(copy)["rows: prompt and answer"]
    assert found.status == "fail"
    assert "assistant '" in found.fix and "assistant\\nA red ball on a" in found.fix


def test_shards_that_are_missing_and_weights_that_are_pickled(copy: Path) -> None:
    index = {
        "metadata": {},
        "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    found = by_name(copy)["files: weights"]
    assert found.status == "fail" and "missing model-00002-of-00002.safetensors" in found.found
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    found = by_name(copy)["files: weights"]
    assert found.status == "fail" and found.fix == "only safetensors are loaded; convert pytorch_model.bin"


def test_an_unknown_family_is_shown_as_it_would_be_confirmed(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.models.families import FAMILIES

    monkeypatch.delitem(FAMILIES, "qwen2_vl")
    (found,) = check_checkpoint(str(copy))
    assert found.status == "fail" and "vision model.visual.blocks" in found.found
    assert 'language: "model.language_model"' in found.fix


def test_a_broken_folder_is_a_line_and_not_a_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{")
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    answer = json.loads("".join(capsys.readouterr()).strip().splitlines()[-1])
    assert answer["works"] is False and answer["checks"][0]["status"] == "fail"


def test_a_processor_that_is_missing(copy: Path) -> None:
    for path in copy.glob("*processor_config.json"):
        path.unlink()
    found = by_name(copy)
    assert found["rows: rows"].status == "fail" and "processor" in found["rows: rows"].found
    assert found["LoRA: language"].status == "ok"
