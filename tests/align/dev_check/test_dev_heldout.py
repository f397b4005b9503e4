"""Held-out rows: who is held out, what the loss on them is, and what it decides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import load_recipe, validate
from align.dev_check.heldout import HeldoutItem, groups_of, heldout_values, hold_out
from align.dev_check.recipe import DevSection, KeepSection
from align.dev_check.rule import KeepRule
from align.dev_check.scores import Scorer, measures_of
from align.digest import digest_file
from align.errors import AlignError, RecipeError
from align.inputs.training_data import CheckedRows, DataSection
from align.rows.schema import Message, SFTRow, write_rows
from tests.align.dev_check.test_keep_rule import change, own_question
from tests.training_recipes import dpo_recipe, kill_after_first_checkpoint, preference_rows, sft_recipe
from tests.twins import Twins


def row(name: str, *images: str) -> SFTRow:
    turns = [Message(role="user", content="What?"), Message(role="assistant", content="A dog.")]
    return SFTRow(id=name, images=list(images), messages=turns)


def checked(rows: list[SFTRow]) -> CheckedRows[SFTRow]:
    return CheckedRows(rows=rows, lengths=list(range(len(rows))))


def never(data: DataSection, name: str) -> CheckedRows[SFTRow]:
    raise AssertionError("no file is read")


def section(**heldout: Any) -> DevSection:
    return DevSection.model_validate({"heldout": heldout})


DATA = DataSection(path=Path("rows.jsonl"))


def test_rows_that_share_a_picture_by_way_of_a_third_are_one_group() -> None:
    rows = [row("1", "a"), row("2", "b"), row("3", "b", "a"), row("4", "c"), row("5"), row("6")]
    assert groups_of(rows, None) == ["a", "a", "a", "c", "row 5", "row 6"]


def test_a_share_is_taken_out_by_picture() -> None:
    rows = [row(f"{picture}.{n}", f"{picture}.png") for picture in range(20) for n in range(3)]
    rest, heldout = hold_out(section(share=0.1), DATA, checked(rows), never)
    assert heldout is not None
    assert (len(heldout.rows), len(rest.rows)) == (6, 54)
    assert not {own.images[0] for own in heldout.rows} & {own.images[0] for own in rest.rows}
    assert [rows[length] for length in rest.lengths] == rest.rows
    assert [rows[length] for length in heldout.lengths] == list(heldout.rows)
    again = hold_out(section(share=0.1), DATA, checked(rows[::-1]), never)[1]
    assert again is not None and {own.id for own in again.rows} == {own.id for own in heldout.rows}
    capped = hold_out(section(share=0.5, num_rows=9), DATA, checked(rows), never)[1]
    assert capped is not None and len(capped.rows) == 9


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="none is left to train on"):
        hold_out(section(share=0.1), DATA, checked([row("1", "a"), row("2", "a")]), never)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    data = DataSection(path=Path("rows.jsonl"), image_root=tmp_path)
    own = checked([row("1", "a"), row("2", "b")])
    with pytest.raises(AlignError, match="1 held-out rows are trained on, a first"):
        hold_out(section(path="h.jsonl"), data, own, lambda *_: checked([row("9", "a")]))
    base = {"run_dir": "runs", "model": {"path": "base"}, "data": {"path": "rows.jsonl"}}
    from align import sft

    for wrong, words in (({}, "share or path"), ({"share": 0.1, "path": "x"}, "share or path")):
        with pytest.raises(RecipeError, match=words):
            validate(sft.Recipe, base | {"dev": {"heldout": wrong}}, where="recipe")


def test_the_loss_of_a_pair_by_hand() -> None:
    start = {"chosen_logp": -10.0, "rejected_logp": -12.0}
    now = {"chosen_logp": -8.0, "rejected_logp": -15.0}
    values = heldout_values(now, start, 0.1)
    assert values["heldout_margin"] == pytest.approx(0.1 * (2.0 + 3.0))
    assert values["heldout_loss"] == pytest.approx(-math.log(1 / (1 + math.exp(-0.5))))
    assert values["heldout_right"] == 1.0
    worse = heldout_values(start, now, 0.1)
    assert worse["heldout_loss"] == pytest.approx(-math.log(1 / (1 + math.exp(0.5))))
    assert worse["heldout_right"] == 0.0


def test_each_half_has_questions_and_held_out_rows() -> None:
    rows = [HeldoutItem(f"h{n}", "answer", f"heldout {n}.png") for n in range(2)]
    items = [*(own_question(f"q{n}") for n in range(8)), *rows]
    start = [{"own_right": 1.0, "own_asked": 1.0}] * 8 + [{"heldout_loss": 6.0, "heldout_terms": 3.0}] * 2
    now = start[:8] + [{"heldout_loss": 3.0, "heldout_terms": 3.0}] * 2
    assert [measure.name for measure in measures_of(items)] == ["own_accuracy", "heldout_loss"]
    views = Scorer(items, 0.95, start).changes(now)
    for view in ("all", "first_half", "second_half"):
        assert (views[view]["heldout_loss"].value, views[view]["heldout_loss"].delta) == (1.0, -1.0)


def loss_line(step: int, loss: float, invention: float = 0.0) -> dict[str, Any]:
    views = {"heldout_loss": change(loss, se=0.01, start=2.0), "distinct_invention": change(invention)}
    return {"step": step, **{view: dict(views) for view in ("all", "first_half", "second_half")}}


def test_early_stopping_by_held_out_loss() -> None:
    lines = [loss_line(0, 0.0), loss_line(10, -0.2), loss_line(20, -0.3), loss_line(30, -0.25)]
    lines.append(loss_line(40, -0.1))
    rule = KeepRule("heldout_loss_drop", {}, patience=2)
    assert rule.stops(lines[:4]) is None and rule.stops(lines) == 40
    kept = rule.decide(lines)
    assert kept.step == 20
    assert kept.why == "most heldout loss drop with every limit held: -0.3000 [-0.3196, -0.2804]"


def test_the_end_by_loss_and_the_choice_by_answers() -> None:
    """Invention goes on falling, so its own patience would not end the run."""
    lines = [loss_line(10 * n, loss, -5.0 * n) for n, loss in enumerate((0.0, -0.2, -0.1, 0.1))]
    plain = KeepRule("invention_drop", {}, patience=2)
    rule = KeepRule("invention_drop", {"heldout_loss": 0.05}, patience=2, patience_on="heldout_loss_drop")
    assert plain.stops(lines) is None and rule.stops(lines) == 30
    assert (plain.decide(lines).step, rule.decide(lines).step) == (30, 20)
    with pytest.raises(AlignError, match=r"does not measure heldout_loss(.|\n)*dev\.heldout"):
        rule.check(["distinct_invention"])
    with pytest.raises(ValueError, match="patience_on is read by patience"):
        KeepSection.model_validate({"most": "invention_drop", "patience_on": "heldout_loss_drop"})


def test_a_check_without_the_measure_is_not_kept() -> None:
    missing = loss_line(20, -0.5, -9.0)
    for view in ("all", "first_half", "second_half"):
        del missing[view]["heldout_loss"]
    rule = KeepRule("invention_drop", {"heldout_loss": 0.05})
    kept = rule.decide([loss_line(0, 0.0), loss_line(10, 0.0, -4.0), missing])
    assert kept.step == 10
    assert kept.to_json()["refused"]["20"] == ["heldout_loss was not measured at this check"]


def _log(folder: Path) -> list[dict[str, Any]]:
    from tests.align.dev_check.test_dev_check import log_of

    return log_of(folder)


def test_the_loss_of_sft_is_that_of_the_model(twins: Twins, tiny_world: Path, tmp_path: Path) -> None:
    """Against transformers' own loss, a row at a time, of a model that was loaded anew."""
    import torch
    from peft import PeftModel

    from align import sft
    from align.inputs.training_data import lazy_dataset
    from align.models.loading import ModelSection, load_model, load_processor
    from align.trainers.answer_labels import AnswerCollator
    from tests.training_recipes import sft_rows

    rows = sft_rows(tiny_world)
    heldout = [own.model_copy(update={"id": f"h{n}"}) for n, own in enumerate(rows[8:12])]
    write_rows(tmp_path / "heldout.jsonl", heldout)
    recipe = sft_recipe(
        tmp_path,
        twins("llava"),
        tiny_world,
        rows[:8],
        dev={"heldout": {"path": str(tmp_path / "heldout.jsonl"), "batch_size": 3}, "checks": 2},
        trainer__max_steps=2,
    )
    folder = sft.run(load_recipe(sft.Recipe, recipe)).final
    log = _log(folder)
    assert [line["step"] for line in log] == [0, 2]
    base = ModelSection(path=str(twins("llava")), dtype="float32")
    processor: Any = load_processor(base)
    model: Any = PeftModel.from_pretrained(load_model(base), str(folder / "adapter")).eval()
    data = DataSection(path=Path("x"), image_root=tiny_world / "images")
    examples: Any = lazy_dataset(heldout, data, processor)
    collate = AnswerCollator(processor, assistant_only_loss=True)
    lost = tokens = 0.0
    for number in range(4):
        batch = collate([examples[number]])
        count = int((batch["labels"][:, 1:] != -100).sum())
        with torch.no_grad():
            lost += float(model(**batch).loss) * count
        tokens += count
    assert log[1]["all"]["heldout_loss"]["value"] == pytest.approx(lost / tokens, abs=2e-4)
    assert log[1]["all"]["heldout_loss"]["delta"] < 0


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_dpo_starts_at_ln_2_and_resumes_alike(
    twins: Twins, tiny_world: Path, tmp_path: Path, sharing: str
) -> None:
    from align import dpo

    logs, finals = [], []
    for name in ("whole", "killed") if sharing == "auto" else ("whole",):
        recipe = dpo_recipe(
            tmp_path / name,
            twins("llava"),
            tiny_world,
            preference_rows(tiny_world)[:16],
            dev={"heldout": {"share": 0.25}, "every": 2},
            keep={"most": "heldout_loss_drop", "while": {"heldout_accuracy": -5.0}},
            sharing=sharing,
            trainer__max_steps=4,
            trainer__learning_rate=1e-2,
        )
        if name == "killed":
            kill_after_first_checkpoint("dpo", recipe, tmp_path / name / "dpo.partial")
        folder = dpo.run(load_recipe(dpo.Recipe, recipe))
        finals.append(folder.final)
        logs.append(digest_file(folder.final / "dev_log.jsonl"))
        assert folder.manifest()["metrics"]["rows"] == 12
    first, *_, last = _log(finals[-1])
    assert first["all"]["heldout_loss"]["value"] == pytest.approx(math.log(2), abs=1e-4)
    assert (first["all"]["heldout_accuracy"]["value"], first["all"]["heldout_margin"]["value"]) == (50.0, 0.0)
    assert last["all"]["heldout_margin"]["value"] != 0.0
    assert len(set(logs)) == 1
