"""GQA, templates, conversations through a model, caps and hold-out, on a small world."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.rows.schema import Message, PromptRow, SFTRow, read_rows
from align.rows.tally import Tally
from data_tools.instructions.caps import Caps, within_caps
from data_tools.instructions.conversations import read_conversation
from data_tools.instructions.gqa import Gqa, GqaQuestion, capped
from data_tools.instructions.stage import Recipe, run
from data_tools.instructions.templates import _exists, load_counts
from data_tools.material.co_occurrence import CoOccurrence
from tests.chat_server import ChatServer


def base(world: Path, run_dir: Path) -> dict[str, Any]:
    return {
        "run_dir": run_dir,
        "image_root": world / "images",
        "images": {"annotations": world / "annotations" / "instances_train.json", "prefix": "train/"},
    }


def rows_of(fields: dict[str, Any]) -> tuple[list[SFTRow], Path]:
    folder = run(validate(Recipe, fields, "test")).final
    return list(read_rows(SFTRow, folder / "instructions.parquet")), folder


def test_gqa_in_short_and_in_full(tiny_world: Path, tmp_path: Path) -> None:
    shutil.copy(next((tiny_world / "images" / "train").glob("*.png")), tmp_path / "n1.png")
    types = {"structural": "verify", "detailed": "existTrue"}
    questions = {
        "1": {
            "question": "Is it red?",
            "imageId": "n1",
            "answer": "yes",
            "fullAnswer": "Yes, it is.",
            "types": types,
        },
        "2": {"question": "Is it big?", "imageId": "n1", "answer": "no", "fullAnswer": "No.", "types": types},
        "3": {"question": "Is it old?", "imageId": "n1", "answer": "no", "types": types},
        "4": {"question": "Gone?", "imageId": "n2", "answer": "yes", "types": types},
    }
    typed = {key: row | {"types": types} for key, row in questions.items()}
    (tmp_path / "gqa.json").write_text(json.dumps(typed))
    section = {
        "kind": "gqa",
        "questions": tmp_path / "gqa.json",
        "suffix_of_files": ".png",
        "suffix": " Briefly.",
    }
    fields = base(tiny_world, tmp_path / "run") | {"image_root": tmp_path}
    short, folder = rows_of(fields | {"sources": {"gqa": section | {"full_share": 0}}})
    assert len(short) == 1 and len(short[0].messages) == 4 and short[0].images == ["n1.png"]
    assert short[0].messages[0].text.endswith("? Briefly.")
    assert {turn.text for turn in short[0].messages[1::2]} <= {"Yes", "No"}
    dropped = json.loads((folder / "dropped.json").read_text())["gqa"]["dropped"]
    assert {reason: item["count"] for reason, item in dropped.items()} == {
        "image cannot be used": 1,
        "more than max_per_task": 1,
    }
    section = section | {"full_share": 1, "max_per_task": None}
    full, _ = rows_of(fields | {"name": "full", "sources": {"gqa": section}})
    assert {turn.text for turn in full[0].messages[1::2]} == {"Yes, it is.", "No.", "no"}
    (tmp_path / "gqa.json").write_text(json.dumps({"1": {"question": "?"}}))
    with pytest.raises(AlignError, match="missing field 'imageId'"):
        rows_of(fields | {"name": "bad", "sources": {"gqa": section}})


def test_gqa_caps_by_task_before_image() -> None:
    section = Gqa(kind="gqa", questions=Path("q"), max_per_task=1, max_per_image=2)
    made = [GqaQuestion(str(n), "1", "?", "a", "a", task) for n, task in enumerate("aabbb")]
    kept, reasons = capped(section, made, seed=0)
    assert sorted(item.task for item in kept) == ["a", "b"]
    assert reasons == ["more than max_per_task"] * 3


def test_templates_say_what_the_annotations_say(tiny_world: Path, tmp_path: Path) -> None:
    notes = tiny_world / "annotations" / "instances_train.json"
    source = {"kind": "templates", "instances": notes, "turns": 6}
    rows, _ = rows_of(base(tiny_world, tmp_path) | {"sources": {"templates": source}})
    counts = load_counts(notes)
    assert len(rows) == 24 and len({row.messages[0].text.split()[0] for row in rows}) > 3
    right = Counter[str]()
    for row in rows:
        there = counts[row.meta["image_id"]]
        turns = zip(row.messages[::2], row.messages[1::2], row.meta["tasks"], strict=True)
        for question, answer, task in turns:
            if task == "count":
                number = next(int(word) for word in answer.text.rstrip(".").split() if word.isdigit())
                assert number in there.values()
            if task == "exists":
                right[answer.text.split()[0].strip(".,")] += 1
                assert "{" not in question.text + answer.text
            if task == "list":
                assert all(name in answer.text.lower() for name in there)
    assert right["Yes"] and right["No"] and set(right) == {"Yes", "No"}


def test_absent_objects_are_asked_for_as_often_as_present_ones() -> None:
    table = CoOccurrence.of({1: {"dog", "cat"}, 2: {"dog", "couch"}, 3: {"fork"}})
    asked = _exists(["dog"], table, 2, Random(0))
    assert sorted(answer.split()[0].strip(".,") for _, answer in asked) == ["No", "Yes"]
    assert next(question for question, answer in asked if answer.startswith("Yes")).count("a dog") == 1


@pytest.mark.parametrize(
    ("reply", "turns"),
    [
        ("Q: What?\nA: A dog.", [("What?", "A dog.")]),
        (
            "**Q1:** What?\n**A1:** A dog\nof two.\nQ2: Where?\nA2: There.",
            [("What?", "A dog\nof two."), ("Where?", "There.")],
        ),
        ("Sure! Here it is.\nQ: What?\nA: A dog.", None),
        ("Q: What?\nQ: Where?\nA: There.", None),
        ("Q: What?\nA:", None),
        ("Q: What?", None),
        ("", None),
    ],
)
def test_a_conversation_is_questions_and_answers_in_turn(
    reply: str, turns: list[tuple[str, str]] | None
) -> None:
    assert read_conversation(reply) == turns


def test_conversations_are_written_by_a_model(tiny_world: Path, tmp_path: Path) -> None:
    captions = {"annotations": [{"image_id": n, "caption": f"picture {n}"} for n in (1, 2)]}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    names = [path.name for path in sorted((tiny_world / "images" / "train").glob("*.png"))[:2]]
    images = {"images": [{"id": n + 1, "file_name": name} for n, name in enumerate(names)]}
    (tmp_path / "images.json").write_text(json.dumps(images))

    def say(question: str) -> str:
        assert "2 questions" in question.replace("\n", " ")
        return "Q: What?\nA: One.\nQ: Who?\nA: Me." if "picture 1" in question else "I can't see it."

    with ChatServer(say) as server:
        writer = {"writer": {"endpoint": server.url}, "turns": 2}
        section = {"kind": "conversations", "captions": tmp_path / "captions.json", **writer}
        fields = base(tiny_world, tmp_path / "run") | {"sources": {"written": section}}
        fields["images"] = {"annotations": tmp_path / "images.json", "prefix": "train/"}
        rows, folder = rows_of(fields)
    assert [(row.id, [turn.text for turn in row.messages]) for row in rows] == [
        ("conversation-1", ["What?", "One.", "Who?", "Me."])
    ]
    assert rows[0].meta["writer"] == "no model"
    assert json.loads((folder / "quarantine.jsonl").read_text()) == {
        "where": "image 2",
        "reason": "not lines of Q: and A:",
        "row": {"reply": "I can't see it."},
    }
    dropped = json.loads((folder / "dropped.json").read_text())["written"]["dropped"]
    assert dropped == {"not lines of Q: and A:": {"count": 1, "examples": ["image 2"]}}


def row(row_id: str, image: str, *tasks: str) -> SFTRow:
    turns = [Message(role="user", content="?"), Message(role="assistant", content="!")]
    return SFTRow(id=row_id, images=[image], messages=turns, meta={"kind": "k", "tasks": list(tasks)})


def test_caps_count_images_and_tasks_in_the_given_order() -> None:
    rows = [
        row("a", "1", "x"),
        row("b", "1", "x"),
        row("c", "1", "y"),
        row("d", "2", "x"),
        row("e", "3", "x", "y"),
    ]
    tally = Tally("t")
    kept = within_caps(Caps(per_image=2, per_task=2), rows, lambda item: item.id, tally)
    # a and b fill image 1 and task x, so c and d go; e still has room in y.
    assert [item.id for item in kept] == ["a", "b", "e"]
    assert dict(tally.dropped) == {"more than caps.per_image": 1, "more than caps.per_task": 1}


def test_held_out_images_are_in_no_other_file(tiny_world: Path, tmp_path: Path) -> None:
    notes = tiny_world / "annotations"
    fields = base(tiny_world, tmp_path) | {
        "sources": {
            "captions": {"kind": "captions", "annotations": notes / "captions_train.json"},
            "templates": {"kind": "templates", "instances": notes / "instances_train.json"},
        },
        "holdout": {"share": 0.3},
        "caps": {"per_image": 2},
        "prompts": {
            "train": 24,
            "dev": 2,
            "dev_images": {"annotations": notes / "instances_dev.json", "prefix": "dev/"},
        },
    }
    rows, folder = rows_of(fields)
    held = {name for item in read_rows(SFTRow, folder / "holdout.parquet") for name in item.images}
    kept = {name for item in rows for name in item.images}
    prompts = {name for item in read_rows(PromptRow, folder / "prompts.parquet") for name in item.images}
    assert 1 <= len(held) < 24 and not held & (kept | prompts)
    assert len(prompts) == 24 - len(held) + 2
    assert {item.meta["kind"] for item in rows} == {"captions", "templates"}


def test_a_recipe_without_a_source_is_wrong(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give one of kind questions"):
        validate(Recipe, base(tiny_world, tmp_path) | {"sources": {"captions": None}}, "test")


def test_a_key_that_moved_says_where(tiny_world: Path, tmp_path: Path) -> None:
    fields = base(tiny_world, tmp_path) | {"captions": {"annotations": "c.json"}, "mixture": {"captions": 1}}
    with pytest.raises(RecipeError) as raised:
        validate(Recipe, fields, "test")
    said = str(raised.value)
    assert "'captions' is no key any more: it is now sources.NAME, with kind: captions" in said
    assert "'mixture' is no key any more: it is now the key share of each of the sources" in said


def test_the_rows_of_two_sources_of_a_kind_stay_apart(tiny_world: Path, tmp_path: Path) -> None:
    captions = tiny_world / "annotations" / "captions_train.json"
    source = {"kind": "captions", "annotations": captions, "share": 1}
    rows, folder = rows_of(base(tiny_world, tmp_path) | {"sources": {"one": source, "two": source}})
    assert len(rows) == 48 and len({item.id for item in rows}) == 48
    assert sum(item.id.startswith("two-") for item in rows) == 24
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert (metrics["one"], metrics["two"]) == (24, 24)
