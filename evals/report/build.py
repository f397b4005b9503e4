"""From loaded results to the texts of the three files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.comparison.metric_line import dump_lines
from evals.report import provenance, sides, table
from evals.report.captions import Described, read_described
from evals.report.examples import STRATA, Example, choose_examples, stratum_name
from evals.report.flips import count_flips
from evals.report.load import Results, load_results, read_manifest_if_any, read_training_log
from evals.report.margins import Margins
from evals.report.markdown import render_markdown
from evals.report.metric import shown_name
from evals.report.page import render_page
from evals.report.plots import (
    dev,
    forest,
    objects,
    pope,
    position,
    preferences,
    questions,
    rounds,
    tradeoff,
    training,
)
from evals.report.recipe import Recipe
from evals.report.source import read_json
from evals.report.svg import Figure
from evals.report.unasked import Unasked, find_unasked
from evals.report.verdict import Verdict, judge_results

_GATES = {
    "fewer_inventions": "fewer invented objects",
    "fewer_by_object": "fewer by distinct object",
    "not_only_shorter": "not just shorter",
    "not_longer": "not longer",
    "recall_kept": "recall kept",
    "instances_named": "instances named",
    "not_repeating": "no more repetition",
    "counting_kept": "counting kept",
    "captions_not_worse": "few captions worse",
    "grammar_kept": "grammar kept",
    "vqa_not_inferior": "question answering kept",
    "not_fooled_more": "not fooled more when asked",
    "judge_agrees": "a judge does not object",
    "answers_healthy": "answers usable",
}
_ALWAYS_SHOWN = ("fewer_inventions", "not_only_shorter", "recall_kept", "vqa_not_inferior")
"""Gates that are shown though the scores have nothing to decide them by."""
_GATE_LOOKS = {True: ("✓", "yes", ""), False: ("✕", "no", "no"), None: ("?", "open", "not shown")}


@dataclass(frozen=True)
class Report:
    """The three files and what the stage tells about them."""

    files: Mapping[str, str]
    verdict: Verdict
    num_examples: int


def build_report(recipe: Recipe) -> Report:
    """Read everything, decide, draw, write nothing."""
    results = load_results(recipe.scores)
    described = read_described(results, recipe.seed)
    margins = recipe.margins
    verdict = judge_results(results, described[0] if described else None, margins)
    roots = _roots(recipe, results)
    examples = choose_examples(results, recipe.num_examples, recipe.seed, roots)
    unasked = find_unasked(results, described[0] if described else None, recipe.seed, roots)
    folders = dict.fromkeys([*recipe.stages, *results.source.folders.values(), recipe.scores])
    stages = provenance.read_stages(list(folders))
    record = provenance.collect(
        stages, results.cards, {**results.source.to_json(), "judges": dict(results.notes)}
    )
    figures = _figures(recipe, results, described, margins)
    context = {
        **_head(recipe, results, verdict),
        "figures": figures,
        "unasked": _unasked(results, unasked),
        **_examples(results, examples),
        "provenance": provenance.blocks(record, stages),
        "next_steps": _next_steps(results, verdict),
        "sections": _sections(bool(unasked), bool(figures), bool(examples)),
    }
    return Report(
        files={
            "report.json": _dump_json(_json(results, verdict, unasked, record)),
            "report.html": render_page(context),
            "report.md": render_markdown(recipe.title, results, verdict, unasked),
        },
        verdict=verdict,
        num_examples=len(examples),
    )


def _json(results: Results, verdict: Verdict, unasked: Unasked, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **({"not_comparable": dict(results.apart)} if results.apart else {}),
        **({"pairwise": list(results.preferences)} if results.preferences else {}),
        **({"remarks": list(results.remarks)} if results.remarks else {}),
        "checkpoints": list(results.checkpoints),
        "metrics": dump_lines(results.lines_as_scored),
        "health": results.raw_health,
        "verdict": verdict.to_json(),
        "unasked": unasked.to_json(),
        "provenance": dict(record),
    }


def _head(recipe: Recipe, results: Results, verdict: Verdict) -> dict[str, Any]:
    rows = table.main_rows(results)
    has_primary = any(row.primary for row in rows)
    health_header, health_rows = table.health(results)
    names = [results.label_of(task) for task in results.tasks]
    tasks = ", ".join(names) if len(names) <= 6 else f"{len(names)} tasks"
    path = " → ".join(map(shown_name, results.checkpoints))
    asked = sum(int(item.get("n") or 0) for item in results.health if item["checkpoint"] == results.after)
    return {
        "title": recipe.title,
        "subtitle": f"{path} · {asked:,} answers · {tasks}",
        "verdict": verdict,
        "gates": _shown_gates(verdict),
        "tiles": table.tiles(results),
        "checkpoints": [shown_name(name) for name in results.checkpoints],
        "steps": table.step_names(results),
        "table_rows": rows,
        "caption_sections": table.caption_sections(results),
        "num_secondary": sum(not row.primary for row in rows) if has_primary else 0,
        "before": shown_name(results.before),
        "after": shown_name(results.after),
        "apart": [(results.label_of(task), why) for task, why in results.apart.items()],
        "remarks": results.remarks,
        "health_header": health_header,
        "health_rows": health_rows,
        "bad_rows": results.bad_rows,
        "seed": recipe.seed,
    }


def _shown_gates(verdict: Verdict) -> list[tuple[str, str, str, str]]:
    """(mark, css class, words, state) of each gate that was measured or always belongs there."""
    found = []
    for key, words in _GATES.items():
        passed = verdict.gates.get(key)
        if key in verdict.gates and (passed is not None or key in _ALWAYS_SHOWN or key in verdict.open):
            mark, css, state = _GATE_LOOKS[passed]
            found.append((mark, css, words, state))
    return found


def _figures(
    recipe: Recipe,
    results: Results,
    described: Sequence[Described],
    margins: Margins,
) -> list[Figure]:
    figures = [
        forest.forest(results, margins),
        rounds.rounds(results, *_rounds(recipe)),
        *tradeoff.against_recall(results),
        *(tradeoff.against_length(results, item) for item in described),
        *(position.by_sentence(results, item) for item in described),
        objects.top_invented(results),
        *pope.yes_ratios(results),
        questions.flips_chart(results, count_flips(results)),
        questions.by_kind(results),
        preferences.preferences(results),
    ]
    if recipe.judge is not None and (recipe.judge / "agreement.json").is_file():
        figures.append(sides.judge_panel(read_json(recipe.judge / "agreement.json")))
    if recipe.pairs is not None:
        figures.append(sides.pairs_panel(read_manifest_if_any(recipe.pairs).get("metrics") or {}))
    folders = {"sft": recipe.training.sft, "dpo": recipe.training.dpo}
    logs = {name: read_training_log(folder) for name, folder in folders.items() if folder is not None}
    curves = [*training.training_curves(logs), *dev.dev_figures(folders)]
    return [figure for figure in figures if figure] + curves


def _rounds(recipe: Recipe) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The measures by round, and what each round came to; empty where there is none."""
    lines = recipe.scores / "rounds.json"
    return (
        read_json(lines) if lines.is_file() else [],
        read_json(recipe.rounds) if recipe.rounds is not None else {},
    )


