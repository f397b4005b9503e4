"""The report: verdicts on hand-made cases, keys, escaping, offline, size, equal bytes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evals.report.captions import match_lengths, read_captions
from evals.report.sides import judge_panel, pairs_panel
from evals.report.stage import Recipe, run
from evals.report.svg import fit
from evals.report.text import Span, clean, mark_spans
from tests.evals.report.report_data import THREE, caption_row, hand_made, line, write_scores

BETTER = [
    line("chair", "chair_s", (40, 40, 20), -26, -14),
    line("chair", "chair_i", (15, 15, 7), -10, -6),
    line("chair", "recall", (80, 80, 80), -2, 2),
    line("vqa", "accuracy", (40, 80, 80.5), -0.5, 1.5),
]
HOSTILE = {
    0: "<script>document.title='owned'</script><img src=x onerror=alert(1)> a dog.",
    1: "a dog. " * 5_000 + "grass, " * 150_000,
    2: "",
    3: "Yes",
    4: '"><svg onload=alert(1)> \u202e evil \x00 \x1b[31m</mark></style> a cat',
    5: "[a](javascript:alert(1)) `x` | cell | </details> a cup",
}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scores(tmp_path_factory.mktemp("report"), THREE, num_images=40)


def report(scores: Path, out: Path, **more: Any) -> tuple[dict[str, Any], str, str]:
    """(report.json, report.html, report.md) of a run."""
    folder = run(Recipe(run_dir=out, scores=scores, **more)).final
    read = {name: (folder / f"report.{name}").read_text(encoding="utf-8") for name in ("json", "html", "md")}
    return json.loads(read["json"]), read["html"], read["md"]


def replaced(lines: list[dict[str, Any]], *changes: dict[str, Any]) -> list[dict[str, Any]]:
    keys = {(change["task"], change["metric"]): change for change in changes}
    return [keys.get((item["task"], item["metric"]), item) for item in lines]


RECALL_LOST = line("chair", "recall", (80, 80, 70), -12, -8)
VQA_LOST = line("vqa", "accuracy", (40, 80, 76), -6, -2)
VQA_UNSURE = line("vqa", "accuracy", (40, 80, 78), -6, 2)
SAME = [line("chair", "chair_s", (40, 40, 36), -9, 1), line("chair", "chair_i", (15, 15, 14), -3, 1)]
MORE = [line("chair", "chair_s", (40, 40, 50), 4, 16), line("chair", "chair_i", (15, 15, 20), 2, 8)]


@pytest.mark.parametrize(
    ("status", "changes", "words"),
    [
        ("better", [], "invents fewer objects than"),
        ("recall_lost", [RECALL_LOST], "names fewer that are there"),
        ("answers_worse", [VQA_LOST], "answers questions worse"),
        ("answers_worse", [VQA_UNSURE], "not shown to answer questions as well"),
        ("no_effect", SAME, "No reliable difference"),
        ("worse", MORE, "invents more objects"),
        ("no_captions", None, "not compared on captions"),
    ],
)
def test_verdict_of_numbers(tmp_path: Path, status: str, changes: Any, words: str) -> None:
    lines = [BETTER[3]] if changes is None else replaced(BETTER, *changes)
    found, page, markdown = report(hand_made(tmp_path / "score", lines), tmp_path)
    assert found["verdict"]["status"] == status
    assert words in found["verdict"]["headline"]
    assert found["verdict"]["headline"] in page and found["verdict"]["headline"] in markdown
    gates = found["verdict"]["gates"]
    assert gates["fewer_inventions"] is (
        {"no_captions": None}.get(status, status not in ("no_effect", "worse"))
    )


PROBED = line("pope", "f1", (80, 80, 85), 3, 7)
AMBER = line("amber", "chair", (9, 9, 6), -4, -2, measures="invention", higher_is_better=False)
VQA_KEPT = line("vqa", "accuracy", (40, 80, 80.5), -0.5, 1.5)


@pytest.mark.parametrize(
    ("status", "lines", "words"),
    [
        ("better", [PROBED], "DPO is right more often than SFT about what is there."),
        ("worse", [line("pope", "f1", (80, 80, 75), -7, -3)], "wrong more often"),
        ("no_effect", [line("pope", "f1", (80, 80, 81), -1, 3)], "on what is there"),
        ("answers_worse", [PROBED, VQA_LOST], "but not shown to answer other questions as well"),
        ("fooled_more", [*BETTER, line("pope", "f1", (80, 80, 75), -7, -3)], "fooled more often when asked"),
        ("better", [AMBER, VQA_KEPT], "DPO invents fewer objects than SFT."),
        (
            "answers_worse",
            [*BETTER, line("gqa", "accuracy", (60, 60, 55), -7, -3)],
            "answers questions worse",
        ),
    ],
)
def test_verdict_of_other_tasks(tmp_path: Path, status: str, lines: Any, words: str) -> None:
    found, page, _ = report(hand_made(tmp_path / "score", lines), tmp_path)
    assert found["verdict"]["status"] == status
    assert words in found["verdict"]["headline"] and words in page


def test_a_loss_that_is_not_ruled_out_is_said(tmp_path: Path) -> None:
    lines = replaced(BETTER, line("vqa", "accuracy", (40, 80, 79.5), -3, 2))
    found, _, _ = report(hand_made(tmp_path / "score", lines), tmp_path)
    assert found["verdict"]["status"] == "better"
    assert found["verdict"]["gates"]["vqa_not_inferior"] is None
    assert "does not rule one out" in found["verdict"]["summary"]


def captions(count: int, build) -> list:
    return [caption_row(*build(index), sample_id=str(index)) for index in range(count)]


def test_only_shorter_is_said(tmp_path: Path) -> None:
    """DPO's captions are SFT's without the last two of four sentences: what a blind cut does as well."""
    truth = ["dog", "cup", "car"]

    def names(index: int) -> list[str]:
        return ["dog", "cup", "car", "zebra"] if index % 2 else ["dog", "cup", "zebra", "car"]

    full = captions(80, lambda index: (names(index), truth))
    cut = captions(80, lambda index: (names(index)[:2], truth))
    folder = hand_made(tmp_path / "score", BETTER, {"base": full, "sft": full, "dpo": cut})
    found, page, _ = report(folder, tmp_path)
    assert found["verdict"]["status"] == "shorter"
    assert found["verdict"]["gates"]["not_only_shorter"] is False
    assert "says less; it is not shown to see better" in page


def test_shorter_by_inventions_alone_is_better(tmp_path: Path) -> None:
    """DPO's captions are SFT's without the invented sentence, wherever it stood: no blind cut does that."""
    truth = ["dog", "cup", "car"]
    full = captions(
        80, lambda index: (["dog", "zebra", "cup", "car"] if index % 2 else ["dog", "cup", "car"], truth)
    )
    right = captions(80, lambda _: (["dog", "cup", "car"], truth))
    folder = hand_made(tmp_path / "score", BETTER, {"base": full, "sft": full, "dpo": right})
    found, _, _ = report(folder, tmp_path)
    assert found["verdict"]["status"] == "better"
    assert found["verdict"]["gates"]["not_only_shorter"] is True


def test_a_cut_that_lowers_the_rate_as_much_is_told(tmp_path: Path) -> None:
    """SFT invents in its last sentence: a blind cut drops that too, but names one thing for DPO's two."""
    truth = ["dog", "cup"]
    full = captions(80, lambda _: (["dog", "dog", "cup", "zebra"], truth))
    right = captions(80, lambda _: (["dog", "cup"], truth))
    folder = hand_made(tmp_path / "score", BETTER, {"base": full, "sft": full, "dpo": right})
    verdict = report(folder, tmp_path)[0]["verdict"]
    assert verdict["status"] == "better" and verdict["gates"]["not_only_shorter"] is True
    assert "At equal length the rate is not shown to be lower" in verdict["summary"]
    assert "do not explain" not in verdict["summary"]


