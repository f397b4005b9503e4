"""What changed unasked: phrases counted by hand, measures ranked by z, page, Markdown and JSON agree."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.rows.schema import Score
from evals.report.captions import Caption
from evals.report.load import load_results
from evals.report.ngrams import distinct_changes, phrase_changes, phrases_in
from evals.report.stage import Recipe, run
from evals.report.unasked import find_unasked, standardised
from tests.evals.report.report_data import THREE, hand_made, line, write_scores


def captions(*texts: str, invented: str = "", clusters: list[str] | None = None) -> list[Caption]:
    """Captions with ids 0, 1, ...; the word `invented` is one that is not there."""
    found = []
    for index, text in enumerate(texts):
        at = text.find(invented) if invented else -1
        mentions = [
            {"start": at, "end": at + len(invented), "category": invented, "invented": True, "sentence": 0}
        ]
        cluster = clusters[index] if clusters else str(index)
        found.append(Caption(str(index), cluster, text, mentions if at >= 0 else []))
    return found


def test_phrases_of_a_caption_by_hand() -> None:
    """Lower case, no phrase over a full stop, none with an invented object's word."""
    [caption] = captions("A dog's Ball. Two cats", invented="cats")
    assert [phrase for phrase, _, _ in phrases_in(caption)] == [
        ("a",), ("a", "dog's"), ("a", "dog's", "ball"), ("dog's",), ("dog's", "ball"), ("ball",), ("two",),
    ]  # fmt: skip
    assert [caption.text[start:end] for _, start, end in phrases_in(caption)][2] == "A dog's Ball"


def test_gains_and_losses_by_hand() -> None:
    """Of ten captions eight gain `lovely`, one loses it, one has it twice: z = 7 / 3, p = 2 (1 + 9) / 2^9."""
    before = captions(*["a dog"] * 8, "a lovely dog", "a lovely dog")
    after = captions(*["a lovely dog"] * 8, "a dog", "a lovely dog")
    found = {item.text: item for item in phrase_changes(before, after)}
    lovely = found["a lovely dog"]
    assert (lovely.before, lovely.after, lovely.total) == (2, 9, 10)
    assert (len(lovely.gained), lovely.lost) == (8, ["8"])
    assert lovely.z == pytest.approx(7 / 3) and lovely.p == pytest.approx(20 / 512)
    assert found["a dog"].z == pytest.approx(-7 / 3)
    assert lovely.p_holm == pytest.approx(lovely.p * 4)  # tested: it, `a dog`, `a` and `dog`


def test_a_phrase_inside_a_longer_one_with_its_counts_is_shown_once() -> None:
    before, after = captions(*["cups stand"] * 6), captions(*["on the table"] * 6)
    assert [item.text for item in phrase_changes(before, after)] == ["cups stand", "on the table"]
    after = captions(*["on the table"] * 5, "on a hill")
    texts = [item.text for item in phrase_changes(before, after)]
    assert texts == ["cups stand", "on", "on the table"]  # `the` is only in the longer one, `on` is not
    assert [item.text for item in distinct_changes(phrase_changes(before, after), 5)] == ["cups stand", "on"]


def test_rare_phrases_are_not_tested_and_invented_words_not_counted() -> None:
    before, after = captions(*["it is"] * 10), captions(*["it is"] * 6, *["it was"] * 4)
    assert [item.text for item in phrase_changes(before, after)] == ["it is", "it"]
    before = captions(*["a dog and a zebra"] * 9, invented="zebra")
    after = captions(*["a dog"] * 9)
    assert "zebra" not in {word for item in phrase_changes(before, after) for word in item.phrase}


def test_captions_of_one_picture_are_one_case() -> None:
    """Six captions of two pictures gain a word: z = (4 + 2) / sqrt(16 + 4), and p = 1/2, of two cases."""
    clusters = ["p", "p", "p", "p", "q", "q"]
    before = captions(*["it"] * 6, clusters=clusters)
    after = captions(*["really"] * 6, clusters=clusters)
    found = {item.text: item for item in phrase_changes(before, after)}["really"]
    assert found.z == pytest.approx(6 / math.sqrt(20)) and found.p == pytest.approx(0.5)


def row(sample: str, text: str, values: dict[str, float], image: str) -> Score:
    meta: dict[str, Any] = {"text": text, "mentions": [], "mentions_strict": [], "label": [], "image": image}
    return Score(task="chair", sample_id=sample, cluster=sample, values=values, meta=meta)


HOSTILE = "<b>x</b> & a cup"