def _examples(results: Results, examples: Sequence[Example]) -> dict[str, Any]:
    counts = {key: sum(item.stratum == key for item in examples) for key in STRATA}
    strata = [("all", "all", len(examples))]
    strata += [(key, stratum_name(key, results), counts[key]) for key in STRATA if counts[key]]
    tasks = list(dict.fromkeys(item.task for item in examples))
    return {"examples": examples, "strata": strata, "example_tasks": tasks if len(tasks) > 1 else []}


def _unasked(results: Results, unasked: Unasked) -> dict[str, Any] | None:
    if not unasked:
        return None
    found = (table.unasked_measures(results, unasked), table.unasked_words(results, unasked))
    names = ("Measures", "Words and phrases")
    tables = [(name, *parts) for name, parts in zip(names, found, strict=True) if parts[1]]
    return {"about": table.about_unasked(unasked, results), "tables": tables, "cases": unasked.cases}


def _roots(recipe: Recipe, results: Results) -> dict[str, Path]:
    roots = dict(results.source.image_roots)
    if recipe.image_root is not None:
        roots = {task: recipe.image_root for task in results.rows}
    return roots


def _next_steps(results: Results, verdict: Verdict) -> list[str]:
    after = shown_name(results.after)
    steps = {
        "better": f"Start another round of sampling from {after}, or try it on data of your own.",
        "shorter": "Balance the lengths of chosen and rejected, lower the learning rate, train again.",
        "recall_lost": "Prefer pairs whose chosen answer names as much; lower the learning rate.",
        "answers_worse": "Lower the learning rate or the epochs, or mix question answering into the pairs.",
        "inventing_by_object": "Score pairs by distinct claims: a true object named twice must not pay.",
        "repeats": "Leave out pairs whose chosen answer repeats more than its rejected one, or balance them; "
        "train less hard.",
        "counts_worse": "Judge numbers too, and count a false number as an invention when pairs are chosen.",
        "captions_worse": "Look at the captions that got worse; lower the learning rate or the steps.",
        "longer": "Balance the lengths of chosen and rejected more tightly, or shorten the training.",
        "grammar_worse": "Lower the learning rate or the steps; add an SFT term on the chosen answers.",
        "judge_prefers_before": "Read pairs that the judge decided for the earlier checkpoint; "
        "a measure is missing.",
        "not_shown": "Take more test pictures: the open guards need narrower intervals (see MDE).",
        "no_effect": "Check the judge's agreement with the truth and the pairs' margins first; "
        "then take more pairs, or more test pictures (see MDE).",
        "worse": "Look at the examples and the judge's agreement before training again: "
        "the pairs may teach the wrong thing.",
        "fooled_more": "Mix yes-or-no questions about what is there into the instructions and the pairs.",
        "no_captions": "Add the CHAIR task to the evaluation recipe.",
        "single": "Give the report a second checkpoint: `align score` takes as many as you have.",
    }
    return [steps[verdict.status], "Read some of the examples yourself: no metric sees everything."]


def _sections(unasked: bool, figures: bool, examples: bool) -> list[tuple[str, str]]:
    found = [("verdict", "Verdict"), ("results", "Results")]
    found += [("unasked", "Unasked")] if unasked else []
    found += [("plots", "Plots")] if figures else []
    found += [("examples", "Examples")] if examples else []
    return [*found, ("health", "Health"), ("provenance", "Provenance")]


def _dump_json(value: Any) -> str:
    """Indented JSON, the same bytes for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