def test_equal_length_by_hand() -> None:
    """Eight words against four: a cut of 50% keeps `There is a dog.`; then 0 of 1 mentions on both sides."""
    before = read_captions([caption_row(["dog", "zebra"], ["dog"])])
    after = read_captions([caption_row(["dog"], ["dog"])])
    share, words, objects = match_lengths(before, after, seed=0)
    for found in (share, words, objects):
        assert (found.chair_before, found.chair_after) == (0, 0)
    assert (share.words_before, share.words_after) == (4, 4)
    assert before[0].num_words == 8 and before[0].num_invented == 1
    assert not share.is_better


def test_json_has_the_promised_keys(scores: Path, tmp_path: Path) -> None:
    found, _, _ = report(scores, tmp_path)
    promised = {
        "task",
        "metric",
        "split",
        "higher_is_better",
        "values",
        "steps",
        "delta",
        "ci_low",
        "ci_high",
        "p",
        "n",
        "clusters",
    }
    assert {"metrics", "health", "verdict", "provenance"} <= found.keys()
    assert all(promised <= item.keys() for item in found["metrics"])
    assert {item["task"] for item in found["metrics"]} == {"chair", "pope", "vqa"}
    for item in found["metrics"]:
        assert item["delta"] == pytest.approx(item["values"]["dpo"] - item["values"]["sft"], abs=1e-5)
    assert found["health"]["dpo"]["chair"]["n"] == 40
    assert found["provenance"]["checkpoints"]["dpo"].startswith("dpo0")
    assert found["provenance"]["sampling"] == {"temperature": 0.0}
    assert {card["task"] for card in found["provenance"]["tasks"]} == {"chair", "pope", "vqa"}


