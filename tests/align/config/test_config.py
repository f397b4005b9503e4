from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from align.config.recipe import StageRecipe, Strict, load_recipe, validate
from align.errors import RecipeError


class Section(Strict):
    learning_rate: float = Field(description="peak learning rate")
    steps: int = 3


class Recipe(StageRecipe):
    name: str = "demo"
    trainer: Section


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_scientific_notation_is_a_number_and_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "run_dir: r\ntrainer: {learning_rate: 5e-6}\n")
    assert load_recipe(Recipe, path).trainer.learning_rate == 5e-6
    assert load_recipe(Recipe, path, ["trainer.learning_rate=1e-4", "seed=7"]).trainer.learning_rate == 1e-4
    assert load_recipe(Recipe, path, ["seed=7"]).seed == 7


def test_unknown_key_names_path_value_and_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "run_dir: r\ntrainer: {learning_rat: 0.1, learning_rate: 0.1}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(Recipe, path)
    assert "'trainer.learning_rat' = 0.1 (did you mean 'learning_rate'?)" in str(error.value)
    assert str(path) in str(error.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "trainer: {steps: many}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(Recipe, path)
    text = str(error.value)
    assert "missing key 'run_dir'" in text
    assert "missing key 'trainer.learning_rate': peak learning rate" in text
    assert "trainer.steps = 'many'" in text


class Near(Strict):
    kind: Literal["near"]
    distance: float = Field(description="how near")


class Far(Strict):
    kind: Literal["far", "near by"]
    light_years: int = 1


class ByKind(StageRecipe):
    moved_keys: ClassVar[Mapping[str, str]] = {"distance": "places.NAME.distance"}

    name: str = "by_kind"
    places: dict[str, Annotated[Near | Far, Field(discriminator="kind")] | None]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            {"kind": "far", "light_year": 2},
            "unknown key 'places.far.light_year' = 2 (did you mean 'light_years'?)",
        ),
        ({"kind": "near"}, "missing key 'places.far.distance': how near"),
        ({"kind": "far", "light_years": "two"}, "places.far.light_years = 'two': "),
        ({"kind": "fra"}, "places.far.kind = 'fra': no such kind (did you mean 'far'?)"),
        ({}, "missing key 'places.far.kind': which kind it is"),
    ],
)
def test_a_fault_in_a_section_of_a_kind_is_named_as_the_recipe_has_it(
    place: dict[str, object], said: str
) -> None:
    """The mapping's name is that of a kind here, which must not be taken for it."""
    with pytest.raises(RecipeError) as error:
        validate(ByKind, {"run_dir": "r", "places": {"far": place}}, "t")
    assert said in str(error.value)


def test_a_key_that_moved_says_where_it_is_now() -> None:
    with pytest.raises(RecipeError, match=r"'distance' is no key any more: it is now places\.NAME\.distance"):
        validate(ByKind, {"run_dir": "r", "places": {}, "distance": 3}, "t")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "''", "a b"])
def test_a_stage_writes_into_its_run_and_nowhere_else(tmp_path: Path, name: str) -> None:
    """Also where the stage gives the field a default of its own, as every stage does."""
    path = write(tmp_path, "run_dir: r\ntrainer: {learning_rate: 1.0}\n")
    with pytest.raises(RecipeError, match="must be one folder's name"):
        load_recipe(Recipe, path, [f"name={name}"])
    assert load_recipe(Recipe, path, ["name=dpo.beta_0.2-b"]).stage_dir == Path("r/dpo.beta_0.2-b")


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "run_dir: ${nowhere}\n"])
def test_broken_files_are_recipe_errors(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(Recipe, write(tmp_path, text))


def test_missing_file_and_bad_override(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(Recipe, tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="not an override"):
        load_recipe(Recipe, write(tmp_path, "run_dir: r\n"), ["=3"])


def test_a_recipe_lies_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("run_dir: r\ntrainer: {learning_rate: 1e-3, steps: 9}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "big.yaml").write_text("base: ../all.yaml\ntrainer: {steps: 2}\n")
    path = write(tmp_path, "base: mine/big.yaml\nseed: 4\n")
    recipe = load_recipe(Recipe, path, ["trainer.steps=3"])
    assert (recipe.seed, recipe.trainer.steps, recipe.trainer.learning_rate) == (4, 3, 1e-3)
    (tmp_path / "all.yaml").write_text("base: recipe.yaml\n")
    with pytest.raises(RecipeError, match="leads back to itself"):
        load_recipe(Recipe, path)
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(Recipe, write(tmp_path, "base: gone.yaml\n"))


def test_a_rule_between_keys_is_told_without_the_whole_section(tmp_path: Path) -> None:
    from align.sft import Recipe

    values = {"run_dir": "runs/x", "model": {"path": "m"}, "data": {"path": "d", "image_root": "i"}}
    with pytest.raises(RecipeError) as error:
        validate(Recipe, {**values, "full": {"components": ["language"]}}, where="sft.yaml")
    assert error.value.what == "method is lora, and full is not read"


def test_the_recipe_that_a_run_writes_can_be_read_again() -> None:
    from align.sft import Recipe

    values = {"run_dir": "runs/x", "model": {"path": "m"}, "data": {"path": "d", "image_root": "i"}}
    recipe = validate(Recipe, values, where="sft.yaml")
    assert validate(Recipe, recipe.model_dump(mode="json"), where="recipe.yaml") == recipe
