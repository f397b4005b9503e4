"""Methods as recipes: what each says of itself, that it builds for both models, and a line of the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.config.recipe import load_recipe, validate
from align.dpo import Recipe as DPORecipe
from align.pipeline import load_pipeline
from align.pipeline.load import Step
from align.rows.schema import Candidate, Claim, Message, Verdict, read_rows, write_rows
from align.rows.schema import PreferenceRow as Pair
from benchmarks import methods as bench
from benchmarks.dev_table import SHOWN
from benchmarks.methods import RECIPES, Row, method_pipeline, methods, show
from data_tools.material.claims import split_objects
from tests.recipes.test_recipes import NUM_METHODS
from tests.recipes.test_recipes_build import STAGES, check, rows, trainer_of
from tests.repository import REPO
from tests.training_recipes import captions
from tests.twins import Twins

__all__ = ["rows"]

FILES = sorted(RECIPES.glob("*.yaml"))
TWIN_OF = {
    "llava-hf/llava-1.5": "llava",
    "Qwen/Qwen2.5-VL": "qwen2_5_vl",
    "llava-hf/llava-v1.6": "llava_next",
}
CAP = 512


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recipes name chat templates relative to it."""
    monkeypatch.chdir(REPO)
    yield


def trainings(path: Path) -> list[Step]:
    """One round's trainings."""
    steps = load_pipeline(path, ["rounds=1"] if "rlaif_v" in path.stem else [])
    return [step for step in steps if step.stage.name in STAGES]


CASES = [(path, step.name) for path in FILES for step in trainings(path)]


def test_a_recipe_a_method_for_the_world_and_for_7b() -> None:
    assert len(methods()) == NUM_METHODS
    assert [path.stem for path in FILES] == sorted([*methods(), *(f"{name}_7b" for name in methods())])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_head_says_paper_command_and_what_is_not_the_authors(path: Path) -> None:
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(r"arXiv \d{4}\.\d{5}", head) and f"align run recipes/methods/{path.name}" in head
    words = " ".join(head.replace("#", " ").split())
    wanted = ["Authors' protocol", "Not theirs:"]
    wanted += (
        ["built in a test, not run"] if path.stem.endswith("_7b") else ["Pairs:", "Needs:", "Cost", "Loss:"]
    )
    assert [text for text in wanted if text not in words] == []


@pytest.mark.parametrize("name", methods())
def test_methods_meet_on_equal_terms(name: str) -> None:
    """The quickstart's rate, LoRA, batch and look at dev; the last step is the result; as many pairs."""
    quickstart = load_recipe(DPORecipe, "recipes/quickstart/dpo.yaml")
    steps = trainings(RECIPES / f"{name}.yaml")
    for step in steps:
        recipe: Any = step.recipe
        assert recipe.keep is None and recipe.dev.instances.parent == Path(
            "runs/quickstart/scenes/annotations"
        )
        assert recipe.lora.given() == quickstart.lora.given()
        if step.stage.name == "dpo":
            trainer = recipe.trainer.given()
            same = ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "lr_scheduler_type")
            assert [trainer[key] for key in same] == [quickstart.trainer.given()[key] for key in same]
            assert trainer["loss_type"] == ["sigmoid"]
    assert steps[-1].name == "dpo" and len({step.recipe.dev.num_pictures for step in steps}) == 1  # type: ignore[attr-defined]
    makers: list[Any] = [s.recipe for s in load_pipeline(RECIPES / f"{name}.yaml")]
    assert [recipe.max_pairs for recipe in makers if getattr(recipe, "max_pairs", None)] == [CAP]


