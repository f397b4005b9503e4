"""Verdicts with guards: each breaks alone, none breaks, several break; page, Markdown and JSON agree."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.rows.schema import Score
from evals.report.captions import Described, read_captions
from evals.report.guards import outcome
from evals.report.headline import COSTS, say_costs, times
from evals.report.load import load_results
from evals.report.margins import Margins
from evals.report.stage import Recipe, run
from evals.report.worse_captions import captions_worse, counted_once
from evals.tasks.registry import known_facts
from tests.evals.report.report_data import caption_row, hand_made, line

HIGHER = {"instance_precision", "instance_recall", "number_accuracy", "recall", "accuracy"}


def change(metric: str, before: float, after: float, half: float = 1.0, **more: Any) -> dict[str, Any]:
    """A line of the caption task whose interval reaches `half` to both sides of the difference."""
    delta = after - before
    told = {"primary": False, "higher_is_better": metric in HIGHER, "measures": "invention"} | more
    return line("chair", metric, (before, before, after), delta - half, delta + half, **told)


GOOD = [
    line("chair", "chair_s", (40, 40, 20), -26, -14),
    line("chair", "chair_i", (15, 15, 7), -10, -6),
    line("chair", "recall", (80, 80, 80), -2, 2),
    line("vqa", "accuracy", (80, 80, 80.5), -0.5, 1.5),
    change("distinct_invention", 20, 12),
    change("instance_precision", 74, 80),
    change("instance_recall", 75, 75),
    change("overcounted", 14, 10),
    change("number_accuracy", 80, 80, half=9),
    change("repeated_captions", 41, 20),
    change("repeated_3grams", 3, 2, half=0.5),
    change("broken_captions", 1, 1, half=0.5),
    change("words", 16, 16.4, half=0.3, higher_is_better=None, points=True),
]
BREAKS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # gate: what is reported instead, status, clause of the headline, tone
    "fewer_by_object": (
        change("distinct_invention", 20, 25),
        "inventing_by_object",
        "answers name more different objects that are not there",
        "bad",
    ),
    "recall_kept": (
        line("chair", "recall", (80, 80, 70), -12, -8), "recall_lost", "names fewer that are there", "warn",
    ),
    "instances_named": (
        change("instance_recall", 75, 66), "recall_lost", "answers name fewer of the things that are there",
        "warn",
    ),
    "not_repeating": (
        change("repeated_captions", 41, 83), "repeats", "answers repeat themselves twice as often", "warn",
    ),
    "counting_kept": (change("instance_precision", 74, 62), "counts_worse", "answers count worse", "bad"),
    "vqa_not_inferior": (
        line("vqa", "accuracy", (80, 80, 76), -6, -2), "answers_worse", "answers questions worse", "warn",
    ),
    "not_longer": (
        change("words", 16, 18.5, half=0.3, higher_is_better=None, points=True),
        "longer", "answers grow by 16%", "warn",
    ),
    "grammar_kept": (
        change("broken_captions", 1, 6), "grammar_worse", "answers break grammar 6 times as often", "warn",
    ),
}  # fmt: skip


def with_changes(*changes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    new = {(item["task"], item["metric"]): item for item in changes}
    return [new.get((item["task"], item["metric"]), item) for item in GOOD]


def verdict_of(tmp_path: Path, lines: Sequence[Mapping[str, Any]], **more: Any) -> tuple[Any, str, str]:
    """(verdict of report.json, page, Markdown)."""
    scores = tmp_path / "score"
    if not scores.exists():
        hand_made(scores, lines)
    folder = run(Recipe(run_dir=tmp_path, scores=scores, **more)).final
    texts = [(folder / f"report.{name}").read_text(encoding="utf-8") for name in ("json", "html", "md")]
    return json.loads(texts[0])["verdict"], texts[1], texts[2]


def test_none_breaks(tmp_path: Path) -> None:
    verdict, _, _ = verdict_of(tmp_path, GOOD)
    assert (verdict["status"], verdict["tone"], verdict["broken"]) == ("better", "good", [])
    assert verdict["headline"] == "DPO invents fewer objects than SFT."
    gates = verdict["gates"]
    assert all(gates[gate] is True for gate in BREAKS)
    assert gates["judge_agrees"] is None and gates["captions_not_worse"] is None
    assert "counting" in verdict["summary"] and "repetition" in verdict["summary"]


@pytest.mark.parametrize("gate", BREAKS)
def test_exactly_one_breaks(tmp_path: Path, gate: str) -> None:
    changed, status, clause, tone = BREAKS[gate]
    verdict, page, markdown = verdict_of(tmp_path, with_changes(changed))
    assert verdict["broken"] == [gate]
    assert [name for name in BREAKS if verdict["gates"][name] is False] == [gate]
    assert (verdict["status"], verdict["tone"]) == (status, tone)
    assert verdict["headline"] == f"DPO invents fewer objects, but {clause}."
    assert f"**{verdict['headline']}**" in markdown and f"tone-{tone}" in page
    assert html.escape(verdict["headline"]) in page
    finding = next(item for item in verdict["findings"] if item["numbers"].get("passed") is False)
    assert f"**{finding['title']}.**" in markdown and f"<b>{finding['title']}.</b>" in page


def test_several_break_and_one_sentence_names_them(tmp_path: Path) -> None:
    """The quickstart's own numbers: green ticks before, and what they hid."""
    verdict, page, markdown = verdict_of(
        tmp_path,
        with_changes(
            change("instance_precision", 73.9, 61.9),
            change("overcounted", 14, 42),
            change("repeated_captions", 41, 83),
            BREAKS["not_longer"][0],
        ),
    )
    told = (
        "DPO invents fewer objects, but answers repeat themselves twice as often, count worse and "
        "grow by 16%."
    )
    assert verdict["headline"] == told and told in page and told in markdown
    assert verdict["broken"] == ["not_repeating", "counting_kept", "not_longer"]
    assert (verdict["status"], verdict["tone"]) == ("repeats", "bad")
    assert "captions that repeat an object 41.0% → 83.0%" in verdict["summary"]
    assert "instance precision 73.9% → 61.9%" in verdict["summary"]


