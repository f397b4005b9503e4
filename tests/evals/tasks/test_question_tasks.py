"""The question tasks on small files of the published formats, through `align score TASK`."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from align.cli import main
from align.errors import AlignError
from align.rows.schema import Prediction, Score, write_rows
from evals.answer_files.spreadsheet import read_table
from evals.comparison.lines import compare_task
from evals.generate import checked_samples
from evals.score import score_predictions
from evals.score_file import open_task


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(capsys: pytest.CaptureFixture[str], task: str, *words: Any) -> dict[str, Any]:
    assert main(["score", task, *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write_xlsx(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """A workbook as spreadsheet programs write it: shared strings, numbers as numbers, gaps left out."""
    texts = sorted({cell for row in rows for cell in row if cell and not cell.isdigit()})
    body = ""
    for number, row in enumerate(rows, 1):
        cells = [
            f'<c r="{chr(65 + k)}{number}"><v>{cell}</v></c>'
            if cell.isdigit()
            else f'<c r="{chr(65 + k)}{number}" t="s"><v>{texts.index(cell)}</v></c>'
            for k, cell in enumerate(row)
            if cell
        ]
        body += f'<row r="{number}">{"".join(cells)}</row>'
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts = {
        "xl/workbook.xml": f'<workbook {space} xmlns:r="{relation}"><sheets><sheet name="s" r:id="rId7"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
        'relationships"><Relationship Id="rId7" Target="worksheets/first.xml"/></Relationships>',
        "xl/worksheets/first.xml": f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>",
        "xl/sharedStrings.xml": f"<sst {space}>"
        + "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
        + "</sst>",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


def test_vqav2_results_by_answer_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(1, "yes/no", "yes"), (2, "number", "2"), (3, "other", "red")]
    questions = [{"question_id": i, "image_id": 1, "question": "?"} for i, _, _ in rows]
    annotations = [
        {
            "question_id": i,
            "question_type": "x",
            "answer_type": kind,
            "answers": [{"answer": said}] * 9 + [{"answer": "else"}],
        }
        for i, kind, said in rows
    ]
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    answers = [{"question_id": 1, "answer": "Yes."}, {"question_id": 2, "answer": "two"}]
    answers.append({"question_id": 3, "answer": "blue"})
    path = write(tmp_path / "results.json", answers)
    found = score(capsys, "vqav2", "--predictions", path, "--data", tmp_path)
    assert found["accuracy"] == pytest.approx(200 / 3, abs=1e-4)
    assert {key: row["accuracy"] for key, row in found["splits"].items()} == {
        "test": pytest.approx(200 / 3, abs=1e-4),
        "test/mean of kinds": pytest.approx(200 / 3, abs=1e-4),
        "test/number": 100.0,
        "test/other": 0.0,
        "test/yes/no": 100.0,
    }


def test_gqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = {
        name: {"question": "?", "imageId": "n1", "answer": answer, "types": {"structural": kind}}
        for name, answer, kind in (("07", "yes", "verify"), ("08", "red", "query"), ("09", "no", "verify"))
    }
    write(tmp_path / "testdev_balanced_questions.json", questions)
    answers = [("07", "Yes."), ("08", "the red"), ("09", "yes")]
    official = write(tmp_path / "p.json", [{"questionId": q, "prediction": p} for q, p in answers])
    llava = write_lines(tmp_path / "p.jsonl", [{"question_id": q, "text": p} for q, p in answers])
    for path in (official, llava):
        found = score(capsys, "gqa", "--predictions", path, "--data", tmp_path)
        assert found["accuracy"] == pytest.approx(100 / 3, abs=1e-4)
        assert found["splits"]["test/verify"]["accuracy"] == 50.0
    strict = score(capsys, "gqa", "--predictions", official, "--data", tmp_path, "--mode", "strict")
    assert strict["accuracy"] == pytest.approx(200 / 3, abs=1e-4)


def test_textvqa_joins_llavas_answers_by_image_and_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question_id": i, "image_id": "f0", "question": text, "answers": [answer] * 10}
        for i, (text, answer) in enumerate((("What brand?", "dell"), ("What year?", "1999")))
    ]
    write(tmp_path / "TextVQA_0.5.1_val.json", {"data": rows})
    tail = "\nAnswer the question using a single word or phrase."
    prompts = ["What year?\nReference OCR token: 1999, dell" + tail, "What brand?" + tail]
    llava = [
        {"question_id": "f0", "prompt": prompt, "text": text}
        for prompt, text in zip(prompts, ("2000", "Dell"), strict=True)
    ]
    path = write_lines(tmp_path / "a.jsonl", llava)
    assert score(capsys, "textvqa", "--predictions", path, "--data", tmp_path)["accuracy"] == 50.0
    path = write(tmp_path / "b.json", [{"question_id": i, "answer": "1999"} for i in (0, 1)])
    assert score(capsys, "textvqa", "--predictions", path, "--data", tmp_path)["accuracy"] == 50.0
    asked = write_lines(tmp_path / "asked.jsonl", [{"question_id": "f0", "text": text} for text in prompts])
    task = open_task("textvqa", tmp_path / "TextVQA_0.5.1_val.json", [f"prompts={asked}"])
    assert [sample.messages[0].content for sample in task.samples()] == prompts[::-1]


def test_vizwiz_by_picture_or_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "image": f"VizWiz_val_0000000{i}.jpg",
            "question": "?",
            "answer_type": kind,
            "answers": [{"answer": answer, "answer_confidence": "yes"}] * 10,
        }
        for i, (kind, answer) in enumerate((("other", "mug"), ("unanswerable", "unanswerable")))
    ]
    write(tmp_path / "val.json", rows)
    answers = [{"image": row["image"], "answer": "Unanswerable"} for row in rows]
    for path in (
        write(tmp_path / "a.json", answers),
        write_lines(tmp_path / "b.jsonl", [{"question_id": i, "text": "Unanswerable."} for i in (0, 1)]),
    ):
        found = score(capsys, "vizwiz", "--predictions", path, "--data", tmp_path)
        assert found["accuracy"] == 50.0 and found["splits"]["test/unanswerable"]["accuracy"] == 100.0


def test_docvqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "questionId": i,
            "question": "?",
            "image": "documents/a.png",
            "answers": answers,
            "question_types": ["form"],
        }
        for i, answers in enumerate((["hello", "hi there"], ["1979"], ["x"]))
    ]
    write(tmp_path / "val_v1.0_withQT.json", {"data": rows})
    texts = ("helo", "1980", "something else")
    answers = [{"questionId": i, "answer": text} for i, text in enumerate(texts)]
    path = write(tmp_path / "p.json", answers)
    found = score(capsys, "docvqa", "--predictions", path, "--data", tmp_path)
    assert found["anls"] == pytest.approx(100 * (0.8 + 0.5) / 3, abs=1e-4)


@pytest.mark.parametrize("shape", ["content", "ids", "lines"])
def test_chartqa(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    human = [("1.png", "How many?", "100"), ("1.png", "Which year?", "2015")]
    augmented = [("2.png", "What share?", "5%")]
    for part, rows in (("human", human), ("augmented", augmented)):
        content = [{"imgname": image, "query": text, "label": label} for image, text, label in rows]
        write(tmp_path / f"test_{part}.json", content)
    texts = ["104", "1900", "0.05"]
    rows = [*human, *augmented]
    answers: list[dict[str, Any]] = {
        "content": [
            {"imgname": image, "query": query, "prediction": text}
            for (image, query, _), text in zip(rows, texts, strict=True)
        ][::-1],
        "ids": [{"id": i, "answer": text} for i, text in enumerate(texts)],
        "lines": [
            {"answer": text, "annotation": label} for (_, _, label), text in zip(rows, texts, strict=True)
        ],
    }[shape]
    path = write(tmp_path / "p.json", answers)
    found = score(capsys, "chartqa", "--predictions", path, "--data", tmp_path)
    assert found["relaxed_accuracy"] == pytest.approx(200 / 3, abs=1e-4)
    assert found["splits"]["test/mean of kinds"]["relaxed_accuracy"] == 75.0
    if shape == "lines":
        write(path, answers[::-1])
        assert main(["score", "chartqa", "--predictions", str(path), "--data", str(tmp_path)]) == 1
        assert "answers must follow the questions" in capsys.readouterr().err


def test_scienceqa_asks_problems_with_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def problem(answer: int, image: str | None) -> dict[str, Any]:
        choices = ["sink", "float", "fly"]
        return {
            "question": "Will it?",
            "choices": choices,
            "answer": answer,
            "hint": "Ice.",
            "image": image,
            "subject": "natural science",
            "split": "test",
        }

    problems = {"4": problem(1, "image.png"), "5": problem(0, None), "11": problem(2, "image.png")}
    write(tmp_path / "problems.json", problems)
    write(tmp_path / "pid_splits.json", {"test": ["4", "5", "11"]})
    task = open_task("scienceqa", tmp_path)
    first, second = task.samples()
    assert (first.id, second.id, first.images) == ("4", "11", ["test/4/image.png"])
    assert first.messages[0].content == (
        "Ice.\nWill it?\nA. sink\nB. float\nC. fly\n"
        "Answer with the option's letter from the given choices directly."
    )
    texts = {"4": "B", "5": "A", "11": "c"}
    rows = [{"question_id": name, "text": text, "prompt": "?"} for name, text in texts.items()]
    for path in (
        write_lines(tmp_path / "a.jsonl", rows),
        write(tmp_path / "a.json", {"acc": 1, "results": {"4": 1}, "outputs": texts}),
    ):
        found = score(capsys, "scienceqa", "--predictions", path, "--data", tmp_path)
        assert (found["accuracy"], found["health"]["unknown"]) == (50.0, 1)
        strict = score(capsys, "scienceqa", "--predictions", path, "--data", tmp_path, "--mode", "strict")
        assert strict["accuracy"] == 100.0 and strict["health"]["unparsed"] == 0


PICTURE = b"\xff\xd8\xff picture"


def mmbench(path: Path, rotated: bool) -> Path:
    """Questions 0 (three options) and 7 (two), the picture of the second being that of the first."""
    header = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"]
    rows = [
        ["0", "Which?", "", "cat", "dog", "bus", "", "B", "finding", base64.b64encode(PICTURE).decode()],
        ["7", "Is it?", "Look.", "yes", "no", "", "", "A", "finding", "0"],
    ]
    if rotated:
        rows.append(["1000007", "Is it?", "Look.", "no", "yes", "", "", "B", "finding", "0"])
        rows.append(["1000000", "Which?", "", "dog", "bus", "cat", "", "A", "finding", "0"])
        rows.append(["2000000", "Which?", "", "bus", "cat", "dog", "", "C", "finding", "0"])
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    return path


@pytest.mark.parametrize("rotated", [True, False])
def test_mmbench_is_right_only_in_every_rotation(
    rotated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmbench(tmp_path / "mmbench_dev_en.tsv", rotated)
    right = {"0": "B", "1000000": "A. dog", "2000000": "The answer is C.", "7": "A", "1000007": "B"}
    task = open_task("mmbench", tmp_path)
    assert {sample.id: sample.reference["answer"] for sample in task.samples()} == {
        name: text for name, text in zip(right, "BACAB", strict=True)
    }

    def accuracy(texts: dict[str, str]) -> tuple[float, float]:
        rows = [["index", "question", "prediction"], *([name, "?", text] for name, text in texts.items())]
        path = write_xlsx(tmp_path / "answers.xlsx", rows)
        found = score(capsys, "mmbench", "--predictions", path, "--data", tmp_path)
        return found["accuracy"], found["accuracy_vanilla"]

    assert accuracy(right) == (100.0, 100.0)
    assert accuracy(right | {"2000000": "no idea"}) == (50.0, 100.0)
    assert accuracy(right | {"0": "no idea", "7": "B"}) == (0.0, 0.0)
    assert accuracy({"0": "B", "7": "B"}) == (0.0, 50.0)  # without rotations only the plain accuracy


def test_mmbench_unpacks_pictures_and_samples_whole_questions(tmp_path: Path) -> None:
    table = mmbench(tmp_path / "t.tsv", rotated=True)
    task = open_task("mmbench", table, [f"image_root={tmp_path / 'images'}", "num_questions=1"])
    samples = checked_samples("mmbench", task)
    assert len({sample.cluster for sample in samples}) == 1 and len(samples) > 1
    assert (tmp_path / "images" / samples[0].images[0]).read_bytes() == PICTURE


def test_mmbench_compares_checkpoints_on_questions_that_both_answered_in_full(tmp_path: Path) -> None:
    task = open_task("mmbench", mmbench(tmp_path / "t.tsv", rotated=True))
    samples = task.samples()

    def answered(lost: str) -> list[Score]:
        rows = [
            Prediction(key="k", task="mmbench", sample_id=sample.id, text=sample.reference["answer"])
            for sample in samples
            if sample.id != lost
        ]
        kept = [sample for sample in samples if sample.id != lost]
        return score_predictions(task, rows, samples=kept).scores

    parts = {"base": answered("1000007"), "tuned": answered("")}
    line = next(row for row in compare_task(task, parts, 100, [0]) if row.metric == "accuracy")
    assert line.values == {"base": 100.0, "tuned": 100.0} and (line.delta, line.clusters) == (0.0, 2)
    sums = [row["values"]["groups"] for row in map(Score.model_dump, parts["base"])]
    assert sum(sums) == 1


def test_mmbench_without_answers_is_refused(tmp_path: Path) -> None:
    path = mmbench(tmp_path / "t.tsv", rotated=False)
    path.write_text(path.read_text().replace("\tB\tfinding", "\t\tfinding"))
    with pytest.raises(AlignError, match="index '0' with the answer ''"):
        open_task("mmbench", path).samples()
    path = mmbench(tmp_path / "t.tsv", rotated=False)
    path.write_text(path.read_text().replace("\tyes\tno\t\t\tA", "\tyes\t\tno\t\tC"))
    with pytest.raises(AlignError, match="index '7' with the answer 'C'"):
        open_task("mmbench", path).samples()


def test_tables(tmp_path: Path) -> None:
    rows = [["index", "a <b>", "c"], ["7", "", "x & y"], ["12", "text", ""]]
    expected = [{"index": "7", "a <b>": "", "c": "x & y"}, {"index": "12", "a <b>": "text", "c": ""}]
    assert read_table(write_xlsx(tmp_path / "t.xlsx", rows)) == expected
    (tmp_path / "t.csv").write_text("\ufeff" + "".join(",".join(row) + "\n" for row in rows))
    assert read_table(tmp_path / "t.csv") == expected
    (tmp_path / "no.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(AlignError, match="not a readable table"):
        read_table(tmp_path / "no.xlsx")


OWN = [
    {"id": "a", "image": "1.png", "question": "Color?", "answer": "red"},
    {"id": "b", "image": "1.png", "question": "Which?", "answers": ["dog", "puppy"], "kind": "animals"},
]


@pytest.mark.parametrize(
    ("metric", "texts", "official", "strict"),
    [
        ("exact_match", ["Red", "puppy"], 50.0, 100.0),
        ("contains", ["It is red.", "hotdogs"], 100.0, 50.0),
        ("anls", ["red", "dig"], 100 * (1 + 2 / 3) / 2, 100 * (1 + 2 / 3) / 2),
        ("relaxed_accuracy", ["RED", "cat"], 50.0, 50.0),
        ("vqa_accuracy", ["red", "x"], 0.0, 0.0),  # one annotator leaves nobody else to agree
    ],
)
def test_your_own_questions(
    metric: str,
    texts: list[str],
    official: float,
    strict: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_lines(tmp_path / "mine.jsonl", OWN)
    path = write(tmp_path / "p.json", [{"id": n, "answer": t} for n, t in zip("ab", texts, strict=True)])
    words = ["--predictions", path, "--data", data, "--option", f"metric={metric}"]
    assert score(capsys, "custom", *words)[metric] == pytest.approx(official, abs=1e-4)
    assert score(capsys, "custom", *words, "--mode", "strict")[metric] == pytest.approx(strict, abs=1e-4)


def test_your_own_yes_or_no_and_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(i), "question": "Is it?", "answer": a} for i, a in enumerate(("Yes", "no", "no"))]
    data = write_lines(tmp_path / "yes_no.jsonl", rows)
    answers = [{"id": str(i), "answer": text} for i, text in enumerate(("Yes.", "maybe", "No, it isn't"))]
    path = write(tmp_path / "p.json", answers)
    words = ["--predictions", path, "--data", data, "--option", "metric=yes_no"]
    found = score(capsys, "custom", *words)
    assert (found["f1"], found["precision"], found["recall"]) == (
        pytest.approx(200 / 3, abs=1e-4),
        50.0,
        100.0,
    )
    strict = score(capsys, "custom", *words, "--mode", "strict")
    assert (strict["f1"], strict["health"]["unparsed"]) == (100.0, 1)

    data = write_lines(
        tmp_path / "seen.jsonl",
        [{"id": "x", "image": "x.png", "objects": ["man", "dog", "buses"]}, {"id": "y", "objects": []}],
    )
    answers = {"x": "A man with a dog and a cat.", "y": "Nothing."}
    path = write(tmp_path / "q.json", answers)
    words = ["--predictions", path, "--data", data, "--option", "metric=chair"]
    found = score(capsys, "custom", *words)
    assert [found[name] for name in ("chair_s", "chair_i", "recall")] == pytest.approx(
        [50.0, 100 / 3, 200 / 3], abs=1e-4
    )
    write_lines(data, [{"id": "x", "objects": ["unicorn"]}])
    assert main(["score", "custom", *map(str, words)]) == 1
    assert "'unicorn' is none of the 80 kinds" in capsys.readouterr().err


def test_our_own_predictions_score_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_lines(tmp_path / "mine.jsonl", OWN)
    rows = [
        Prediction(key="k", task="mine", sample_id="a", text="red"),
        Prediction(key="k", task="mine", sample_id="b", error="HTTP 500"),
    ]
    write_rows(tmp_path / "predictions.jsonl", rows)
    found = score(capsys, "custom", "--predictions", tmp_path / "predictions.jsonl", "--data", data)
    assert found["exact_match"] == 100.0
    assert (found["health"]["answered"], found["health"]["failed"]) == (1, 1)


def test_thoughts_before_an_answer_to_vqav2_are_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = {"question_id": 1, "image_id": 9, "question": "How many dogs?"}
    answers = [{"answer": "2", "answer_id": k} for k in range(10)]
    truth = {"question_id": 1, "image_id": 9, "answer_type": "number", "answers": answers}
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(
        json.dumps({"questions": [question]})
    )
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": [truth]}))
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"question_id": 1, "answer": "<think>I count one, two.</think>\n\n2"}]))
    found = score(capsys, "vqav2", "--predictions", path, "--data", tmp_path)
    assert found["accuracy"] == 100.0 and found["health"]["thoughts"] == 1
