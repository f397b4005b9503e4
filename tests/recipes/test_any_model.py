"""recipes/pipeline.yaml and recipes/models.yaml: the whole road for any model, and what the table changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.config.model_table import find_model, read_table
from align.errors import RecipeError
from align.pipeline import load_pipeline
from align.planning.recipe_text import with_values
from tests.repository import REPO

ROAD = REPO / "recipes" / "pipeline.yaml"


def recipes(model: str, *more: str) -> dict[str, Any]:
    return {step.name: step.recipe for step in load_pipeline(ROAD, [f"model={model}", *more])}


@pytest.mark.parametrize("name", read_table())
def test_the_road_of_every_model(name: str) -> None:
    known, found = read_table()[name], recipes(name)
    assert found["sft"].model.path == found["sft_merged"].model.path == known.path
    assert found["generate_base"].serve.max_model_len == known.max_model_len
    assert {str(recipe.run_dir) for recipe in found.values()} == {f"runs/{name}"}
    for stage in ("sft", "dpo"):
        assert found[stage].trainer.given()["max_length"] == known.max_length
        assert found[stage].model.chat_template == known.chat_template
        assert known.chat_template is None or known.chat_template.is_file()


def test_what_the_table_says_lies_between_base_and_command_line() -> None:
    found = recipes("llava-hf/llava-1.5-7b-hf")
    assert found["sft"].lora.given()["r"] == 128 and found["dpo"].lora.given()["r"] == 64
    assert recipes("llava_1_5_7b", "sft.lora.r=8")["sft"].lora.given()["r"] == 8
    assert recipes("paligemma2_3b")["dpo"].model.attn_implementation == "eager"
    assert recipes("my-org/My-VLM")["sft"].run_dir == Path("runs/my_vlm")


def test_a_model_must_be_given_and_known() -> None:
    with pytest.raises(RecipeError, match="none is given"):
        load_pipeline(ROAD)
    with pytest.raises(RecipeError, match="did you mean 'qwen3_vl_8b'"):
        find_model("qwen3_vl_9b")


def test_values_are_put_into_text_by_hand() -> None:
    text = "a:\n  b: 1   # why\n\nc: 2\n"
    assert with_values(text, {"a.b": 2e-4, "a.d.e": "x: y"}) == (
        'a:\n  b: 2e-4 # why\n  d:\n    e: "x: y"\n\nc: 2\n'
    )
    assert with_values(text, {"a": None}) == "c: 2\n"