def test_all_break_and_the_last_are_counted(tmp_path: Path) -> None:
    verdict, _, _ = verdict_of(tmp_path, with_changes(*(item for item, *_ in BREAKS.values())))
    assert verdict["headline"] == (
        "DPO invents fewer objects, but answers name more different objects that are not there, it names "
        "fewer that are there, its answers repeat themselves twice as often, and 4 more guards break."
    )
    assert verdict["tone"] == "bad" and verdict["broken"] == list(BREAKS)


def test_published_better_and_ours_worse_is_never_green(tmp_path: Path) -> None:
    for gate, (changed, *_) in BREAKS.items():
        verdict, page, _ = verdict_of(tmp_path / gate, with_changes(changed))
        assert verdict["tone"] != "good" and 'class="verdict tone-good"' not in page


def test_a_loss_that_chance_may_explain_is_open_and_not_green(tmp_path: Path) -> None:
    changed = change("repeated_captions", 41, 49, half=9)
    verdict, page, _ = verdict_of(tmp_path, with_changes(changed))
    assert verdict["gates"]["not_repeating"] is None and verdict["open"] == ["not_repeating"]
    assert (verdict["status"], verdict["tone"]) == ("not_shown", "warn")
    assert verdict["headline"] == "DPO invents fewer objects than SFT; whether repetition holds is open."
    assert 'no more repetition</span><span class="state">not shown' in page
    small = change("repeated_captions", 41, 42, half=9)
    verdict, _, _ = verdict_of(tmp_path / "small", with_changes(small))
    assert (verdict["status"], verdict["tone"]) == ("better", "good")
    assert "repetition" in verdict["summary"] and "does not rule one out" in verdict["summary"]


