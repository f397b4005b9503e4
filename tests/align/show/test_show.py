"""`align show`: every kind of file, no text that gets out of its place, and the true loss mask."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from align.cli import main
from align.rows.kinds import file_class
from align.rows.schema import (
    BaseRow,
    Candidate,
    Claim,
    ClaimCount,
    Message,
    Prediction,
    PreferenceRow,
    PromptRow,
    Score,
    SFTRow,
    Span,
    Spans,
    Verdict,
    write_rows,
)
from align.show.catalogue import Catalogue, Filter, Query
from align.show.differences import differences
from align.show.server import Pages, make_server
from align.show.terminal import token_lines
from align.show.tokens import Token, row_tokens
from align.show.views import view
from tests.align.inputs.test_image_tokens import load
from tests.twins import Twins

EVIL = "</dd><script>alert(1)</script>\x1b]0;title\x07"
ASK, ANSWER = Message(role="user", content="What?"), Message(role="assistant", content=f"A cat.{EVIL}")
WORSE = Message(role="assistant", content="A dog.")
ROWS: list[BaseRow] = [
    SFTRow(id="a", images=["a.png", "gone.png"], messages=[ASK, ANSWER]),
    PromptRow(id="b", images=["a.png"], prompt=[ASK], meta={"split": "dev"}),
    PreferenceRow(
        id="c",
        images=["a.png"],
        rejected_images=["a.png"],
        prompt=[ASK],
        chosen=[ANSWER],
        rejected=[WORSE],
        spans=Spans(rejected=[Span(start=2, end=5, weight=3.0)]),
    ),
    Candidate(id="d#0", prompt_id="d", prompt=[ASK], text=EVIL, finish_reason="stop", num_tokens=3),
    Verdict(
        candidate_id="e",
        prompt_id="d",
        judge="j",
        prompt_sha256="0",
        score=None,
        unscored_reason="no answer",
        claims=[Claim(text="a cat", question="Is there a cat?", p_yes=0.25, p_no=0.5)],
        counts=[ClaimCount(kind="number", true=1, left_out=2)],
        repeated=["cat"],
    ),
    Prediction(key="k", task="pope", sample_id="f", error="time-out"),
    Score(task="pope", sample_id="g", cluster="img", values={"correct": 1.0}, parsed="yes"),
]
SHOWS = {
    "SFTRow": ["assistant", "A cat.</dd>"],
    "PromptRow": ["user", "split: dev"],
    "PreferenceRow": ["chosen", "rejected", "A dog.", "spans of rejected: 'dog' x3", "worse images"],
    "Candidate": ["answer", "finish_reason: stop"],
    "Verdict": [
        "score: unscored",
        "unscored_reason: no answer",
        "Is there a cat? yes 0.250, no 0.500",
        "number: 1 true, 2 left_out",
        "named again: cat",
    ],
    "Prediction": ["failed", "time-out"],
    "Score": ["correct: 1.0", "parsed: yes"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (200, 30, 90)).save(tmp_path / "a.png")
    return tmp_path


def show(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main(["show", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_file_that_cannot_be_read_as_rows_says_why(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "rows.jsonl").write_bytes('{"id": "é"}\n'.encode("latin-1"))
    assert main(["show", str(root / "rows.jsonl")]) == 1
    assert "its first row is not UTF-8: byte 0xe9 at column 9" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("dcotor", "doctor"), ("pln", "plan"), ("dpoo", "dpo")])
def test_a_mistyped_command_is_told_the_nearest_of_all(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == 2
    assert f"unknown command {typed!r} (did you mean {meant!r}?)" in capsys.readouterr().err


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_every_kind_in_the_terminal_and_on_a_page(
    row: BaseRow, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = root / "rows.jsonl", root / "page.html"
    write_rows(file, [row])
    name = type(row).__name__
    assert file_class(file) is type(row)
    shown = show(capsys, file, "--html", page)
    assert f": {name}\n" in shown
    assert [text for text in SHOWS[name] if text not in shown] == []
    assert "\x1b" not in shown and "\x07" not in shown
    html = page.read_text()
    assert "<script" not in html and "script-src" not in html
    assert html.count("<img ") == html.count('src="data:image/jpeg;base64,')
    expected = {"SFTRow": 1, "PromptRow": 1, "PreferenceRow": 2}.get(name, 0)
    assert html.count("<img ") == expected
    if name == "SFTRow":
        assert "missing image: gone.png" in html


def test_some_of_the_rows(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "rows.parquet"
    write_rows(file, [SFTRow(id=f"r{k}", messages=[ASK, ANSWER]) for k in range(9)])
    shown = show(capsys, file, "--rows", 2, "--start", 3)
    assert [line for line in shown.splitlines() if line.startswith("--")] == ["-- r3", "-- r4"]
    assert "-- r8" in show(capsys, file, "--id", "r8")


def test_a_start_beyond_the_end_and_an_unknown_id_are_said(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rows.parquet", "rows.jsonl"):
        write_rows(root / name, [SFTRow(id=f"r{k}", messages=[ASK, ANSWER]) for k in range(3)])
        assert "no row from 3 on: the file has 3" in show(capsys, root / name, "--start", 3)
        assert "no row has the id r9" in show(capsys, root / name, "--id", "r9")
    with pytest.raises(SystemExit):
        main(["show", str(root / "rows.jsonl"), "--start", "-1"])


def test_a_verdict_is_shown_with_its_picture_and_answer(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(number: int) -> Candidate:
        text = f"A cat, number {number}."
        return Candidate(
            id=f"d#{number}",
            prompt_id="d",
            images=["a.png"],
            prompt=[ASK],
            text=text,
            finish_reason="stop",
            num_tokens=3,
        )

    def verdict(number: int) -> Verdict:
        return Verdict(
            candidate_id=f"d#{number}", prompt_id="d", judge="j", prompt_sha256="0", score=-float(number)
        )

    write_rows(root / "candidates.jsonl", [answer(number) for number in range(4)])
    (root / "judge").mkdir()
    write_rows(root / "judge" / "verdicts.jsonl", [verdict(number) for number in (3, 0, 2)])
    words = [
        root / "judge" / "verdicts.jsonl",
        "--candidates",
        root / "candidates.jsonl",
        "--image_root",
        root,
    ]
    shown = show(capsys, *words, "--html", root / "page.html")
    assert "A cat, number 3." in shown and "A cat, number 1." not in shown
    page = (root / "page.html").read_text()
    assert page.count("data:image/jpeg") == 3 and "number 2" in page and "score: -3" in page
    recipe = f"candidates: {root / 'candidates.jsonl'}\nimage_root: {root}\n"
    (root / "judge" / "recipe.yaml").write_text(recipe)
    assert "number 0" in show(capsys, root / "judge" / "verdicts.jsonl", "--id", "d#0")
    assert main(["show", str(words[0]), "--candidates", "none.jsonl"]) == 1


def test_what_a_stage_writes_beside_its_rows_is_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"where": "f:3", "reason": "a video", "detail": "", "row": {"id": "x", "text": EVIL}}
    (root / "quarantine.jsonl").write_text(json.dumps(record) + "\n")
    shown = show(capsys, root / "quarantine.jsonl")
    assert "-- f:3" in shown and "reason: a video" in shown and "\x1b" not in shown
    (root / "duplicates.jsonl").write_text('{"id": "p1", "kind": "exact", "of": "p0"}\n')
    assert "kind: exact" in show(capsys, root / "duplicates.jsonl")


def test_differences_are_whole_texts_in_pieces() -> None:
    for one, other, marked in (
        ("A cat on a mat.", "A dog on a mat.", (["cat"], ["dog"])),
        ("桌上有一只猫", "桌上有两只猫", (["一"], ["两"])),
        ("same", "same words", ([], ["words"])),
    ):
        found = differences(one, other)
        assert ["".join(piece for _, piece in side) for side in found] == [one, other]
        assert tuple([piece for differs, piece in side if differs] for side in found) == marked


def catalogue_of(number: int) -> Catalogue:
    found = Catalogue()
    for k in range(number):
        chosen, rejected = "a " * (k % 7 + 1) + EVIL, "b " * (k % 5 + 1)
        row = PreferenceRow(
            id=f"p{k}",
            images=["a.png", "../secret.png"],
            prompt=[ASK],
            chosen=[Message(role="assistant", content=chosen)],
            rejected=[Message(role="assistant", content=rejected)],
            meta={"source": ["x", "y"][k % 2], "score": k / 4, "note": "\ud83d cut"}
            | ({"late": "yes"} if k == 9 else {}),
        )
        found.add(view(row))
    return found


def test_rows_are_filtered_and_sorted_by_any_column() -> None:
    found = catalogue_of(20)
    assert {"source", "score", "words of chosen", "words, chosen minus rejected", "pictures", "late"} <= set(
        found.columns
    )
    by_score = Query(sort="score", descending=True)
    assert [place for place, _ in found.page(by_score, 0, 3)] == [19, 18, 17]
    assert [place for place, _ in found.page(by_score, 18, 9)] == [1, 0]
    only = Query(filters=(Filter("source", "is", "y"), Filter("score", "at least", "4")))
    assert found.found(only) == 2 and [place for place, _ in found.page(only, 0, 9)] == [17, 19]
    assert found.found(Query(filters=(Filter("late", "is not", "yes"),))) == 19
    assert found.found(Query(filters=(Filter("id", "contains", "P1"),))) == 11
    assert found.found(Query(words="b b b b b script")) == 20 and found.found(Query(words="nowhere")) == 0
    assert (
        found.found(Query(filters=(Filter("no such", "is", "1"), Filter("score", "drop table", "1")))) == 20
    )
    longest = found.page(Query(sort="words, chosen minus rejected", descending=True), 0, 1)[0][1]
    assert longest.id == "p6" or longest.id == "p5"
    found.close()


@pytest.fixture
def served(root: Path) -> Iterator[str]:
    catalogue = catalogue_of(60)
    server = make_server(Pages("pairs", catalogue, root), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    catalogue.close()


def test_the_server_pages_rows_and_gives_nothing_else(served: str, root: Path) -> None:
    (root.parent / "secret.png").write_bytes((root / "a.png").read_bytes())
    first = httpx.get(served + "/?sort=score&order=down")
    assert first.status_code == 200 and "page 1 of 3" in first.text and "60 of 60 rows" in first.text
    assert first.text.index("p59") < first.text.index("p58") and first.text.count("<article") == 25
    assert "<script" not in first.text and "leaves the image root" in first.text
    assert "img-src &#39;self&#39;" in first.text and "http" not in first.text.replace("http-equiv", "")
    last = httpx.get(served + "/?page=999")
    assert "page 3 of 3" in last.text and last.text.count("<article") == 10
    some = httpx.get(served + "/", params={"f": "source", "o": "is", "v": "<b>", "q": "x"})
    assert "No row meets this" in some.text and "source is &lt;b&gt;" in some.text
    assert httpx.get(served + "/?page=-1&page=x&f=a&sort=none&q=%00%ff").status_code == 200
    picture = httpx.get(served + "/picture/0/0")
    assert picture.headers["content-type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"
    for path in (
        "/picture/0/1",
        "/picture/0/7",
        "/picture/99/0",
        "/picture/0/0/0",
        "/a.png",
        "/..%2fsecret.png",
    ):
        assert httpx.get(served + path).status_code == 404, path
    assert httpx.get(served + "/", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.post(served + "/").status_code == 501


def test_what_is_no_file_of_ours_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "x.jsonl").write_text(json.dumps({"question": "?"}) + "\n")
    assert main(["show", str(root / "x.jsonl")]) == 1
    assert "its first row has the keys question" in capsys.readouterr().err
    assert main(["show", str(root)]) == 1
    assert "x.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_the_mask_is_on_the_answers_and_their_ends(twins: Twins, root: Path, family: str) -> None:
    processor = load(twins(family))
    turns = [
        ASK,
        Message(role="assistant", content="A cat."),
        ASK,
        Message(role="assistant", content="A dog."),
    ]
    row = SFTRow(id="1", images=["a.png"], messages=turns)
    ((_, tokens),) = row_tokens(row, processor, root)
    end = processor.tokenizer.eos_token
    learnt = "".join(token.text for token in tokens if token.learnt)
    assert learnt.replace(" ", "") == f"Acat.{end}Adog.{end}"
    runs = [token for token in tokens if token.count > 1]
    assert [run.text for run in runs] == [processor.image_token]
    pixels = processor(text=[processor.image_token], images=[Image.open(root / "a.png")])
    assert runs[0].count == pixels["input_ids"][0].count(processor.image_token_id) and not runs[0].learnt


def test_a_pairs_prompt_is_not_learnt_and_both_answers_are(twins: Twins, root: Path) -> None:
    processor = load(twins("llava"))
    row = PreferenceRow(
        id="1",
        images=["a.png"],
        prompt=[ASK],
        chosen=[Message(role="assistant", content="A cat.")],
        rejected=[WORSE],
    )
    found = dict(row_tokens(row, processor, root))
    end = processor.tokenizer.eos_token
    for side, text in (("chosen", f"Acat.{end}"), ("rejected", f"Adog.{end}")):
        assert "".join(t.text for t in found[side] if t.learnt).replace(" ", "") == text
        assert not next(token for token in found[side] if token.count > 1).learnt


def test_tokens_without_colour_are_in_brackets() -> None:
    tokens = [Token("<image>", False, 5), Token("A", True), Token("\n", True), Token("\x1b", False)]
    assert token_lines(tokens, colour=False) == [
        "   2 of 8 tokens are learnt",
        "   <image>(x5)[A\\n",
        "   ]\ufffd",
    ]


def test_tokens_on_the_page(twins: Twins, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = root / "rows.jsonl", root / "page.html"
    write_rows(file, [SFTRow(id="1", images=["a.png"], messages=[ASK, WORSE])])
    shown = show(capsys, file, "--tokens", twins("llava"), "--html", page)
    assert "tokens are learnt" in shown
    assert '<span class="learnt">' in page.read_text() and "&times;16</span>" in page.read_text()
