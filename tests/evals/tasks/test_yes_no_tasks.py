"""RePOPE, POPEv2, DASH-B and MME: their own readings of yes and no, pairs, and published answer files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.cli import main
from evals.scoring.yes_no import parse_containing
from evals.tasks.mme import parse_mme
from tests.repository import BENCHMARKS

FOLDER = BENCHMARKS / "pope"
PARTS = ("existence", "count", "position", "color")


def score(capsys: pytest.CaptureFixture[str], task: str, *words: Any) -> dict[str, Any]:
    assert main(["score", task, *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("text", "containing", "mme"),
    [
        ("Yes", "yes", "yes"),
        ("no.", "no", "no"),
        ("not", "no", "no"),
        ("There is no dog", "no", None),
        ("No, but yes", "yes", "no"),
        ("Eyes", "yes", "yes"),
        ("maybe", None, None),
        ("", None, None),
    ],
)
def test_published_readings(text: str, containing: str | None, mme: str | None) -> None:
    assert parse_containing(text) == containing
    assert parse_mme(text) == mme


def repope_question(number: int, label: str) -> str:
    row = {"question_id": number, "image": f"{number}.jpg", "text": f"Is there a {number}?", "label": label}
    return json.dumps(row) + "\n"


def test_repope_leaves_out_dropped_questions_and_unread_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [repope_question(number, label) for number, label in ((1, "yes"), (3, "no"), (4, "yes"))]
    (tmp_path / "coco_repope_random.json").write_text("".join(lines))
    (tmp_path / "coco_pope_random.json").write_text("".join(lines) + repope_question(2, "no"))
    answers = {"1": "Yes it is", "2": "Yes", "3": "Eyes", "4": "maybe"}
    rows = {number: {"question_id": number, "response": text} for number, text in answers.items()}
    words = ("--predictions", write(tmp_path / "m_POPE_answers.json", {"random": rows}), "--data", tmp_path)
    found = score(capsys, "repope", *words)
    # Question 2 was dropped; `maybe` is left out: 1 right of 2.
    assert (found["accuracy"], found["precision"], found["recall"]) == (50.0, 50.0, 100.0)
    assert found["health"]["unknown"] == 1 and found["health"]["unparsed"] == 2
    strict = score(capsys, "repope", *words, "--mode", "strict")
    assert strict["accuracy"] == pytest.approx(100 / 3) and strict["recall"] == 50.0


@pytest.fixture
def popev2(tmp_path: Path) -> Path:
    rows = [
        {
            "image_id": number,
            "image_name": f"/{folder}/{number}.jpg",
            "target_object": "dog",
            "query": "Is there a dog in the image?",
            "label": label,
        }
        for number in (1, 2)
        for folder, label in (("images", "No"), ("coco", "Yes"))
    ]
    return write(tmp_path / "annotations.json", rows)


def test_popev2_counts_pairs(popev2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(popev2.read_text())
    answers = ["No", "Yes", "Yes", "Yes"]
    named = [{**row, "answer": text} for row, text in zip(rows, answers, strict=True)][::-1]
    bare = [{"question": row["query"], "answer": text} for row, text in zip(rows, answers, strict=True)]
    for shape in (named, bare):
        path = write(tmp_path / "a.json", shape)
        found = score(capsys, "popev2", "--predictions", path, "--data", tmp_path / "annotations.json")
        assert found["pair_accuracy"] == 50.0 and found["accuracy"] == 75.0
        assert found["yes_ratio"] == 75.0 and found["recall"] == 100.0
    path = write(tmp_path / "a.json", named[:3])
    found = score(capsys, "popev2", "--predictions", path, "--data", popev2)
    assert found["pair_accuracy"] == 0.0 and found["health"]["missing"] == 1  # the other pair is not whole


def test_always_yes_reaches_no_pair_of_the_real_popev2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = FOLDER / "popev2_annotations.json"
    if not annotations.is_file():
        pytest.skip("no published POPEv2 annotations beside the repository")
    rows = [{"question": row["query"], "answer": "Yes"} for row in json.loads(annotations.read_text())]
    path = write(tmp_path / "a.json", rows)
    found = score(capsys, "popev2", "--predictions", path, "--data", annotations)
    assert (found["accuracy"], found["pair_accuracy"], found["yes_ratio"]) == (50.0, 0.0, 100.0)
    assert found["health"]["answered"] == 1000


def test_dash_b(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "images" / "dash_benchmark_neg.json", {"coco": {"cup": ["1.png", "2.png"]}})
    write(tmp_path / "images" / "dash_benchmark_pos.json", {"coco": {"cup": ["1.jpg"], "hat": ["2.jpg"]}})
    answers = [
        ("1.png", "cup", "no"),
        ("2.png", "cup", "yes"),
        ("1.jpg", "cup", "Yes."),
        ("9.jpg", "hat", "yes"),
    ]
    rows = [{"img_id": i, "object_name": name, "response": text} for i, name, text in answers]
    words = ("--predictions", write(tmp_path / "a.json", rows), "--data", tmp_path)
    found = score(capsys, "dash_b", *words)
    assert (found["tnr"], found["tpr"]) == (50.0, 100.0) and found["accuracy"] == pytest.approx(200 / 3)
    assert found["harmonic_mean"] == pytest.approx(100 * 2 / 3)
    assert found["health"]["unknown"] == 1
    rows[3]["gt"] = "yes"  # a picture that only the answers know counts by their label
    write(tmp_path / "a.json", rows)
    assert score(capsys, "dash_b", *words)["accuracy"] == 75.0


# Per picture: (answers to yes and no question) -> both right, one right, none right.
RESULTS = {
    "existence": [("Yes", "No"), ("yes.", "no, it is")],  # 100 + 100
    "count": [("Yes", "No"), ("yes", "yes")],  # 75 + 50
    "position": [("No", "No"), ("Yes", "It is not")],  # 50 + 0
    "color": [("No", "Yes"), ("", "")],  # 0 + 0
}


def mme_lines(part: str) -> list[str]:
    lines = []
    for number, answers in enumerate(RESULTS[part]):
        for question, truth, answer in zip(("Is it?", "Is it not?"), ("Yes", "No"), answers, strict=True):
            asked = f"{question} Please answer yes or no."
            lines.append(f"{number:012d}.jpg\t{asked}\t{truth}\t{answer}\n")
    return lines


def test_mme_results_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in PARTS:
        (tmp_path / f"{part}.txt").write_text("".join(mme_lines(part)))
    found = score(capsys, "mme", "--predictions", tmp_path)
    assert {part: found[part] for part in PARTS} == dict(zip(PARTS, (200.0, 125.0, 50.0, 0.0), strict=True))
    assert found["total"] == 375.0 and found["acc"] == pytest.approx(100 * 9 / 16)
    assert found["splits"]["count"]["acc_plus"] == 50.0
    strict = score(capsys, "mme", "--predictions", tmp_path, "--mode", "strict")
    assert strict["position"] == 125.0  # `It is not` is a no


def test_mme_answers_to_the_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for part in PARTS:
        folder = tmp_path / "MME_Benchmark_release_version" / part
        folder.mkdir(parents=True)
        for line in mme_lines(part):
            image, question, truth, answer = line.rstrip("\n").split("\t")
            with (folder / image).with_suffix(".txt").open("a") as out:
                out.write(f"{question}\t{truth}\n")
            prompt = question.replace(
                " Please answer yes or no.", "\nAnswer the question using a single word."
            )
            rows.append({"question_id": f"{part}/{image}", "prompt": prompt, "text": answer})
    rows.append({"question_id": "OCR/0001.jpg", "prompt": "Is it?", "text": "Yes"})
    path = tmp_path / "llava.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = score(capsys, "mme", "--predictions", path, "--data", tmp_path)
    assert found["total"] == 375.0 and found["health"]["answered"] == 16
    assert main(["score", "mme", "--predictions", str(path)]) == 1
    assert "no MME questions" in capsys.readouterr().err