def test_without_a_gain_what_broke_is_said_too(tmp_path: Path) -> None:
    same = [
        line("chair", "chair_s", (40, 40, 36), -9, 1),
        line("chair", "chair_i", (15, 15, 14), -3, 1),
        BREAKS["not_repeating"][0],
    ]
    verdict, _, _ = verdict_of(tmp_path, with_changes(*same))
    assert verdict["headline"] == (
        "No reliable difference between SFT and DPO in invented objects, but DPO's answers repeat themselves "
        "twice as often."
    )
    more = [line("chair", "chair_s", (40, 40, 50), 4, 16), BREAKS["vqa_not_inferior"][0]]
    verdict, _, _ = verdict_of(tmp_path / "more", with_changes(*more))
    assert verdict["headline"] == "DPO invents more objects than SFT, and answers questions worse."
    assert verdict["tone"] == "bad"


def test_margins_are_the_recipes(tmp_path: Path) -> None:
    changed = change("repeated_captions", 41, 44, half=0.5)
    assert verdict_of(tmp_path, with_changes(changed))[0]["broken"] == ["not_repeating"]
    wide = verdict_of(tmp_path, [], name="wide", margins={"repetition": 5.0})[0]
    assert wide["broken"] == [] and wide["gates"]["not_repeating"] is True


@pytest.mark.parametrize(
    ("field", "metric", "before", "after"),
    [
        ("recall", "recall", 80, 76), ("vqa", "accuracy", 80, 78),
        ("invention", "distinct_invention", 20, 22),
        ("instance_precision", "instance_precision", 74, 72), ("counting", "overcounted", 14, 17),
        ("grammar", "broken_captions", 1, 4), ("recall", "instance_recall", 75, 71),
    ],
)  # fmt: skip
def test_each_margin_is_read(tmp_path: Path, field: str, metric: str, before: float, after: float) -> None:
    changed = change(metric, before, after, half=0.4)
    if metric == "accuracy":
        changed = line("vqa", metric, (before, before, after), after - before - 0.4, after - before + 0.4)
    assert verdict_of(tmp_path, with_changes(changed))[0]["broken"]
    assert not verdict_of(tmp_path, [], name="wide", margins={field: 9.0})[0]["broken"]


def test_three_values_by_hand(tmp_path: Path) -> None:
    """Lower is better, margin 2: +1 up to 1.9 holds, +3 [1, 5] breaks, +3 [-1, 7] and +1 [-1, 3] are open."""

    def of(before: float, after: float, half: float) -> bool | None:
        folder = hand_made(tmp_path / f"{after} {half}", [change("repeated_captions", before, after, half)])
        return outcome(load_results(folder).metrics[0], 2.0)

    assert [of(10, 11, 0.9), of(10, 13, 2), of(10, 13, 4), of(10, 11, 2)] == [True, False, None, None]


PREFERENCE = {
    "task": "chair", "before": "sft", "after": "dpo", "n": 200, "unscored": 0, "judge": {"judge": ["j"]},
    "wins": 30, "ties": 50, "losses": 120, "win_rate": 27.5, "ci": [21.0, 34.0],
    "win_rate_equal_length": 28.0,
    "consistency": 82.0, "prefers_first": 55.0, "mean_words_longer": 2.0,
}  # fmt: skip


def test_a_judge_that_prefers_the_earlier_answers_is_heard(tmp_path: Path) -> None:
    scores = hand_made(tmp_path / "score", GOOD)
    (scores / "pairwise.json").write_text(json.dumps([PREFERENCE]))
    verdict, page, _ = verdict_of(tmp_path, GOOD)
    assert verdict["headline"] == "DPO invents fewer objects, but a judge prefers SFT's answers."
    assert verdict["status"] == "judge_prefers_before" and verdict["tone"] == "warn"
    assert "a judge does not object" in page
    even = {**PREFERENCE, "win_rate": 52.0, "ci": [46.0, 58.0]}
    (scores / "pairwise.json").write_text(json.dumps([even]))
    verdict, _, _ = verdict_of(tmp_path, GOOD, name="even")
    assert verdict["status"] == "better" and verdict["gates"]["judge_agrees"] is True
    strict = verdict_of(tmp_path, GOOD, name="strict", margins={"judge": 1.0})[0]
    assert strict["gates"]["judge_agrees"] is None and strict["status"] == "better"
    (scores / "pairwise.json").write_text(json.dumps([{"task": "chair", "n": 0, "unscored": 9}]))
    assert verdict_of(tmp_path, GOOD, name="none")[0]["gates"]["judge_agrees"] is None