@pytest.mark.parametrize(("path", "name"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_every_training_builds(
    path: Path, name: str, rows: Path, twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(step for step in trainings(path) if step.name == name)
    stage = STAGES[step.stage.name]
    recipe: Any = step.recipe
    base = next((twin for start, twin in TWIN_OF.items() if start in path.read_text()), None)
    assert (base is None) == (not path.stem.endswith("_7b"))
    pairs = tmp_path / "pairs.jsonl"
    made = [
        row.model_copy(update={"rejected_images": row.images, "meta": {"margin": 1.0}})
        for row in read_rows(Pair, rows / "dpo.jsonl")
    ]
    write_rows(pairs, made)
    changes = {
        "run_dir": str(tmp_path),
        "model": {"path": str(REPO / "assets" / "base" if base is None else twins(base))},
        "data": {
            "path": str(pairs if stage is STAGES["dpo"] else rows / "sft.jsonl"),
            "image_root": str(rows),
        },
        "dev": None,
    }
    given = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    values: Any = OmegaConf.to_container(OmegaConf.merge(given, changes))
    built = validate(stage.Recipe, values, where=str(path))

    check(trainer_of(stage, built, monkeypatch), built)


def quickstart_run(root: Path, world: Path, base: Path) -> Path:
    """A quickstart's run folder up to `judge`: the tiny world, its base, and judged answers by hand."""
    for folder in ("sft_merged", "sample", "judge"):
        (root / folder).mkdir(parents=True)
    (root / "scenes").symlink_to(world)
    (root / "sft_merged" / "checkpoint").symlink_to(base)
    answers: list[Candidate] = []
    verdicts: list[Verdict] = []
    for place, (image, text) in enumerate(captions(world)):
        true = [claim(name, 0.9) for name in split_objects(text, "strict") if name != "toilet"]
        for number, said in enumerate((text, f"{text[:-1]} and a toilet.")):
            row = Candidate(
                id=f"train-{place:03}#{number}",
                prompt_id=f"train-{place:03}",
                images=[image],
                prompt=[Message(role="user", content="Please describe this image in detail.")],
                text=said,
                finish_reason="stop",
                num_tokens=len(said.split()),
                meta={"split": "train"},
            )
            answers.append(row)
            verdicts.append(
                Verdict(
                    candidate_id=row.id,
                    prompt_id=row.prompt_id,
                    judge="j",
                    prompt_sha256="p",
                    score=-float(number),
                    claims=[*true, *([claim("toilet", 0.1)] * number)],
                )
            )
    write_rows(root / "sample" / "candidates.jsonl", answers)
    write_rows(root / "judge" / "verdicts.jsonl", verdicts)
    agreement = {"balanced_accuracy": {"value": 0.9, "ci_low": 0.8, "ci_high": 1.0}}
    (root / "judge" / "agreement.json").write_text(json.dumps(agreement))
    return root


def claim(name: str, p_yes: float) -> Claim:
    return Claim(text=name, question="?", category=name, p_yes=p_yes, p_no=1 - p_yes)


SMALL = ["num_pictures=8", "questions.num_questions=8", "max_new_tokens=24", "batch_size=8"]


@pytest.mark.slow
def test_opa_dpo_runs_to_its_line_in_the_table(
    base_checkpoint: Path, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings and a merge between them; the change is from before the first to after the last."""
    run_dir = quickstart_run(tmp_path / "run", tiny_world, base_checkpoint)
    words = [f"{stage}.{key}" for stage in ("opa", "dpo") for key in (f"dev.{one}" for one in SMALL)]
    words += [f"{stage}.trainer.max_steps=2" for stage in ("opa", "dpo")]
    words += ["opa_merged.verify.num_images=2", "opa_merged.verify.max_tokens=8"]

    def small(name: str, folder: Path, seed: int = 0) -> Any:
        return method_pipeline(name, folder, seed, words)

    monkeypatch.setattr(bench, "method_pipeline", small)
    bench.main([str(run_dir), "--only", "opa_dpo"])
    table = (run_dir / "methods" / "table.md").read_text().splitlines()
    assert table[2].startswith("| start |") and table[3].startswith("| opa_dpo | ")
    bench.main([str(run_dir), "--only", "no_such_method"])
    assert (run_dir / "methods" / "table.md").read_text().splitlines() == table, "what is done stays"
    row = bench.measured("opa_dpo", small("opa_dpo", run_dir))
    assert row.steps == (2, 2) and row.pairs[0] == row.pairs[1] > 0 and not row.error
    assert row.start is not None and row.end is not None
    opa, dpo = (run_dir / "methods" / "opa_dpo" / name / "dev_log.jsonl" for name in ("opa", "dpo"))
    first, last = json.loads(opa.read_text().splitlines()[0]), json.loads(dpo.read_text().splitlines()[-1])
    for name, change in row.end.items():
        assert row.start[name]["value"] == first["all"][name]["value"]
        assert change["value"] == last["all"][name]["value"]
        assert change["delta"] == pytest.approx(change["value"] - row.start[name]["value"], abs=1e-3)
    one, _ = bench.changes(
        small("opa_dpo", run_dir).steps[1].recipe, small("opa_dpo", run_dir).steps[1].recipe
    )
    assert one == first["all"], "within one training the table is what its own log says"


def test_the_table_tells_the_start_once_and_errors_by_name() -> None:
    same = {name: {"value": 50.0, "delta": 0.0, "ci_low": 0.0, "ci_high": 0.0} for name in SHOWN}
    end = {**same, "object_recall": {"value": 48.04, "delta": -1.96, "ci_low": -4.0, "ci_high": 0.2}}
    del end["words"]
    made = [
        Row("one", error="no run"),
        Row("two", (512, 512), (64, 32), same, end),
        Row("three", (9,), (1,), same, same),
    ]
    lines = show(made).splitlines()
    assert lines[0].startswith("| method | rows | steps | invented | CHAIRs | recall |")
    assert lines[2].split(" | ")[:4] == ["| start", "", "", "50.0"]
    assert lines[3] == "| one | no run |"
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells[:3] == ["two", "512 + 512", "64 + 32"] and cells[5] == "48.0 (-2.0 [-4.0, +0.2])"
    assert cells[3 + list(SHOWN).index("words")] == "" and len(lines) == 6
