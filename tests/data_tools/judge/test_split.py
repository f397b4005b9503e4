"""Claims of any kind, split by a model and asked one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import validate
from align.errors import AlignError, RecipeError
from align.rows.schema import Verdict, read_rows
from data_tools.judge.split import read_split, split_truth
from data_tools.judge.stage import Recipe, run
from tests.chat_server import ChatServer
from tests.data_tools.judge.test_judge_claims import candidates

LIGHTHOUSE = "The red lighthouse stands left of two white sailboats; its door is open."
LINES = """\
object | There is a lighthouse. | Is there a lighthouse in the picture?
attribute | The lighthouse is red. | Is the lighthouse red?
number | There are two sailboats. | Are there two sailboats?
relation | The lighthouse is left of the sailboats. | Is the lighthouse left of the sailboats?
attribute | The door is open. | Is the door open?"""


@pytest.mark.parametrize(
    ("reply", "kinds"),
    [
        (LINES, ["presence", "attribute", "number", "relation", "attribute"]),
        (
            "The claims:\n\n1. Object | A dog. | Is there a dog?\n2. text | It says A. | Does it say A?",
            2,
        ),
        (
            "| KIND | CLAIM | QUESTION |\n|---|---|---|\n| action | A dog runs. | Does a dog run? |",
            ["action"],
        ),
        ("<think>one | two</think>\n- colour | It is red. | Is it red?", ["attribute"]),
        (
            '```json\n[{"kind": "object", "claim": "A dog.", "question": "A dog?"}]\n```',
            ["presence"],
        ),
        ("object | A dog. | Is there a dog?\nobject | a dog. | Is there a dog?", ["presence"]),
        ("NONE", []),
        ("object | A dog. | Is there a dog?\nIt barks.", None),
        ("object | A dog. | There is a dog.", None),
        ("thing | A dog. | Is there a dog?", None),
        ("object | A dog.", None),
        ("I cannot do that.", None),
        ("", None),
    ],
)
def test_a_split_is_read_strictly(reply: str, kinds: list[str] | int | None) -> None:
    read = read_split(reply)
    if isinstance(kinds, int):
        assert read.verdict is not None and len(read.verdict) == kinds
    else:
        assert (None if read.verdict is None else [claim.kind for claim in read.verdict]) == kinds
    assert bool(read.reason) is (kinds is None)


def test_only_what_coco_knows_has_a_truth() -> None:
    assert split_truth("presence", "There is a dog.", {"dog"}, None) is True
    assert split_truth("presence", "There is a car in the picture.", {"dog"}, None) is False
    assert split_truth("presence", "There is a lighthouse.", {"dog"}, None) is None
    assert split_truth("presence", "A lighthouse stands near a boat.", {"boat"}, None) is None
    assert split_truth("action", "The dog runs.", {"dog"}, None) is None


def judged(
    tmp_path: Path, answers: dict[str, str], split: dict[str, str], yes: tuple[str, ...], **fields: Any
) -> tuple[dict[str, Verdict], dict[str, Any], ChatServer]:
    def say(question: str) -> str:
        if question.startswith("Here is a question about a picture"):
            return next(reply for text, reply in split.items() if f"Answer: {text}" in question)
        return "Yes" if any(word in question for word in yes) else "No"

    with ChatServer(say) as server:
        values = {"run_dir": tmp_path / "run", "image_root": tmp_path, "splitter": "model"}
        values |= {"candidates": candidates(tmp_path, answers), "judge": {"endpoint": server.url}}
        folder = run(validate(Recipe, values | {"min_kind_agreement": 0} | fields, "test"))
    rows = {row.candidate_id: row for row in read_rows(Verdict, folder.final / "verdicts.jsonl")}
    return rows, folder.manifest()["metrics"], server


def test_every_claim_is_asked_once_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = "text | The title is Sales. | Is the title Sales?"
    answers = {"t1#0": LIGHTHOUSE, "t1#1": "A lighthouse.", "t2#0": "The title is Sales.", "t3#0": "hm"}
    split = {LIGHTHOUSE: LINES, "A lighthouse.": LINES.splitlines()[0], "The title": chart, "hm": "What?"}
    rows, metrics, server = judged(tmp_path, answers, split, ("a lighthouse", "red?", "left of", "Sales?"))
    # Three true and two false claims; one true; one true; not split.
    assert {name: row.score for name, row in rows.items()} == {
        "t1#0": -0.5,
        "t1#1": 0.5,
        "t2#0": 0.5,
        "t3#0": None,
    }
    assert rows["t3#0"].unscored_reason == "the splitter's reply has a line that is no claim: 'What?'"
    assert [claim.supported for claim in rows["t1#0"].claims] == [True, True, False, True, False]
    assert (metrics["unsplit"], metrics["claims"], metrics["claims_by_kind"]["attribute"]) == (1, 6, 2)
    assert set(server.answered.values()) == {1} and server.answered.total() == 4 + 6
    said = capsys.readouterr().out
    assert "splitting 4 answers" in said and "7 claims in 4 answers: 6 questions to the judge" in said
    rows, _, _ = judged(tmp_path, answers, split, ("red?",), score="denied", kinds=["presence", "attribute"])
    assert rows["t1#0"].score == -2.0  # no lighthouse, door not open; numbers and relations are not asked
    assert rows["t2#0"].unscored_reason == "no claim to check"


def test_agreement_by_kind_from_labels(tmp_path: Path) -> None:
    labels = [
        ("There is a lighthouse.", True),
        ("The door is open.", True),
        ("There are two sailboats.", False),
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps({"id": "t1#0", "claim": c, "holds": h}) for c, h in labels))
    _, metrics, _ = judged(
        tmp_path, {"t1#0": LIGHTHOUSE}, {LIGHTHOUSE: LINES}, ("a lighthouse",), labels=path
    )
    found = metrics["agreement"]
    assert (found["n"], found["accuracy"]["value"]) == (3, pytest.approx(0.6667))
    assert found["by_kind"]["attribute"]["accuracy"]["value"] == 0.0
    assert found["by_kind"]["number"]["accuracy"]["value"] == 1.0


def test_a_splitter_that_babbles_fails_the_stage(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="2 of the judge's 2 replies could not be read") as error:
        judged(tmp_path, {"t1#0": "one", "t2#0": "two"}, {"one": "Sure!", "two": "Sure! Two."}, ())
    assert "splitter" in (error.value.where or "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"splitter": "model", "score": "chair"}, "splitter: model is for kind claims"),
        ({"kinds": ["presence", "text"]}, "text needs splitter: model"),
        ({"splitter": "model", "split": {"prompt": "Split it."}}, "must contain {answer}"),
        ({"splitter": "model", "split": {"ask": "Well?"}}, "must contain {question}"),
    ],
)
def test_what_a_splitter_lacks_is_a_wrong_recipe(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    values = {"run_dir": tmp_path, "candidates": "c", "image_root": "i", "model": "m"}
    with pytest.raises(RecipeError, match=message):
        validate(Recipe, values | fields, "judge.yaml")
