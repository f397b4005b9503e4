"""Rating, pairwise and ensemble judges behind a chat server whose replies are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.config.recipe import load_recipe, validate
from align.errors import AlignError, RecipeError
from align.judging.kappa import agreement_of
from align.judging.wording import fill
from align.rows.schema import Candidate, Claim, Comparison, Message, SFTRow, Verdict, read_rows, write_rows
from data_tools.judge.calibration import (
    PreferenceLabel,
    RatingLabel,
    calibrate_choices,
    calibrate_ratings,
    order_bias,
    read_labels,
    true_preferences,
)
from data_tools.judge.stage import Recipe, run
from tests.chat_server import ChatServer
from tests.repository import REPO
from tests.vllm_fixtures import ServedBase

RECIPE = REPO / "recipes" / "data" / "keep_rated_4_5.yaml"


def three(accuracy: int, completeness: int, relevance: int) -> str:
    return f"accuracy: {accuracy}\ncompleteness: {completeness}\nrelevance: {relevance}"


def answers(tmp_path: Path, texts: dict[str, str]) -> Path:
    """Candidates by id `p#n`, each prompt on its own picture; `d` prompts are of dev."""
    rows = []
    for row_id, text in texts.items():
        prompt_id = row_id.split("#")[0]
        Image.new("RGB", (4, 4), (len(prompt_id), 0, ord(prompt_id[-1]))).save(tmp_path / f"{prompt_id}.png")
        rows.append(
            Candidate(
                id=row_id,
                prompt_id=prompt_id,
                images=[f"{prompt_id}.png"],
                prompt=[Message(role="user", content="What is {first} here?")],
                text=text,
                finish_reason="stop",
                num_tokens=3,
                meta={"split": "dev" if prompt_id.startswith("d") else "train", "image_id": 1},
            )
        )
    write_rows(tmp_path / "candidates.jsonl", rows)
    return tmp_path / "candidates.jsonl"


def judged(
    tmp_path: Path, say: Callable[[str], str], **fields: Any
) -> tuple[dict[str, Verdict], dict[str, Any]]:
    """Verdicts by candidate and `agreement.json` of a judge that answers by a function."""
    with ChatServer(say) as server:
        values = {"run_dir": tmp_path / "run", "image_root": tmp_path, "judge": {"endpoint": server.url}}
        folder = run(validate(Recipe, values | fields, "test"))
    verdicts = {row.candidate_id: row for row in read_rows(Verdict, folder.final / "verdicts.jsonl")}
    return verdicts, json.loads((folder.final / "agreement.json").read_text())


def test_a_filled_in_text_names_no_other_place() -> None:
    assert fill("{first}|{second}|{x}", {"first": "{second}", "second": "b"}) == "{second}|b|{x}"


def test_ratings_by_the_weakest_side_or_the_mean(tmp_path: Path) -> None:
    said = {"good": three(5, 4, 5), "thin": three(5, 2, 5), "odd": "I like it"}
    path = answers(tmp_path, {f"t{n}#0": text for n, text in enumerate(said)})

    def say(question: str) -> str:
        return next(reply for text, reply in said.items() if f"Assistant: {text}" in question)

    verdicts, agreement = judged(tmp_path, say, kind="rating", candidates=path)
    assert [row.score for row in verdicts.values()] == [4.0, 2.0, None]
    odd = verdicts["t2#0"]
    assert odd.unscored_reason == "the judge's reply is none of the verdicts"
    assert odd.meta["reply"] == "I like it" and odd.meta["version"] == "rating-2"
    assert odd.judge == "rating/no model" and len(odd.prompt_sha256) == 64
    assert agreement["n"] == 0 and agreement["balanced_accuracy"] is None
    verdicts, _ = judged(tmp_path, say, kind="rating", candidates=path, rating={"combine": "mean"})
    assert [row.score for row in verdicts.values()] == [pytest.approx(4.6667), 4.0, None]


def instruction_rows(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [
        {
            "id": name,
            "images": ["a.png"],
            "messages": [
                {"role": "user", "content": "What is it?"},
                {"role": "assistant", "content": f"It is {name}."},
            ],
        }
        for name in ("five", "four", "three", "vague")
    ]
    lines = [json.dumps(row) for row in rows] + ['{"id": "broken"}', "no json"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path / "rows.jsonl"


def test_the_shipped_recipe_keeps_rows_rated_4_or_5(tmp_path: Path) -> None:
    path = instruction_rows(tmp_path)
    said = {"five": three(5, 5, 5), "four": three(4, 5, 4), "three": three(3, 5, 5), "vague": "hm"}
    (tmp_path / "labels.jsonl").write_text(
        "\n".join(json.dumps({"id": n, "rating": r}) for n, r in (("five", 5), ("four", 3), ("three", 1)))
    )
    with ChatServer(
        lambda question: next(said[name] for name in said if f"It is {name}." in question)
    ) as server:
        words = [f"run_dir={tmp_path}", f"rows={path}", f"image_root={tmp_path}", "model=null"]
        words += [f"judge.endpoint={server.url}", f"labels={tmp_path / 'labels.jsonl'}"]
        folder = run(load_recipe(Recipe, RECIPE, words))
    kept = list(read_rows(SFTRow, folder.final / "instructions.parquet"))
    assert [row.id for row in kept] == ["five", "four"]
    assert kept[1].meta["rating"] == {
        "judge": "rating/no model",
        "score": 4.0,
        "accuracy": 4,
        "completeness": 5,
        "relevance": 4,
    }
    dropped = json.loads((folder.final / "dropped.json").read_text())["instruction rows"]["dropped"]
    assert {reason: item["examples"] for reason, item in dropped.items()} == {
        "rated 3, below 4": ["three"],
        "unscored: the judge's reply is none of the verdicts": ["vague"],
    }
    bad = [json.loads(line) for line in (folder.final / "quarantine.jsonl").read_text().splitlines()]
    assert [line["where"] for line in bad] == ["rows.jsonl:5", "rows.jsonl:6"]
    assert [line["reason"] for line in bad] == ["schema", "schema"] and "not JSON" in bad[1]["detail"]
    # should be kept: five (is kept). Should not: four (is kept) and three (is not).
    agreement = json.loads((folder.final / "agreement.json").read_text())
    assert agreement["confusion"] == {
        "true_kept": 1,
        "true_denied": 0,
        "invented_kept": 1,
        "invented_caught": 1,
    }
    assert agreement["balanced_accuracy"]["value"] == 0.75
    assert agreement["exact"] == {
        "n": 3,
        "agreement": pytest.approx(33.3333),
        "kappa": pytest.approx(1 / 7, 1e-3),
    }


@pytest.mark.vllm
def test_a_real_judge_is_held_to_the_form_of_a_verdict(served_base: ServedBase, tmp_path: Path) -> None:
    """The embedded base knows no rubric: left alone it gives no verdict, guided it gives nothing else."""
    texts = {"p#0": "A dog.", "p#1": "A dog and a car.", "q#0": "A cat.", "q#1": "Two cups on a bed."}
    found = {}
    for kind, guided in (("rating", False), ("rating", True), ("pairwise", True)):
        values = {
            "run_dir": tmp_path / f"{kind}-{guided}",
            "image_root": tmp_path,
            "judge": {"endpoint": served_base.url},
            "kind": kind,
            "guided": guided,
            "candidates": answers(tmp_path, texts),
        }
        if not guided:
            with pytest.raises(AlignError, match="replies could not be read"):
                run(validate(Recipe, values, "test"))
            values["max_unread"] = 1.0
        folder = run(validate(Recipe, values, "test"))
        found[kind, guided] = list(read_rows(Verdict, folder.final / "verdicts.jsonl"))
    assert all(row.score is None and row.unscored_reason for row in found["rating", False])
    ratings = [row.meta["ratings"] for row in found["rating", True]]
    assert all(set(item) == {"accuracy", "completeness", "relevance"} for item in ratings)
    assert [row.score for row in found["rating", True]] == [min(item.values()) for item in ratings]
    assert all(row.score is not None for row in found["pairwise", True])
    both = list(read_rows(Comparison, tmp_path / "pairwise-True" / "judge" / "comparisons.jsonl"))
    assert len(both) == 2 and all(set(row.meta["letters"]) <= set("ABC") for row in both)


def test_guided_replies_need_vllm(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="not vLLM, which alone guides replies"):
        judged(
            tmp_path, str.upper, kind="rating", guided=True, candidates=answers(tmp_path, {"p#0": "A dog."})
        )


@pytest.mark.parametrize("kind", ["rating", "pairwise"])
def test_most_replies_unread_fail_the_stage_and_are_shown(tmp_path: Path, kind: str) -> None:
    """Four of six babble: above half. The replies are kept: a higher share lets the same ones pass."""
    texts = {f"t{n}#{k}": f"text {n}" for n in range(6) for k in range(1 if kind == "rating" else 2)}
    path = answers(tmp_path, texts)

    def say(question: str) -> str:
        if "text 0" in question or "text 1" in question:
            return three(5, 5, 5) if kind == "rating" else "C"
        return f"I like it {question.split('text ')[1][0]}"

    with pytest.raises(AlignError) as error:
        judged(tmp_path, say, kind=kind, candidates=path)
    count = "4 of the judge's 6" if kind == "rating" else "8 of the judge's 12"
    assert error.value.what.startswith(
        f"{count} replies could not be read, more than the share max_unread: 0.5"
    )
    assert error.value.what.count("'I like it ") == 3 and "guided: true" in (error.value.fix or "")
    verdicts, _ = judged(tmp_path, say, kind=kind, candidates=path, max_unread=0.7)
    assert [row.score is None for row in verdicts.values()].count(False) == 2 * (1 if kind == "rating" else 2)


def test_no_row_left_is_an_error(tmp_path: Path) -> None:
    path = instruction_rows(tmp_path)
    with pytest.raises(AlignError, match="lets no row pass"):
        judged(tmp_path, lambda question: three(1, 1, 1), kind="rating", rows=path)


def test_pairwise_wins_only_in_both_orders(tmp_path: Path) -> None:
    """A judge that prefers `best`, calls {mid, low} by place (A), and babbles about `odd`."""
    path = answers(tmp_path, {"t1#0": "low", "t1#1": "best", "t1#2": "mid", "t2#0": "odd", "t2#1": "x"})

    def say(question: str) -> str:
        if "odd" in question:
            return "Both have their merits."
        if "Answer A: best" in question:
            return "A"
        return "B" if "Answer B: best" in question else "A"

    verdicts, agreement = judged(tmp_path, say, kind="pairwise", candidates=path)
    assert {name: row.score for name, row in verdicts.items()} == {
        "t1#0": -0.5,
        "t1#1": 1.0,
        "t1#2": -0.5,
        "t2#0": None,
        "t2#1": None,
    }
    assert verdicts["t2#0"].unscored_reason == "the judge's reply is none of the verdicts"
    rows = list(read_rows(Comparison, tmp_path / "run" / "judge" / "comparisons.jsonl"))
    assert [(row.first_id, row.second_id, row.winner) for row in rows] == [
        ("t1#0", "t1#1", "second"),
        ("t1#0", "t1#2", "tie"),
        ("t1#1", "t1#2", "first"),
        ("t2#0", "t2#1", None),
    ]
    assert rows[0].meta["replies"] == ["B", "A"]
    # Letters B A, A A, A B: four A of six; one couple of three changes its winner.
    assert agreement["order_bias"] == {
        "couples": 3,
        "first_place_share": pytest.approx(0.6667),
        "inconsistent": pytest.approx(0.3333),
    }


def test_pairwise_is_measured_by_labels_or_by_the_annotations(tmp_path: Path) -> None:
    path = answers(tmp_path, {"d1#0": "a dog", "d1#1": "a dog and a cat", "d1#2": "a dog in the grass"})
    truth = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 18}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(truth))

    def longer(question: str) -> str:
        a, b = (question.split(f"Answer {letter}: ")[1].split("\n")[0] for letter in "AB")
        return "A" if len(a) > len(b) else "B"

    # By length: #2 > #1 > #0. Truly #0 and #2 (nothing invented) beat #1: one right, one wrong.
    _, agreement = judged(
        tmp_path, longer, kind="pairwise", candidates=path, truth=[{"instances": tmp_path / "instances.json"}]
    )
    assert (agreement["n"], agreement["accuracy"]["value"], agreement["undecided"]) == (2, 0.5, 0)
    (tmp_path / "labels.jsonl").write_text('{"chosen_id": "d1#1", "rejected_id": "d1#0"}')
    _, agreement = judged(
        tmp_path, longer, kind="pairwise", candidates=path, labels=tmp_path / "labels.jsonl"
    )
    assert (agreement["n"], agreement["accuracy"]["value"]) == (1, 1.0)
    (tmp_path / "labels.jsonl").write_text('{"chosen_id": "z#1", "rejected_id": "z#0"}')
    with pytest.raises(AlignError, match="no label is of answers"):
        judged(tmp_path, longer, kind="pairwise", candidates=path, labels=tmp_path / "labels.jsonl")


def verdict_file(
    path: Path, scores: dict[str, float | None], claims: dict[str, list[Claim]] | None = None
) -> Path:
    rows = [
        Verdict(
            candidate_id=name,
            prompt_id=name.split("#")[0],
            judge=path.stem,
            prompt_sha256="p",
            score=score,
            unscored_reason="" if score is not None else "garbled",
            claims=(claims or {}).get(name, []),
        )
        for name, score in scores.items()
    ]
    write_rows(path, rows)
    return path


def ensemble(tmp_path: Path, combine: str, **files: Path) -> tuple[list[float | None], dict[str, Any]]:
    stage = {
        "run_dir": tmp_path / "run",
        "image_root": tmp_path,
        "kind": "ensemble",
        "score": "denied",
        "candidates": tmp_path / "candidates.jsonl",
        "ensemble": {"verdicts": files, "combine": combine},
    }
    folder = run(validate(Recipe, stage, "test"))
    rows = list(read_rows(Verdict, folder.final / "verdicts.jsonl"))
    return [row.score for row in rows], json.loads((folder.final / "agreement.json").read_text())


def test_an_ensemble_votes_or_averages_and_says_how_far_its_judges_agree(tmp_path: Path) -> None:
    answers(tmp_path, {f"t1#{n}": f"text {n}" for n in range(4)})
    a = verdict_file(tmp_path / "a.jsonl", {"t1#0": 0, "t1#1": -1, "t1#2": -2, "t1#3": None})
    b = verdict_file(tmp_path / "b.jsonl", {"t1#0": 5, "t1#1": 1, "t1#2": 3, "t1#3": 5})
    scores, agreement = ensemble(tmp_path, "votes", a=a, b=b)
    # a: 0>1, 0>2, 1>2; b: 0>1, 0>2, 2>1. Votes of #1: -1 +1 -1 -1.
    assert scores == [1.0, -0.5, -0.5, None]
    # Three couples, two equal votes; a says first 3 times, b twice: chance is 2/3, so kappa is 0.
    assert agreement["between_judges"] == {
        "a and b": {"n": 3, "agreement": pytest.approx(66.6667), "kappa": 0.0}
    }
    assert ensemble(tmp_path, "mean", a=a, b=b)[0] == [2.5, 0.0, 0.5, None]
    with pytest.raises(AlignError, match="judge c has no verdict on candidate t1#1"):
        ensemble(tmp_path, "votes", a=a, c=verdict_file(tmp_path / "c.jsonl", {"t1#0": 1}))


def test_an_ensemble_of_claims_means_their_probabilities(tmp_path: Path) -> None:
    answers(tmp_path, {"t1#0": "a dog and a cat"})

    def claims(dog: float, cat: float) -> dict[str, list[Claim]]:
        made = [Claim(text=t, question="?", p_yes=p, p_no=1 - p) for t, p in (("dog", dog), ("cat", cat))]
        return {"t1#0": made}

    a = verdict_file(tmp_path / "a.jsonl", {"t1#0": -1}, claims(0.9, 0.4))
    b = verdict_file(tmp_path / "b.jsonl", {"t1#0": 0}, claims(0.3, 0.5))
    assert ensemble(tmp_path, "claims", a=a, b=b)[0] == [-1.0]  # dog 0.6, cat 0.45
    c = verdict_file(tmp_path / "c.jsonl", {"t1#0": 0}, {"t1#0": claims(1, 1)["t1#0"][:1]})
    with pytest.raises(AlignError, match="other claims"):
        ensemble(tmp_path, "claims", a=a, c=c)


def test_calibration_by_hand() -> None:
    assert order_bias([("A", "B"), ("A", "A"), ("C", "C"), ("B", "C")]) == {
        "couples": 4,
        "first_place_share": 0.6,
        "inconsistent": 0.5,
    }
    assert order_bias([])["first_place_share"] is None
    labels = [PreferenceLabel(chosen_id=a, rejected_id=b) for a, b in (("x", "y"), ("z", "y"), ("x", "z"))]
    winners = {("x", "y"): "first", ("y", "z"): "first", ("x", "z"): "tie", ("x", "q"): "first"}
    found = calibrate_choices(winners, labels, dict.fromkeys("xyzq", "i"), 0)  # type: ignore[arg-type]
    assert (found["n"], found["accuracy"]["value"], found["undecided"]) == (2, 0.5, 1)
    assert (found["accuracy_ties_half"], found["unjudged"]) == (0.5, 0)
    found = calibrate_ratings({"a": 4.5, "b": 2.0, "c": 5.0}, {"a": 5, "b": 4}, {"a": "1", "b": "2"}, 4, 0)
    assert (found["n"], found["accuracy"]["value"], found["exact"]["agreement"]) == (2, 0.5, 0.0)
    assert agreement_of([("x", "x")]) == {"n": 1, "agreement": 100.0, "kappa": None}


def test_true_preferences_leave_ties_out(tmp_path: Path) -> None:
    path = answers(tmp_path, {"d1#0": "a", "d1#1": "b", "d1#2": "c", "t1#0": "d"})
    rows = list(read_rows(Candidate, path))
    found = true_preferences(rows, {"d1#0": 1, "d1#1": 0, "d1#2": 1})
    assert [(label.chosen_id, label.rejected_id) for label in found] == [("d1#1", "d1#0"), ("d1#1", "d1#2")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "rating"}, "`judge`, a server"),
        ({"kind": "ensemble", "ensemble": {"verdicts": {"a": "a.jsonl"}}}, "two judges at least"),
        ({"kind": "pairwise", "model": "m", "candidates": None, "rows": "r"}, "only be rated"),
        ({"kind": "oracle", "truth": [{"instances": "i"}], "labels": "l"}, "not measured by `labels`"),
        ({"kind": "claims", "model": "m", "guided": True}, "for kinds rating and pairwise"),
        ({"kind": "rating", "model": "m", "rating": {"prompt": "Rate it."}}, "must contain {conversation}"),
    ],
)
def test_what_a_kind_lacks_is_a_wrong_recipe(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Recipe, {"run_dir": tmp_path, "candidates": "c", "image_root": "i"} | fields, "judge.yaml")


@pytest.mark.parametrize("smaller_is_better", [True, False])
def test_an_id_that_sorts_first_fools_no_calibration(smaller_is_better: bool) -> None:
    """Right in six of six, whatever the ids say; always taking the first one is right by chance."""
    labels = []
    for n in range(6):
        better, worse = (f"{n}#0", f"{n}#1") if smaller_is_better else (f"{n}#1", f"{n}#0")
        labels.append(PreferenceLabel(chosen_id=better, rejected_id=worse))
    side = "first" if smaller_is_better else "second"
    clusters = {f"{n}#{k}": str(n) for n in range(6) for k in (0, 1)}
    right = {(f"{n}#0", f"{n}#1"): side for n in range(6)}
    found = calibrate_choices(right, labels, clusters, 0)  # type: ignore[arg-type]
    assert found["balanced_accuracy"]["value"] == found["accuracy"]["value"] == found["kappa"]["value"] == 1.0
    assert sorted(found["confusion"].values()) == [0, 0, 3, 3]
    wrong = {couple: {"first": "second", "second": "first"}[winner] for couple, winner in right.items()}
    assert calibrate_choices(wrong, labels, clusters, 0)["balanced_accuracy"]["value"] == 0.0  # type: ignore[arg-type]
    tied = dict(list(right.items())[:3]) | {("4#0", "4#1"): "tie"}
    found = calibrate_choices(tied, labels, clusters, 0)  # type: ignore[arg-type]
    assert (found["n"], found["undecided"], found["unjudged"], found["accuracy_ties_half"]) == (
        3,
        1,
        2,
        0.875,
    )


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"chosen_id": "a", "rejected_id": "b"}\n{"chosen_id": "b", "rejected_id": "a"}')
    with pytest.raises(AlignError, match="two labels of a and b differ"):
        read_labels(PreferenceLabel, path)
    path.write_text('{"id": "a", "rating": 1}\n{"id": "a", "rating": 1}')
    assert len(read_labels(RatingLabel, path)) == 2