def test_a_judge_on_questions_alone(tmp_path: Path) -> None:
    scores = hand_made(tmp_path / "score", [line("pope", "f1", (80, 80, 85), 3, 7)])
    (scores / "pairwise.json").write_text(json.dumps([PREFERENCE]))
    verdict, _, _ = verdict_of(tmp_path, [])
    assert verdict["headline"].endswith("about what is there, but a judge prefers SFT's answers.")


def instance_rows(pairs: Sequence[tuple[int, int]]) -> list[Score]:
    """Rows by (instances named, instances named that are there)."""
    rows = [caption_row(["dog"], ["dog"], sample_id=str(index)) for index in range(len(pairs))]
    return [
        row.model_copy(update={"values": {"instances_named": float(named), "instances_right": float(right)}})
        for row, (named, right) in zip(rows, pairs, strict=True)
    ]


def scores_of(folder: Path, before: Sequence[Score], after: Sequence[Score], lines: Any = GOOD) -> Path:
    scores = hand_made(folder, lines, {"base": before, "sft": before, "dpo": after})
    precision = {
        "name": "instance_precision",
        "numerator": {"instances_right": 1},
        "denominator": {"instances_named": 1},
    }
    (scores / "definitions.json").write_text(json.dumps({"chair": [precision]}))
    return scores


def described_of(before: Sequence[Score], after: Sequence[Score]) -> Described:
    captions = {"sft": read_captions(before), "dpo": read_captions(after)}
    return Described("chair", known_facts("chair", "chair", ()), captions, {}, [])


def test_a_mean_that_hides_a_tail(tmp_path: Path) -> None:
    """100 captions: 20 lose five false instances each, 40 gain one: fewer in all, and more captions worse."""
    before = instance_rows([(8, 3)] * 20 + [(3, 3)] * 80)
    after = instance_rows([(3, 3)] * 20 + [(4, 3)] * 40 + [(3, 3)] * 40)
    scores = scores_of(tmp_path / "score", before, after)
    found = captions_worse(load_results(scores), described_of(before, after), Margins())
    assert found is not None and found.numbers["passed"] is False
    assert (found.numbers["worse"], found.numbers["better"], found.numbers["net"]) == (40, 20, 20)
    verdict, _, _ = verdict_of(tmp_path, [])
    assert verdict["headline"] == "DPO invents fewer objects, but more captions get worse than better."
    wide = verdict_of(tmp_path, [], name="wide", margins={"captions_worse": 60.0})[0]
    assert wide["gates"]["captions_not_worse"] is True
    fewer = captions_worse(load_results(scores), described_of(after, before), Margins(captions_worse=0.5))
    assert fewer is not None and fewer.numbers["counts"] == "false instances"


def test_naming_true_objects_twice_lowers_the_rate_and_is_told(tmp_path: Path) -> None:
    """Each caption invents one thing: 1 of 2 mentions before, 1 of 3 after, for the dog is named twice.
    Counted once it is 1 of 2 objects in both."""
    before = [caption_row(["dog", "zebra"], ["dog"], sample_id=str(index)) for index in range(60)]
    after = [caption_row(["dog", "dog", "zebra"], ["dog"], sample_id=str(index)) for index in range(60)]
    results = load_results(scores_of(tmp_path / "score", before, after))
    found = counted_once(results, described_of(before, after))
    assert found is not None
    assert found.text.startswith("CHAIRi falls because true objects are named twice: −33% as published, +0%")
    assert found.numbers["published_percent"] == pytest.approx(-100 / 3)
    assert found.numbers["counted_once_percent"] == pytest.approx(0)
    assert found.numbers["mentions_per_true_object"] == [1.0, 2.0]
    verdict, page, markdown = verdict_of(tmp_path, [])
    sentence = "CHAIRi falls because true objects are named twice."
    assert sentence in verdict["summary"] and sentence in page and sentence in markdown
    assert counted_once(results, described_of(after, before)) is None
    half = [
        caption_row(["dog", "dog", "cup", "zebra"][: 3 + index % 2], ["dog", "cup"], sample_id=str(index))
        for index in range(60)
    ]
    partly = counted_once(results, described_of(before, half))
    assert partly is not None and "falls partly because true objects are named twice" in partly.text