def test_equal_inputs_give_equal_bytes_and_no_paths(scores: Path, tmp_path: Path) -> None:
    first, second = (report(scores, tmp_path / name, num_examples=8) for name in ("one", "two"))
    assert first == second
    assert str(scores.parent) not in first[1]
    assert str(scores.parent) not in json.dumps(first[0])


class Page(HTMLParser):
    """All tags with their attributes, and the text outside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text.append(data)


def test_page_is_offline_and_has_no_inline_handlers(scores: Path, tmp_path: Path) -> None:
    _, text, _ = report(scores, tmp_path)
    page = Page(text)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert value and value.startswith(("data:image/", "#")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert not re.search(r"@import|url\(", text)
    policy = next(
        value for tag, a in page.tags if tag == "meta" and a.get("http-equiv") and (value := a["content"])
    )
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_hostile_texts_are_shown_and_harm_nothing(tmp_path: Path) -> None:
    def change(name: str, sample: Any, text: str) -> str | None:
        number = int(re.sub(r"\D", "", sample.id)[-4:] or 0)
        is_caption = "official" in sample.reference
        if number % 8 == 1:  # a megabyte once, not of every checkpoint and in every task
            return HOSTILE[1] if is_caption and number == 1 and name == "dpo" else text
        return None if number % 8 == 6 else HOSTILE.get(number % 8, text)

    scores = write_scores(tmp_path, THREE, num_images=24, change=change)
    found, text, markdown = report(scores, tmp_path, num_examples=60)
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and names.count("style") == 1
    assert all(str(a.get("src")).startswith("data:image/") for tag, a in page.tags if tag == "img")
    shown = "".join(page.text)
    assert "<script>document.title" in shown and '"><svg onload=alert(1)>' in shown
    assert "characters in all" in shown and "empty answer" in shown
    assert not set("\u202e\x00\x1b") & set(text)
    assert len(text) < 5_000_000
    assert found["health"]["sft"]["chair"]["failed"] == 3 and found["health"]["sft"]["chair"]["empty"] == 3
    assert found["verdict"]["gates"]["answers_healthy"] is False
    assert "<script>" not in markdown


def test_lone_surrogates_and_bad_rows(scores: Path, tmp_path: Path) -> None:
    """Rows that are damaged on disk are counted and named; half a surrogate pair is replaced."""
    import shutil

    folder = tmp_path / "score"
    shutil.copytree(scores, folder)
    path = folder / "rows" / "dpo" / "chair.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[0])
    row["meta"]["text"] = "a \ud800 dog"
    lines[0], lines[1] = json.dumps(row), '{"task": "chair", "sample'
    path.write_text("\n".join(lines) + "\n")
    found, text, _ = report(folder, tmp_path, num_examples=60, seed=3)
    text.encode("utf-8")
    assert "score rows could not be read" in text
    assert found["verdict"]["gates"]["answers_healthy"] is False


def test_sixty_pictures_fit(scores: Path, tmp_path: Path) -> None:
    _, text, _ = report(scores, tmp_path, num_examples=60)
    page = Page(text)
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) >= 40 and all(a["alt"] for a in pictures)
    assert len(text.encode()) < 5_000_000


def test_two_checkpoints_of_any_name(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, {"round-1": THREE["sft"], "round-2": THREE["dpo"]}, num_images=20)
    found, text, markdown = report(scores, tmp_path)
    assert found["checkpoints"] == ["round-1", "round-2"]
    assert "round-2" in found["verdict"]["headline"] and "round-1 → round-2" in text
    assert "round-2 − round-1" in markdown


def test_one_checkpoint_is_described_and_not_compared(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, {"base": THREE["base"]}, num_images=20)
    found, text, markdown = report(scores, tmp_path)
    assert found["verdict"]["status"] == "single" and found["verdict"]["headline"] == "What base scores."
    line = next(item for item in found["metrics"] if item["metric"] == "chair_i")
    low, high = line["ci"]["base"]
    assert low < line["values"]["base"] < high and line["delta"] is None
    assert f"[{low:.1f}, {high:.1f}]" in text and f"\\[{low:.1f}, {high:.1f}\\]" in markdown
    assert 'id="step"' not in text and ">MDE<" not in text


def test_four_checkpoints_each_against_the_one_before_and_the_first(tmp_path: Path) -> None:
    names = {"base": "base", "sft": "sft", "round-1": "dpo", "round-2": "dpo"}
    scores = write_scores(tmp_path, {name: THREE[like] for name, like in names.items()}, num_images=20)
    found, text, _ = report(scores, tmp_path)
    for item in found["metrics"]:
        steps = {(one, two): step for one, to in item["steps"].items() for two, step in to.items()}
        assert list(steps) == [
            ("base", "sft"), ("base", "round-1"), ("base", "round-2"), ("sft", "round-1")
        ]  # fmt: skip
        for (before, after), step in steps.items():
            change = item["values"][after] - item["values"][before]
            assert step["delta"] == pytest.approx(change, abs=2e-6)
            assert (step["p_holm"] is not None) == item["primary"]
    options = [f"{two} − {one}" for one, two in (("SFT", "round-1"), ("base", "round-2"))]
    assert all(f">{option}</option>" in text for option in options)


def test_curves_judge_and_pairs_are_drawn(scores: Path, tmp_path: Path) -> None:
    log = [
        {
            "step": step,
            "loss": 0.7 - step / 100,
            "rewards/margins": step / 50,
            "rewards/accuracies": 0.5 + step / 100,
        }
        for step in range(1, 30)
    ]
    for name in ("dpo", "judge", "pairs"):
        (tmp_path / name).mkdir()
    (tmp_path / "dpo" / "train_log.jsonl").write_text("\n".join(map(json.dumps, log)))
    agreement = {"n": 900, "clusters": 90, "kappa": {"value": 0.861, "ci_low": 0.8, "ci_high": 0.9}}
    (tmp_path / "judge" / "agreement.json").write_text(json.dumps(agreement))
    pairs = {"pairs": 1234, "prompts": 600, "length_gap": {"by_margin": -2.91, "after": 0.02}}
    (tmp_path / "pairs" / "manifest.json").write_text(json.dumps({"metrics": pairs}))
    _, text, _ = report(
        scores,
        tmp_path,
        training={"dpo": tmp_path / "dpo"},
        judge=tmp_path / "judge",
        pairs=tmp_path / "pairs",
    )
    assert "DPO: reward margin" in text and "DPO: pairs ranked right" in text
    assert "0.86 [0.80, 0.90]" in text and "900 claims about 90 held-out pictures" in text
    assert "1,234 from 600 prompts" in text and "−2.91" in text and "+0.02" in text


def test_dev_curves_show_the_kept_step_and_answers_as_text(scores: Path, tmp_path: Path) -> None:
    def checked(step: int, delta: float) -> dict[str, Any]:
        one = {"value": 20 + delta, "delta": delta, "ci_low": delta - 2, "ci_high": delta + 2, "se": 1.0}
        return {"step": step, "all": {"distinct_invention": one, "words": one}, "refused": ["too <b>few</b>"]}

    folder = tmp_path / "dpo"
    folder.mkdir()
    log = [checked(0, 0), checked(25, -5), checked(50, -9)]
    (folder / "dev_log.jsonl").write_text("\n".join(map(json.dumps, log)))
    answers = [
        {"step": step, "id": "a", "prompt": "Describe.", "answer": f"<script>alert({step})</script>"}
        for step in (0, 25, 50)
    ]
    (folder / "dev_samples.jsonl").write_text("\n".join(map(json.dumps, answers)))
    kept = {"step": 25, "nothing": False, "why": "most invention drop with every limit held: -5.0"}
    (folder / "manifest.json").write_text(json.dumps({"metrics": {"kept": kept}}))
    _, text, _ = report(scores, tmp_path, training={"dpo": folder})
    assert "Step 25 was kept: most invention drop with every limit held: -5.0." in text
    assert "step 25: 15.0 (-5.0), kept" in text and "step 50: 11.0 (-9.0)<" in text
    assert "&lt;script&gt;alert(25)&lt;/script&gt;" in text and "<script>alert" not in text
    assert "too &lt;b&gt;few&lt;/b&gt;" in text and ">25, kept<" in text
    kept |= {"step": 0, "nothing": True}
    (folder / "manifest.json").write_text(json.dumps({"metrics": {"kept": kept}}))
    _, text, _ = report(scores, tmp_path / "again", training={"dpo": folder})
    assert "Nothing of the training was kept, the result is the start" in text


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (
            "rating",
            {"exact": {"n": 50, "agreement": 62.0}},
            ["900 rated answers", "good ones kept", "62.0% of 50"],
        ),
        ("pairwise", {"undecided": 7}, ["900 pairs of answers", "second is better, first chosen", ">7<"]),
        ("ensemble", {"undecided": 7}, ["900 pairs of answers", "right if first"]),
        ("claims", {}, ["900 claims", "true objects kept", "invented, judged there"]),
    ],
)
def test_the_judge_is_told_in_the_words_of_its_kind(kind: str, more: Any, words: list[str]) -> None:
    value = {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95}
    measures = {"accuracy": value, "true_kept": value}
    counts = dict.fromkeys(("true_kept", "true_denied", "invented_kept", "invented_caught"), 225)
    figure = judge_panel(
        {"n": 900, "clusters": 90, "judge": "m", "kind": kind, "confusion": counts, **measures, **more}
    )
    assert figure is not None
    shown = f"{figure.lead} {figure.svg} " + " ".join(f">{cell}<" for row in figure.rows for cell in row)
    assert all(word in shown for word in words)
    assert ("claims" in shown) is (kind == "claims")


def test_kinds_of_claims_and_sides_of_pairs_are_told() -> None:
    value = {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95}
    by_kind: dict[str, Any] = {
        "presence": {"balanced_accuracy": value},
        "place": {"balanced_accuracy": value},
    }
    by_kind["number"] = {"balanced_accuracy": None}
    figure = judge_panel({"accuracy": value, "by_kind": by_kind, "left_out": {"number": "too few to tell"}})
    assert figure is not None
    assert ["balanced accuracy, place", "0.90 [0.80, 0.95]"] in figure.rows
    assert ["balanced accuracy, number", "unknown, left out of the score"] in figure.rows
    sides = {"chosen_repetition": 0.125, "rejected_repetition": 0.25, "chosen_words": 12.04}
    pairs = pairs_panel({**sides, "rejected_words": 12.0})
    assert pairs is not None and ["words, chosen and rejected", "12.0 and 12.0"] in pairs.rows
    assert ["objects named again, chosen and rejected", "0.12 and 0.25"] in pairs.rows


def test_length_and_position_of_other_descriptions(tmp_path: Path) -> None:
    """AMBER's descriptions are drawn against length and by sentence as CHAIR's; without CHAIR they decide."""
    scores = write_scores(tmp_path, THREE, num_images=30, amber=True)
    found, text, _ = report(scores, tmp_path)
    for key in ("length", "position", "length-amber", "position-amber", "recall-amber"):
        assert f'id="{key}"' in text
    assert "Invention against length (AMBER" in text
    rows = [
        json.loads(row)["meta"] for row in (scores / "rows" / "dpo" / "amber.jsonl").read_text().splitlines()
    ]
    nouns = [item for meta in rows for item in meta.get("mentions", ())]
    assert {item["sentence"] for item in nouns} >= {0, 1, 2} and any(item["invented"] for item in nouns)
    share = 100 * sum(item["invented"] for item in nouns) / len(nouns)
    line = next(one for one in found["metrics"] if (one["task"], one["metric"]) == ("amber", "chair"))
    assert line["values"]["dpo"] == pytest.approx(share)
    for name in ("metrics.json", "tasks.json", "definitions.json"):
        whole = json.loads((scores / name).read_text())
        kept = (
            [item for item in whole if item["task"] != "chair"]
            if isinstance(whole, list)
            else {key: value for key, value in whole.items() if key != "chair"}
        )
        (scores / name).write_text(json.dumps(kept))
    alone, page, text = report(scores, tmp_path / "alone")
    length = next(item for item in alone["verdict"]["findings"] if item["key"] == "length")
    assert length["numbers"]["matched"] and alone["verdict"]["gates"]["not_only_shorter"] is not None
    cards = json.loads((scores / "tasks.json").read_text())
    assert all(card.pop("facts")["label"] for card in cards.values())
    (scores / "tasks.json").write_text(json.dumps(cards))  # as scores were before they told the facts
    assert report(scores, tmp_path / "older")[1:] == (page, text)


def test_spans_are_cut_from_escaped_text() -> None:
    marked = mark_spans(
        "<b> & a dog",
        [Span(8, 11, "invented", 'say "dog"'), Span(9, 11, "present", "overlap"), Span(0, 99, "x", "")],
    )
    assert marked == '&lt;b&gt; &amp; a <mark class="invented" title="say &#34;dog&#34;">dog</mark>'
    assert len(clean("a\ud800\x00b")) == 4


def test_a_scale_is_never_flat() -> None:
    """A model that invents nothing has 0 everywhere, and the axis starts at 0."""
    scale = fit([0.0, 0.0], 0.0, 100.0, include=[0.0])
    assert scale.high > scale.low and scale(0.0) == 0.0
