"""One setting says whether a model thinks, and templates without a switch hear nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl

from align.config.model_ref import ModelRef
from align.errors import AlignError
from align.inputs.chat import render
from align.models.thinking import (
    always_thinks,
    is_thinking,
    kwargs_of,
    served_kwargs,
    set_thinking,
    special_marks,
    spoken_answer,
    switch_of,
    template_kwargs,
)
from align.rows.messages import Message
from align.rows.thoughts import SWITCHES
from align.serving.client import ChatRequest, request_body
from align.serving.server import Server, ServeSettings, serve
from align.serving.template import template_args
from tests.chat_server import ChatServer
from tests.twins.qwen import qwen3_vl
from tests.twins.templates import QWEN_VL, VICUNA
from tests.twins.thinking import TEMPLATES, set_template

ASKED = [Message(role="user", content="a")]
PROMPTS = {  # off, on
    "qwen3_5": ("a<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "assistant\n<think>\n"),
    "glm4_6v": ("a/nothink<|assistant|>\n<think></think>", "a<|assistant|>"),
    "gemma4": (
        "<bos><|turn>user\na<turn|>\n<|turn>model\n",
        "<|think|>\n<turn|>\n<|turn>user\na<turn|>\n<|turn>model\n",
    ),
}
KIMI = (
    "{{ messages[0].content }}{% if add_generation_prompt %}"
    "{{ '<think>' if thinking else '<think></think>' }}{% endif %}"
)
ALWAYS = "{{ messages[0].content }}{% if add_generation_prompt %}<think>{% endif %}"


@pytest.mark.parametrize("family", TEMPLATES)
def test_it_is_off_unless_the_recipe_says_otherwise(family: str) -> None:
    processor = qwen3_vl().processor
    set_template(processor, family)
    off, on = PROMPTS[family]
    for thinking, wanted in ((None, off), (False, off), (True, on)):
        set_thinking(processor, thinking)
        assert render(processor, ASKED, 0, add_generation_prompt=True).endswith(wanted)
        assert is_thinking(processor) == bool(thinking)
    assert template_kwargs(processor) == {"enable_thinking": True}


@pytest.mark.parametrize("template", [QWEN_VL.template(), VICUNA.template()])
def test_a_template_without_a_switch_is_told_nothing(template: str) -> None:
    assert switch_of(template) is None and kwargs_of(template, None) == kwargs_of(template, False) == {}
    with pytest.raises(AlignError, match="no variable that turns thinking on"):
        kwargs_of(template, True)


def test_the_variable_is_the_templates_own() -> None:
    assert kwargs_of(KIMI, None) == {"thinking": False} and kwargs_of(KIMI, True) == {"thinking": True}
    # one of the template's own by that name is no switch
    assert (
        switch_of("{% for m in messages %}{% set thinking = m.thinking %}{{ thinking }}{% endfor %}") is None
    )
    assert switch_of("{{ thinking") is None


def test_a_template_that_always_thinks_cannot_be_told_not_to() -> None:
    assert always_thinks(ALWAYS) and kwargs_of(ALWAYS, None) == kwargs_of(ALWAYS, True) == {}
    with pytest.raises(AlignError, match="opens a thought in every prompt"):
        kwargs_of(ALWAYS, False)


def test_switches_of_published_templates() -> None:
    """Those that TRL ships, as published."""
    folder = Path(trl.__file__).parent / "chat_templates"
    found = {file.stem: switch_of(file.read_text()) for file in folder.glob("*.jinja")}
    with_switch = {name for name, switch in found.items() if switch == "enable_thinking"}
    assert {
        "qwen3",
        "qwen3_5_think",
        "qwen3_5_nothink",
        "qwen3_6",
        "qwen3_8",
        "gemma4",
        "glm4moe",
    } <= with_switch
    without = (
        "qwen2_5_vl",
        "qwen3_vl",
        "gemma3",
        "llava_next",
        "idefics3",
        "smolvlm",
        "lfm2_2_5_vl",
        "llama3",
    )
    assert [found[name] for name in without] == [None] * len(without)


def write_checkpoint(folder: Path, template: str, special: bool = False) -> ModelRef:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    token = {"id": 1, "content": "<|channel>", "special": special}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [token]}))
    return ModelRef(path=str(folder))


def test_a_server_is_told_with_each_request(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m", TEMPLATES["qwen3_5"])
    assert served_kwargs(model) == {"enable_thinking": False}
    thinking = ModelRef(path=model.path, thinking=True)
    assert served_kwargs(thinking) == {"enable_thinking": True}
    assert template_args(thinking, tmp_path / "log")[-2:] == [
        "--default-chat-template-kwargs",
        '{"enable_thinking": true}',
    ]
    plain = write_checkpoint(tmp_path / "plain", QWEN_VL.template())
    assert served_kwargs(plain) == {} and template_args(plain, tmp_path / "log") == []
    unseen = ModelRef(path="some/model-that-is-not-here")
    assert served_kwargs(unseen) == {}
    assert served_kwargs(ModelRef(path=unseen.path, thinking=True)) == dict.fromkeys(SWITCHES, True)


def test_the_request_has_it_and_nothing_else_has() -> None:
    def body(**fields: Any) -> dict[str, Any]:
        return request_body(Server("http://h/v1", "m", "d", **fields), ChatRequest(ASKED))

    told = body(template_kwargs={"enable_thinking": False}, keeps_marks=True)
    assert told["chat_template_kwargs"] == {"enable_thinking": False} and told["skip_special_tokens"] is False
    assert not {"chat_template_kwargs", "skip_special_tokens"} & body().keys()


def test_marks_that_are_special_tokens_must_be_asked_for(tmp_path: Path) -> None:
    assert special_marks(write_checkpoint(tmp_path / "gemma", "", special=True))
    assert not special_marks(write_checkpoint(tmp_path / "qwen", "", special=False))


def test_a_recipe_that_does_not_say_reads_and_writes_as_before() -> None:
    assert ModelRef(path="a/b").model_dump() == "a/b"
    assert ModelRef(path="a/b", thinking=False).model_dump() == {
        "path": "a/b",
        "revision": None,
        "thinking": False,
    }


@pytest.mark.parametrize(
    ("family", "text", "answer"),
    [
        ("gemma4", "<|channel>thought\nOne, two.<channel|>Two.<turn|>", "Two."),
        ("gemma4", "<|channel>thought\nOne, two.", ""),
        ("gemma4", "Two.<turn|>", "Two."),
        ("qwen3_5", "One, two.</think>\n\nTwo.<|im_end|>", "Two."),
        ("qwen3_5", "<think>One", ""),
        ("qwen3_5", "\nTwo.<|im_end|>", "Two."),
    ],
)
def test_generated_ids_are_read_behind_their_thoughts(family: str, text: str, answer: str) -> None:
    tokenizer = qwen3_vl().tokenizer
    set_template(tokenizer, family)
    assert spoken_answer(tokenizer, tokenizer(text)["input_ids"]) == answer


def test_one_server_answers_with_either_setting(tmp_path: Path) -> None:
    """What a server is told is part of its digest, and so of each answer's key; without a switch, nothing."""
    with ChatServer(lambda _: "Yes") as running:
        settings = ServeSettings(endpoint=running.url)
        found = []
        for name, template in (("m", TEMPLATES["qwen3_5"]), ("plain", QWEN_VL.template())):
            model = write_checkpoint(tmp_path / name, template)
            for thinking in (None, True) if name == "m" else (None,):
                with serve(ModelRef(path=model.path, thinking=thinking), settings, tmp_path) as server:
                    found.append((server.template_kwargs, server.thinks, server.digest == model.digest()))
    assert found == [
        ({"enable_thinking": False}, False, False),
        ({"enable_thinking": True}, True, False),
        ({}, False, True),
    ]