def test_a_rate_that_falls_by_fewer_inventions_is_left_alone(tmp_path: Path) -> None:
    before = [caption_row(["dog", "zebra"], ["dog"], sample_id=str(index)) for index in range(60)]
    after = [
        caption_row(["dog", "zebra"][: 1 + index % 2], ["dog"], sample_id=str(index)) for index in range(60)
    ]
    results = load_results(scores_of(tmp_path / "score", before, after))
    assert counted_once(results, described_of(before, after)) is None


def test_only_presence_known_leaves_counting_out(tmp_path: Path) -> None:
    counted = {"instance_precision", "instance_recall", "overcounted", "number_accuracy"}
    lines = [item for item in GOOD if item["metric"] not in counted]
    verdict, page, _ = verdict_of(tmp_path, lines)
    assert verdict["gates"]["counting_kept"] is None and "counting kept" not in page
    assert verdict["status"] == "better" and verdict["gates"]["not_repeating"] is True


def test_precision_lost_though_numbers_hold_is_not_called_counting(tmp_path: Path) -> None:
    held = [change("overcounted", 10, 10), change("number_accuracy", 80, 80)]
    verdict, _, _ = verdict_of(tmp_path, with_changes(*held, BREAKS["counting_kept"][0]))
    assert verdict["headline"] == "DPO invents fewer objects, but answers name more that is not there."


def test_phrases_alone_are_said_to_repeat(tmp_path: Path) -> None:
    verdict, _, _ = verdict_of(tmp_path, with_changes(change("repeated_3grams", 2, 9)))
    assert verdict["headline"] == "DPO invents fewer objects, but answers repeat phrases 4 times as often."


def test_a_task_that_does_not_decide_is_named(tmp_path: Path) -> None:
    other = change("repeated_captions", 30, 60) | {"task": "chair_unseen"}
    scores = hand_made(tmp_path / "score", [*GOOD, other])
    (scores / "tasks.json").write_text(
        json.dumps({"chair_unseen": {"type": "chair", "task": "chair_unseen"}})
    )
    verdict, _, _ = verdict_of(tmp_path, [])
    finding = next(item for item in verdict["findings"] if item["key"] == "repetition")
    assert finding["text"].endswith("But worse in CHAIR unseen.") and finding["tone"] == "warn"


def test_clauses_keep_the_order_of_weight_and_a_subject() -> None:
    costs = {cost.gate: cost for cost in COSTS}
    chosen = [costs[gate] for gate in ("recall_kept", "captions_not_worse", "not_fooled_more")]
    told = say_costs(chosen, {cost.finding: None for cost in chosen}, "DPO", "none")  # type: ignore[misc]
    assert told == (
        "DPO names fewer that are there, more captions get worse than better, and it is fooled more often "
        "when asked"
    )
    assert times(0.0, 12.0) == "far more often" and times(10, 12) == "more often"


def test_captions_about_which_nothing_is_known_are_guarded_by_their_form(tmp_path: Path) -> None:
    lines = [
        {**change("repeated_captions", 20, 42), "task": "mine", "measures": "form"},
        {**change("broken_captions", 1, 1, half=0.5), "task": "mine", "measures": "form"},
    ]
    verdict, page, _ = verdict_of(tmp_path, lines)
    assert verdict["headline"] == (
        "What DPO invents was not measured, but DPO's answers repeat themselves twice as often."
    )
    assert (verdict["status"], verdict["tone"]) == ("no_captions", "warn")
    assert verdict["headline"] in html.unescape(page)
    verdict, _, _ = verdict_of(tmp_path / "held", lines[1:])
    assert verdict["headline"] == "SFT and DPO were not compared on captions."
