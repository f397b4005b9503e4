"""`align score TASK`: published answer files, joined rightly, scored by the papers' names, refused well."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from align.rows.schema import Prediction
from tests.repository import BENCHMARKS

VARIANTS = ("random", "popular", "adversarial")
# Image, object, label: the first two questions are in every variant.
SHARED = [("1.jpg", "dog", "yes"), ("2.jpg", "umbrella", "yes")]
ABSENT = {"random": ["kite", "sheep"], "popular": ["car", "chair"], "adversarial": ["cat", "raincoat"]}


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(capsys: pytest.CaptureFixture[str], task: str, *words: Any) -> dict[str, Any]:
    assert main(["score", task, *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refuse(capsys: pytest.CaptureFixture[str], task: str, *words: Any) -> str:
    assert main(["score", task, *map(str, words)]) in (1, 2)
    return capsys.readouterr().err


def questions(variant: str) -> list[dict[str, Any]]:
    rows = []
    for (image, thing, label), absent in zip(SHARED, ABSENT[variant], strict=True):
        rows += [(image, thing, label), (image, absent, "no")]
    return [
        {"question_id": k, "image": image, "text": f"Is there a {thing} in the image?", "label": label}
        for k, (image, thing, label) in enumerate(rows, 1)
    ]


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    folder = tmp_path / "pope" / "output" / "coco"
    folder.mkdir(parents=True)
    for variant in VARIANTS:
        write_lines(folder / f"coco_pope_{variant}.json", questions(variant))
    return tmp_path / "pope"


# Answers in the order of the questions; the middle variant differs from the others on a shared question.
ANSWERS = {
    "random": ["Yes", "No", "Yes", "yes"],  # tp fp tn fn: 2 1 1 0
    "popular": ["No", "no, there is not", "Yes.", "No"],  # 1 0 2 1
    "adversarial": ["Yes", "Yes", "Yes", "No"],  # 2 1 1 0
}
F1 = {"random": 100 * 4 / 5, "popular": 100 * 2 / 3, "adversarial": 100 * 4 / 5}


def llava(variant: str) -> list[dict[str, Any]]:
    step = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}[variant]
    tail = "\nAnswer the question using a single word or phrase."
    return [
        {
            "question_id": step + row["question_id"],
            "prompt": row["text"] + tail,
            "text": answer,
            "model_id": "m",
        }
        for row, answer in zip(questions(variant), ANSWERS[variant], strict=True)
    ]


def test_llavas_pope_file_of_all_variants(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for variant in ("adversarial", "random", "popular") for row in llava(variant)]
    rows[1]["prompt"] = rows[1]["prompt"].replace("image", "imange")
    found = score(
        capsys, "pope", "--predictions", write_lines(tmp_path / "a.jsonl", rows[::-1]), "--data", pope
    )
    assert {name: found["splits"][name]["f1"] for name in VARIANTS} == pytest.approx(F1)
    assert found["f1"] == pytest.approx(sum(F1.values()) / 3)
    assert found["splits"]["popular"] == {
        "f1": pytest.approx(200 / 3),
        "accuracy": 75.0,
        "precision": 100.0,
        "recall": 50.0,
        "yes_ratio": 25.0,
    }
    assert found["health"]["answered"] == 12 and found["health"]["missing"] == found["health"]["unknown"] == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_popes_own_format_tells_its_variant_by_its_questions(
    variant: str, tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question": row["text"].lower(), "answer": answer}
        for row, answer in zip(questions(variant), ANSWERS[variant], strict=True)
    ]
    found = score(capsys, "pope", "--predictions", write_lines(tmp_path / "a.json", rows), "--data", pope)
    assert found["f1"] == pytest.approx(F1[variant]) and found["splits"] == {}
    assert found["card"]["split"] == variant  # nothing else tells which of the three was recognised


def test_answers_that_name_their_image_may_come_in_any_order(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"image": f"val2014/{row['image']}", "question": row["text"], "response": answer}
        for row, answer in zip(questions("popular"), ANSWERS["popular"], strict=True)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows[::-1]))
    assert score(capsys, "pope", "--predictions", path, "--data", pope)["f1"] == pytest.approx(F1["popular"])
    other = {"image": "3.jpg", "question": "Is there a cat?", "response": "Yes"}
    path.write_text(json.dumps([*rows[::-1], other]))
    found = score(capsys, "pope", "--predictions", path, "--data", pope)
    assert found["f1"] == pytest.approx(F1["popular"]) and found["health"]["unknown"] == 1


def test_bare_ids_need_the_variant(tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question_id": k, "text": text} for k, text in enumerate(ANSWERS["random"], 1)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert "could be to random or popular" in refuse(capsys, "pope", "--predictions", path, "--data", pope)
    option = f"files.random={pope}/output/coco/coco_pope_random.json"
    assert score(capsys, "pope", "--predictions", path, "--option", option)["f1"] == pytest.approx(80.0)
    named = write_lines(tmp_path / "llava_random.jsonl", rows[:3])
    found = score(capsys, "pope", "--predictions", named, "--data", pope)
    assert found["f1"] == pytest.approx(100.0) and found["health"]["missing"] == 1
    text = refuse(
        capsys,
        "pope",
        "--predictions",
        write_lines(tmp_path / "b_popular.jsonl", [{"answer": "no"}] * 3),
        "--data",
        pope,
    )
    assert "3 answers without matching ids for 4 questions" in text and "expected POPE's" in text


def test_a_single_file_of_questions_needs_no_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_lines(tmp_path / "labels.jsonl", questions("popular"))
    rows = [{"question": row["text"], "answer": "Yes"} for row in questions("popular")]
    found = score(capsys, "pope", "--predictions", write_lines(tmp_path / "a.json", rows), "--data", labels)
    assert (found["recall"], found["precision"], found["yes_ratio"]) == (100.0, 50.0, 100.0)


def test_a_prompt_that_contradicts_its_id_is_not_scored(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = llava("random")
    rows[0]["prompt"], rows[1]["prompt"] = rows[1]["prompt"], rows[0]["prompt"]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert "where the data asks" in refuse(capsys, "pope", "--predictions", path, "--data", pope)


def test_llavas_older_random_file_lacks_questions_about_absent_objects(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [row for number, row in enumerate(llava("random")) if number != 1]
    rows = [{**row, "question_id": 10_000_000 + number} for number, row in enumerate(kept, 1)]
    words = ("--predictions", write_lines(tmp_path / "a.jsonl", rows), "--data", pope)
    found = score(capsys, "pope", *words)
    assert found["precision"] == pytest.approx(200 / 3) and found["recall"] == 100.0
    assert found["health"]["missing"] == 1
    write_lines(tmp_path / "a.jsonl", rows[1:])  # a present object may not be left out
    assert "2 answers without matching ids for 4 questions" in refuse(capsys, "pope", *words)


def test_our_predictions_answer_a_shared_question_in_every_variant(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {(row["image"], row["text"]): row["label"] for variant in VARIANTS for row in questions(variant)}
    rows = [
        Prediction(key="k", task="pope", sample_id=f"{Path(image).stem}:{text}", text=label.title())
        for (image, text), label in asked.items()
    ]
    rows[0] = rows[0].model_copy(update={"text": None, "error": "timeout"})
    path = write_lines(tmp_path / "predictions.jsonl", [row.model_dump() for row in rows])
    found = score(capsys, "pope", "--predictions", path, "--data", pope)
    assert found["accuracy"] == 100.0 and found["health"]["failed"] == 3 and found["health"]["answered"] == 9


TRUTH = {"1": ["person", "dog"], "2": ["car"], "3": ["cat", "bed"]}
CAPTIONS = {
    1: "A man and a dog and a cat. The man sits on a chair.",
    2: "The sky is blue.",
    3: "A cat on a bed.",
}
CAPTION_FILES = {
    "lines": "\n".join(json.dumps({"image_id": key, "caption": text}) for key, text in CAPTIONS.items()),
    "list": json.dumps([{"image_id": key, "caption": text} for key, text in CAPTIONS.items()]),
    "names": json.dumps(
        [{"image": f"COCO_val2014_{key:012d}.jpg", "text": text} for key, text in CAPTIONS.items()]
    ),
    "map": json.dumps({str(key): text for key, text in CAPTIONS.items()}),
    "imgToEval": json.dumps(
        {
            "overall": {"CIDEr": 1.0},
            "imgToEval": {key: {"image_id": key, "caption": text} for key, text in CAPTIONS.items()},
        }
    ),
}


@pytest.mark.parametrize("shape", CAPTION_FILES)
def test_published_captions(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt_objects.json").write_text(json.dumps(TRUTH | {"9": ["kite"]}))
    path = tmp_path / "captions.json"
    path.write_text(CAPTION_FILES[shape])
    found = score(capsys, "chair", "--predictions", path, "--data", tmp_path)
    assert found["chair_s"] == pytest.approx(100 / 3) and found["chair_i"] == pytest.approx(28.571429)
    assert found["recall"] == pytest.approx(80.0) and found["health"]["answered"] == 3


def packed(text: str, how: str) -> bytes:
    """A caption file as it comes out of other people's tools."""
    lines = text.encode()
    return {
        "crlf": lines.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + lines,
        "utf-16": text.encode("utf-16"),
        "gz": gzip.compress(lines),
        "not utf-8": lines.replace(b"The sky", b"The \xff\xfe sky"),
        "indented, one behind the other": "\n".join(
            json.dumps(json.loads(line), indent=4) for line in text.splitlines()
        ).encode(),
        "float ids": re.sub(r'("image_id": \d)', r"\1.0", text).encode(),
        "raw tab": lines.replace(b"The sky", b"The\tsky"),
    }[how]


