"""What an error before training tells the user to set is set, and the stage then trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align import dpo, sft
from align.config.recipe import load_recipe
from align.errors import AlignError
from align.inputs import image_tokens
from align.inputs.budget import TokenBudget
from align.inputs.training_data import DataSection, check_rows
from align.models.loading import ModelSection, load_processor
from align.rows.schema import SFTRow, write_rows
from align.run.folder import RunFolder
from align.training.loop import sharing_config
from tests.training_recipes import dpo_recipe, sft_recipe, sft_rows
from tests.twins import Twins

COUNTED = TokenBudget.lengths


def without_a_rule(patch: pytest.MonkeyPatch) -> str:
    """As a family whose image tokens nobody has written down; what the error says."""
    patch.setattr(image_tokens, "processor_facts", lambda processor: None)
    return "no rule how many tokens an image takes in LlavaProcessor"


def with_a_wrong_rule(patch: pytest.MonkeyPatch) -> str:
    """As a processor that makes one token fewer than counted; what the error says."""
    patch.setattr(TokenBudget, "lengths", lambda self, asked: [one + 1 for one in COUNTED(self, asked)])
    return r"the token budget counted \d+ tokens, the processor made"


@pytest.mark.parametrize("fault", [without_a_rule, with_a_wrong_rule])
@pytest.mark.parametrize(("stage", "recipe_of"), [(sft, sft_recipe), (dpo, dpo_recipe)])
def test_rows_that_cannot_be_counted_train_without_a_longest_row(
    stage: Any,
    recipe_of: Any,
    fault: Callable[[pytest.MonkeyPatch], str],
    twins: Twins,
    tiny_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = fault(monkeypatch)
    path = recipe_of(tmp_path, twins("llava"), tiny_world, trainer__max_steps=1)
    recipe = load_recipe(stage.Recipe, path)
    with pytest.raises(AlignError, match=said) as caught:
        stage.run(recipe)
    advised = "trainer.max_length: null"
    assert advised in caught.value.fix
    folder = stage.run(load_recipe(stage.Recipe, path, [advised.replace(": ", "=")]))
    assert folder.manifest()["metrics"]["rows"] == 24


def test_bad_rows_are_passed_over_where_they_need_not_be_none(
    twins: Twins, tiny_world: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = sft_rows(tiny_world)[:2]
    write_rows(path, [rows[0], rows[1].model_copy(update={"images": ["gone.png"]})])
    recipe = load_recipe(sft.Recipe, sft_recipe(tmp_path, twins("llava"), tiny_world))
    section = DataSection(path=path, image_root=tiny_world / "images", strict=True)
    processor = load_processor(ModelSection(path=str(twins("llava"))))
    with RunFolder.open(recipe, {"data": path}) as folder:
        with pytest.raises(AlignError, match=r"bad row.*gone\.png") as caught:
            check_rows(SFTRow, section, processor, 512, folder)
        assert "data.strict: false" in caught.value.fix
        patient = section.model_copy(update={"strict": False})
        assert [row.id for row in check_rows(SFTRow, patient, processor, 512, folder).rows] == ["row0"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="FlexAttention works here")
def test_what_needs_a_gpu_says_what_does_not() -> None:
    with pytest.raises(AlignError, match="GPUs only") as caught:
        sharing_config("flex")
    assert caught.value.fix == "set sharing: auto"
    assert sharing_config("auto").mode == "auto"
