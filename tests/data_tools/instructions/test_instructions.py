"""Instruction rows and prompts from the embedded world and from small files with faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import validate
from align.errors import AlignError
from align.rows.schema import PromptRow, SFTRow, read_rows
from data_tools.instructions.stage import Recipe, run
from data_tools.instructions.vqa import SHORT_ANSWER_SUFFIX, written_answer


def values(world: Path, run_dir: Path) -> dict[str, Any]:
    notes = world / "annotations"
    return {
        "run_dir": run_dir,
        "image_root": world / "images",
        "images": {"annotations": notes / "instances_train.json", "prefix": "train/"},
        "sources": {
            "questions": {
                "kind": "questions",
                "questions": notes / "questions_train.json",
                "annotations": notes / "vqa_train.json",
            },
            "captions": {"kind": "captions", "annotations": notes / "captions_web_train.json"},
        },
        "prompts": {
            "train": 10,
            "dev": 5,
            "dev_images": {"annotations": notes / "instances_dev.json", "prefix": "dev/"},
        },
        "exclude": [notes / "instances_test.json"],
    }


def stage(fields: dict[str, Any], **changes: Any) -> Recipe:
    return validate(Recipe, fields | changes, "test")


def rows_of(recipe: Recipe) -> list[SFTRow]:
    return list(read_rows(SFTRow, run(recipe).final / "instructions.parquet"))


def test_dialogues_captions_and_prompts_of_the_world(tiny_world: Path, tmp_path: Path) -> None:
    recipe = stage(values(tiny_world, tmp_path))
    rows = rows_of(recipe)
    dialogues = [row for row in rows if row.meta["kind"] == "questions"]
    captions = [row for row in rows if row.meta["kind"] == "captions"]
    assert len(captions) / len(rows) == pytest.approx(0.3, abs=0.02)
    assert max(len(row.messages) for row in dialogues) == 8  # four turns
    for row in dialogues:
        assert [message.role for message in row.messages[:2]] == ["user", "assistant"]
        assert row.messages[0].text.endswith(SHORT_ANSWER_SUFFIX)
    answers = {message.text for row in dialogues for message in row.messages[1::2]}
    assert {"Yes", "No"} <= answers and not {"yes", "no"} & answers
    images = {image for row in rows for image in row.images}
    assert all((tiny_world / "images" / image).is_file() and image.startswith("train/") for image in images)

    prompts = list(read_rows(PromptRow, recipe.stage_dir / "prompts.parquet"))
    assert [row.meta["split"] for row in prompts] == ["dev"] * 5 + ["train"] * 10
    assert len({row.images[0] for row in prompts}) == 15
    assert all(row.images[0].startswith(row.meta["split"] + "/") for row in prompts)


def test_the_same_recipe_writes_the_same_bytes_and_another_seed_other_rows(
    tiny_world: Path, tmp_path: Path
) -> None:
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = stage(values(tiny_world, tmp_path / name), seed=seed)
        digests.append(run(recipe).manifest()["output_digest"])
    assert digests[0] == digests[1] != digests[2]


def test_the_mixture_is_cut_to_the_scarcer_kind(tiny_world: Path, tmp_path: Path) -> None:
    fields = values(tiny_world, tmp_path)
    fields["sources"]["questions"]["share"], fields["sources"]["captions"]["share"] = 1, 3
    rows = rows_of(stage(fields))
    # 24 images with one caption each: 24 captions are three quarters of 32 rows.
    assert (len(rows), sum(row.meta["kind"] == "captions" for row in rows)) == (32, 24)
    assert len(rows_of(stage(fields, num_rows=8, run_dir=tmp_path / "few"))) == 8


def test_evaluation_images_never_enter(tiny_world: Path, tmp_path: Path) -> None:
    notes = tiny_world / "annotations"
    train = json.loads((notes / "instances_train.json").read_text())
    banned = train["images"][:6]
    (tmp_path / "eval.json").write_text(json.dumps({"images": banned}))
    recipe = stage(values(tiny_world, tmp_path), exclude=[tmp_path / "eval.json"])
    ids = {row.meta["image_id"] for row in rows_of(recipe)}
    assert ids and not ids & {image["id"] for image in banned}
    dropped = json.loads((recipe.stage_dir / "dropped.json").read_text())
    assert dropped["train images"]["dropped"]["is an evaluation image"]["count"] == 6
    with pytest.raises(AlignError, match="no dev images left"):
        run(stage(values(tiny_world, tmp_path), exclude=[notes / "instances_dev.json"]))


def test_train_and_dev_must_not_share_images(tiny_world: Path, tmp_path: Path) -> None:
    fields = values(tiny_world, tmp_path)
    fields["prompts"] = fields["prompts"] | {"dev_images": fields["images"]}
    with pytest.raises(AlignError, match="both train and dev"):
        run(stage(fields))
    assert not (tmp_path / "instructions").exists()


def broken_world(tmp_path: Path, tiny_world: Path) -> dict[str, Any]:
    """Four train images: whole, truncated, a text file, missing; one question each and one more."""
    images = tmp_path / "images"
    images.mkdir()
    source = min((tiny_world / "images" / "train").glob("*.png")).read_bytes()
    (images / "1.png").write_bytes(source)
    (images / "2.png").write_bytes(source[:20])
    (images / "3.png").write_text("not a picture")
    (images / "9.png").write_bytes(source)
    names = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3, 4)]
    questions = [{"question_id": n, "image_id": n, "question": f"What is {n}?"} for n in (1, 2, 3, 4)]
    questions.append({"question_id": 5, "image_id": 1, "question": "Is it red?"})
    disputed = [{"answer": str(number)} for number in range(10)]
    answers = [{"question_id": n, "multiple_choice_answer": "dog"} for n in (1, 2, 3, 4)]
    answers.append({"question_id": 5, "multiple_choice_answer": "3", "answers": disputed})
    captions = [{"image_id": 1, "caption": "a dog"}, {"image_id": 1, "caption": " "}]
    files = {
        "images": {"images": names},
        "dev": {"images": [{"id": 9, "file_name": "9.png"}]},
        "questions": {"questions": questions},
        "answers": {"annotations": answers},
        "captions": {"annotations": captions},
    }
    for name, tree in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    return {
        "run_dir": tmp_path / "run",
        "image_root": images,
        "images": {"annotations": tmp_path / "images.json"},
        "sources": {
            "questions": {
                "kind": "questions",
                "share": 1,
                "questions": tmp_path / "questions.json",
                "annotations": tmp_path / "answers.json",
            },
            "captions": {"kind": "captions", "share": 1, "annotations": tmp_path / "captions.json"},
        },
        "prompts": {"train": 3, "dev": 1, "dev_images": {"annotations": tmp_path / "dev.json"}},
    }


def test_bad_pictures_and_questions_are_dropped_with_a_reason(tiny_world: Path, tmp_path: Path) -> None:
    recipe = stage(broken_world(tmp_path, tiny_world))
    assert [row.images for row in rows_of(recipe)] == [["1.png"], ["1.png"]]
    dropped = json.loads((recipe.stage_dir / "dropped.json").read_text())
    reasons = {reason: item["count"] for reason, item in dropped["train images"]["dropped"].items()}
    assert sum(reasons.values()) == 3 and {"missing image", "not an image"} <= set(reasons)
    questions = {reason: item["count"] for reason, item in dropped["questions"]["dropped"].items()}
    assert questions == {"image cannot be used": 3, "annotators disagree": 1}
    assert dropped["captions"]["dropped"]["empty caption"]["count"] == 1


@pytest.mark.parametrize(
    ("file", "tree", "message"),
    [
        ("questions", {"questions": []}, "no questions"),
        ("questions", {"questions": [{"question_id": 1, "image_id": 1}]}, "missing field 'question'"),
        (
            "questions",
            {"questions": [{"question_id": 1, "image_id": 1, "question": "?"}] * 2},
            "duplicate question id 1",
        ),
        ("images", {"images": [{"id": 1, "file_name": "1.png"}] * 2}, "duplicate image id 1"),
        ("images", {"pictures": []}, "no list 'images'"),
        ("captions", {"annotations": []}, "no rows of the source 'captions'"),
    ],
)
def test_a_malformed_file_is_one_clear_error(
    file: str, tree: Any, message: str, tiny_world: Path, tmp_path: Path
) -> None:
    fields = broken_world(tmp_path, tiny_world)
    (tmp_path / f"{file}.json").write_text(json.dumps(tree))
    with pytest.raises(AlignError, match=message):
        run(stage(fields))
    assert not (tmp_path / "run" / "instructions").exists()


def test_answers_are_written_as_an_assistant_would() -> None:
    assert [written_answer(text) for text in ("yes", "NO", " 2 ", "left", "yes please")] == [
        "Yes",
        "No",
        "2",
        "left",
        "yes please",
    ]