def scores_of(folder: Path, num: int = 30) -> Path:
    """DPO says "as well" in every caption; repeats fall by chance, mentions rise for certain."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "images" / "1.png")
    told = {"primary": False, "measures": "invention"}
    lines = [
        line("chair", "chair_s", (40, 40, 20), -26, -14),
        line("chair", "recall", (80, 80, 80), -2, 2, **told),
        line("chair", "distinct_invention", (20, 20, 10), -11, -9, **told, higher_is_better=False),
        line("chair", "mentions", (2, 2, 3), 0.8, 1.2, **told, higher_is_better=None, points=True, mde=0.28),
        line("chair", "quiet", (2, 2, 2.1), -0.1, 0.3, **told, higher_is_better=None),
        line("vqa", "accuracy", (80, 80, 70), -12, -8, mde=3.5),
    ]
    sides = {
        "base": [row(str(i), "a cup", {"m": 2, "c": 1}, "1.png") for i in range(num)],
        "sft": [row(str(i), HOSTILE, {"m": 2, "c": 1}, "1.png") for i in range(num)],
        "dpo": [row(str(i), f"{HOSTILE} as_well as", {"m": 3, "c": 1}, "1.png") for i in range(num)],
    }
    scores = hand_made(folder / "score", lines, sides)
    definition = {"name": "mentions", "numerator": {"m": 1}, "denominator": {"c": 1}}
    (scores / "definitions.json").write_text(json.dumps({"chair": [definition]}))
    return scores


def test_measures_are_ranked_and_what_was_aimed_at_left_out(tmp_path: Path) -> None:
    results = load_results(scores_of(tmp_path))
    found = find_unasked(results, None, 0, {})
    assert found.aimed_at == ["chair_s", "distinct_invention"]
    assert found.num_measures == 4  # recall, mentions, quiet, accuracy
    assert [item.line.metric for item in found.measures] == ["mentions", "accuracy"]
    [first, second] = found.measures
    # The smallest detectable effect is 2.8016 standard errors: +1 / 0.1 and -10 / 1.25.
    assert first.z == pytest.approx(10, rel=0.01) and second.z == pytest.approx(-8, rel=0.01)
    assert first.p_holm == pytest.approx(0.004)
    assert standardised(results.metrics[0]) == pytest.approx(-20 / (2 / 2.8016), rel=0.001)


def test_page_markdown_and_json_agree_and_escape(tmp_path: Path) -> None:
    scores = scores_of(tmp_path)
    folder = run(Recipe(run_dir=tmp_path, scores=scores, image_root=tmp_path / "images")).final
    page, markdown = ((folder / f"report.{name}").read_text() for name in ("html", "md"))
    found = json.loads((folder / "report.json").read_text())["unasked"]
    assert [item["metric"] for item in found["measures"]] == ["mentions", "accuracy"]
    [phrase] = found["phrases"]
    assert phrase["phrase"] == "a cup as_well"  # as `cup as_well as`, which says the same
    assert (phrase["before"], phrase["after"], phrase["gained"], phrase["lost"]) == (0, 30, 30, 0)
    assert phrase["z"] == pytest.approx(math.sqrt(30), abs=1e-4)
    assert phrase["example"]["before"] == HOSTILE and phrase["example"]["after"] == f"{HOSTILE} as_well as"
    assert "What changed most that nobody asked for" in page and '<a href="#unasked">' in page
    assert "### What changed most that nobody asked for" in markdown
    mark = '<mark class="said" title="a cup as_well">a cup as_well</mark> as'
    assert f"{html.escape('<b>x</b> & ')}{mark}" in page and "<b>x</b>" not in page
    assert "“a cup as\\_well”" in markdown and "<b>x" not in markdown
    assert page.count('class="case"') == 2  # one of the mentions, one of the phrase
    section = page[page.index('id="unasked"') : page.index('id="examples"')]
    assert section.count("data:image/png") == 2
    for name in ("CHAIR · Mentions", "VQA · Accuracy"):
        assert name in section and name in markdown
    assert "+5.5" in section and "+5.5" in markdown


def test_nothing_beyond_chance_is_no_section(tmp_path: Path) -> None:
    lines = [line("chair", "chair_s", (40, 40, 36), -9, 1), line("vqa", "accuracy", (80, 80, 80), -2, 2)]
    scores = hand_made(tmp_path / "score", lines)
    folder = run(Recipe(run_dir=tmp_path, scores=scores)).final
    assert "nobody asked for" not in (folder / "report.html").read_text()
    assert "nobody asked for" not in (folder / "report.md").read_text()
    found = json.loads((folder / "report.json").read_text())["unasked"]
    assert found["measures"] == [] == found["phrases"] and found["tested"]["measures"] == 1


def test_an_object_named_less_because_it_was_invented_is_not_told(tmp_path: Path) -> None:
    """Simulated checkpoints that differ in inventing: no phrase with an invented object's name alone."""
    habits = {"sft": THREE["sft"], "dpo": THREE["dpo"]}
    scores = write_scores(tmp_path, habits, num_images=40)
    results = load_results(scores)
    assert results.definitions["chair"]
    rows = results.rows["chair"]["dpo"]
    assert results.sums_in(rows[0], "chair_s") in ((0.0, 1.0), (1.0, 1.0))
    assert results.sums_in(rows[0], "no_such") is None
    folder = run(Recipe(run_dir=tmp_path, scores=scores, name="one")).final
    again = run(Recipe(run_dir=tmp_path, scores=scores, name="two")).final
    assert (folder / "report.html").read_bytes() == (again / "report.html").read_bytes()