HOWS = ["crlf", "bom", "utf-16", "gz", "not utf-8", "float ids", "raw tab", "indented, one behind the other"]


@pytest.mark.parametrize("how", HOWS)
def test_files_as_other_tools_write_them(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gt_objects.json").write_text(json.dumps(TRUTH))
    path = tmp_path / "captions.json"
    path.write_bytes(packed(CAPTION_FILES["lines"], how))
    found = score(capsys, "chair", "--predictions", path, "--data", tmp_path)
    assert found["chair_i"] == pytest.approx(28.571429) and found["health"]["answered"] == 3


def test_odd_answers_are_scored_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A megabyte, markup, half a surrogate pair, nothing, null; a question answered twice."""
    rows = [{"id": str(k), "question": f"{k}?", "answer": "yes"} for k in range(7)]
    write_lines(tmp_path / "q.jsonl", rows)
    said = ["yes " * 300_000, "<script>alert(1)</script>", "\ud800", "", None, "yes"]
    answers = [{"id": k, "answer": text} for k, text in enumerate(said)]  # numbers, and the last is missing
    path = write_lines(tmp_path / "a.jsonl", [*answers, answers[5], {"id": 99, "answer": "x"}])
    words = ("--predictions", path, "--data", tmp_path / "q.jsonl", "--option", "metric=yes_no")
    found = score(capsys, "custom", *words)
    health = {name: found["health"][name] for name in ("answered", "failed", "empty", "missing", "unknown")}
    assert health == {"answered": 5, "failed": 1, "empty": 1, "missing": 1, "unknown": 1}
    assert found["health"]["repeated"] == 1 and found["health"]["unparsed"] == 3
    assert found["yes_ratio"] == 100.0 == found["accuracy"]  # what is not a plain no is a yes
    strict = score(capsys, "custom", *words, "--mode", "strict")
    assert strict["accuracy"] == 40.0
    write_lines(path, [*answers, {"id": 5, "answer": "no"}])
    assert "two different answers to '5': 'yes' and 'no'" in refuse(capsys, "custom", *words)


@pytest.mark.parametrize("data", [b"\x1f\x8b broken", b"[" * 100_000, b"\x00\x01\x02", b"PK\x03\x04"])
def test_what_is_no_text_is_refused(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt_objects.json").write_text(json.dumps(TRUTH))
    path = tmp_path / "captions.json"
    path.write_bytes(data)
    assert "captions.json" in refuse(capsys, "chair", "--predictions", path, "--data", tmp_path)
    assert "Is a directory" in refuse(capsys, "chair", "--predictions", tmp_path, "--data", tmp_path)


def test_truth_from_coco_files_and_several_captions_of_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    images = [{"id": key, "file_name": f"COCO_val2014_{key:012d}.jpg"} for key in (1, 2)]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}]
    instances = {
        "images": images,
        "categories": categories,
        "annotations": [{"image_id": 1, "category_id": 1}],
    }
    captions = {"annotations": [{"image_id": 1, "caption": "A man walks."}]}
    (annotations / "instances_val2014.json").write_text(json.dumps(instances))
    (annotations / "captions_val2014.json").write_text(json.dumps(captions))
    rows = [{"image_id": 1, "caption": "A man and a dog."}, {"image_id": 1, "caption": "A car."}]
    path = write_lines(tmp_path / "a.jsonl", [*rows, {"image_id": 77, "caption": "A dog."}])
    found = score(capsys, "chair", "--predictions", path, "--data", tmp_path)
    assert (found["chair_s"], found["recall"]) == (50.0, 50.0)
    assert found["health"]["answered"] == 2 and found["health"]["unknown"] == 1


def test_the_published_llava_captions(capsys: pytest.CaptureFixture[str]) -> None:
    folder = BENCHMARKS / "chair"
    if not folder.is_dir():
        pytest.skip("no published captions beside the repository")
    captions = folder / "llava-1.5-7b_greedy_captions.jsonl"
    for data in (folder, folder / "gt_objects_500.json"):
        found = score(capsys, "chair", "--predictions", captions, "--data", data)
        assert found["chair_s"] == pytest.approx(45.0, abs=0.4)
        assert found["chair_i"] == pytest.approx(12.8, abs=0.4)
        assert found["recall"] == pytest.approx(79.8, abs=0.4)


def test_modes_differ_where_the_scorers_do(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"text": "NO"} for row in llava("random")]
    words = ("--predictions", write_lines(tmp_path / "a.jsonl", rows), "--data", pope)
    assert score(capsys, "pope", *words)["yes_ratio"] == 100.0
    strict = score(capsys, "pope", *words, "--mode", "strict")
    assert strict["yes_ratio"] == 0.0 and strict["f1"] == 0.0 and "random/precision" in strict["undefined"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no answers in this file"),
        ("{", "neither JSON nor JSON lines"),
        ("[1]", "a JSON int where an object should be"),
        ('{"image_id": 1}', "none of the fields caption"),
        ('{"image_id": 1, "caption": ["a", "b"]}', "must be text, not list"),
        ('{"image_id": "a", "caption": "b"}', "no image number"),
        ('{"image_id": 5, "caption": "b"}', "none of the 1 answers belongs"),
    ],
)
def test_other_shapes_are_refused_by_row(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gt_objects.json").write_text(json.dumps(TRUTH))
    path = tmp_path / "captions.jsonl"
    path.write_text(text)
    said = refuse(capsys, "chair", "--predictions", path, "--data", tmp_path)
    assert message in said and "captions.jsonl" in said


def test_what_is_asked_for_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--predictions", tmp_path / "a.jsonl")
    assert "unknown task 'popo' (did you mean 'pope'?)" in refuse(capsys, "popo", *words)
    assert "set exactly one of instances and files" in refuse(capsys, "pope", *words, "--data", tmp_path)
    assert "no such file or folder" in refuse(capsys, "pope", *words, "--data", tmp_path / "x")
    assert "did you mean 'objects'?" in refuse(capsys, "chair", *words, "--option", "object=a")
    assert "no such recipe" in refuse(capsys, str(tmp_path / "recipe.yaml"))


def test_thoughts_are_not_scored_and_counted(
    tmp_path: Path, pope: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four right answers behind thoughts, whole or with the closing mark alone, score as answers do."""
    labels = ["Yes", "No", "Yes", "No"]
    blocks = ["<think>no, no, no</think>\n\n{}", "yes it is</think>\n\n{}"]
    asked, words = questions("random"), ("--predictions", tmp_path / "a.json", "--data", pope)
    for block in blocks:
        rows = [
            {"question": row["text"], "image": row["image"], "answer": block.format(label)}
            for row, label in zip(asked, labels, strict=True)
        ]
        for mode in ("official", "strict"):
            write_lines(tmp_path / "a.json", rows)
            found = score(capsys, "pope", *words, "--mode", mode, "--option", "name=pope")
            assert (found["accuracy"], found["f1"]) == (100.0, 100.0), (block, mode)
            assert (found["health"]["thoughts"], found["health"]["unclosed"]) == (4, 0)
    assert main(["score", "pope", *map(str, words), "--mode", "strict"]) == 0
    assert "note: 4 answers had thoughts before them, which were not scored" in capsys.readouterr().err


def test_an_unclosed_thought_is_a_truncation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(
        tmp_path / "q.jsonl", [{"id": str(k), "question": f"{k}?", "answer": "yes"} for k in range(3)]
    )
    said = ["<think>yes, yes", "<think></think>yes", "yes"]
    path = write_lines(tmp_path / "a.jsonl", [{"id": str(k), "answer": text} for k, text in enumerate(said)])
    words = (
        "--predictions",
        path,
        "--data",
        tmp_path / "q.jsonl",
        "--option",
        "metric=yes_no",
        "--mode",
        "strict",
    )
    found = score(capsys, "custom", *words)
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert {name: found["health"][name] for name in ("thoughts", "unclosed", "empty")} == {
        "thoughts": 1,
        "unclosed": 1,
        "empty": 1,
    }
    assert main(["score", "custom", *map(str, words)]) == 0
    assert "1 of these were cut off in their thoughts: no answer" in capsys.readouterr().err
