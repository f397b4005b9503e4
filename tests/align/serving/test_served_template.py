"""PaliGemma's image tokens are written by vLLM, so the template it is given has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.config.model_ref import ModelRef
from align.inputs.chat import openai_messages
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import Message
from align.serving.template import served_template, template_args
from tests.twins import Twins


def test_the_served_prompt_is_the_trained_one_without_image_tokens(twins: Twins, tmp_path: Path) -> None:
    folder = twins("paligemma")
    processor: Any = load_processor(ModelSection(path=str(folder)))
    turns = openai_messages([Message(role="user", content="What is this?")], [b"\x89PNG"])
    for part in turns[0]["content"]:
        if part["type"] == "image_url":
            part["type"] = "image"
    trained, served = (
        processor.apply_chat_template(turns, chat_template=template, add_generation_prompt=True)
        for template in (processor.chat_template, served_template(ModelRef.of(folder)))
    )
    assert "<image>" in trained and served == trained.replace("<image>", "")

    flag, path = template_args(ModelRef.of(folder), tmp_path / "vllm.log")
    assert flag == "--chat-template" and Path(path).read_text() == served_template(ModelRef.of(folder))


def test_other_families_keep_their_template(twins: Twins, tmp_path: Path) -> None:
    assert (
        served_template(ModelRef.of(twins("llava"))) is None
        and served_template(ModelRef.of("some/model")) is None
    )
    assert template_args(ModelRef.of(twins("llava")), tmp_path / "vllm.log") == [] and not list(
        tmp_path.iterdir()
    )


@pytest.mark.parametrize(("name", "told"), [("paligemma", True), ("llava", False)])
def test_soft_capped_attention_that_sdpa_leaves_out_is_told(
    twins: Twins, name: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    load_model(ModelSection(path=str(twins(name))))
    assert ("soft-capped" in "".join(capsys.readouterr())) == told
