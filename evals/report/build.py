"""From loaded results to the texts of the three files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.report import provenance, sides, table
from evals.report.captions import Caption, Matched, match_lengths, mean_words, read_captions
from evals.report.examples import STRATA, Example, choose_examples
from evals.report.flips import count_flips
from evals.report.load import (
    Results,
    load_results,
    read_manifest_if_any,
    read_training_log,
    shown_name,
    task_label,
)
from evals.report.markdown import render_markdown
from evals.report.page import render_page
from evals.report.plots import forest, objects, pope, position, questions, tradeoff, training
from evals.report.source import read_json
from evals.report.svg import Figure
from evals.report.verdict import Margins, Verdict, judge_results

if TYPE_CHECKING:
    from evals.report.stage import Recipe

_GATES = {
    "fewer_inventions": "fewer invented objects",
    "not_only_shorter": "not just shorter",
    "recall_kept": "recall kept",
    "vqa_not_inferior": "question answering kept",
    "answers_healthy": "answers usable",
}
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
    task = results.main_task("chair") or ""
    rows = results.rows.get(task, {})
    captions = {
        name: read_captions(rows.get(name, []), results.mode_of(task)) for name in results.checkpoints
    }
    captions = {name: found for name, found in captions.items() if found}
    words = {name: mean_words(found) for name, found in captions.items()}
    matched: list[Matched] = []
    if results.before in captions and results.after in captions:
        matched = match_lengths(captions[results.before], captions[results.after], recipe.seed)
    margins = Margins(vqa=recipe.vqa_margin_points, recall=recipe.recall_margin_points)
    verdict = judge_results(results, matched, words, margins)
    examples = choose_examples(results, recipe.num_examples, recipe.seed, _roots(recipe, results))
    folders = dict.fromkeys([*recipe.stages, *results.source.folders.values(), recipe.scores])
    stages = provenance.read_stages(list(folders))
    record = provenance.collect(stages, results.cards, results.source.to_json())
    figures = _figures(recipe, results, captions, words, matched, margins)
    context = {
        **_head(recipe, results, verdict),
        "figures": figures,
        **_examples(recipe, examples),
        "provenance": provenance.blocks(record, stages),
        "next_steps": _next_steps(results, verdict),
        "sections": _sections(bool(figures), bool(examples)),
    }
    from evals.report.stage import dump_json

    return Report(
        files={
            "report.json": dump_json(_json(results, verdict, record)),
            "report.html": render_page(context),
            "report.md": render_markdown(recipe.title, results, verdict),
        },
        verdict=verdict,
        num_examples=len(examples),
    )


def _json(results: Results, verdict: Verdict, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "checkpoints": list(results.checkpoints),
        "metrics": [dict(line) for line in results.raw_metrics],
        "health": results.raw_health,
        "verdict": verdict.to_json(),
        "provenance": dict(record),
    }


def _head(recipe: Recipe, results: Results, verdict: Verdict) -> dict[str, Any]:
    rows = table.main_rows(results)
    has_primary = any(row.primary for row in rows)
    health_header, health_rows = table.health(results)
    clusters = max(line.clusters for line in results.metrics)
    tasks = ", ".join(dict.fromkeys(task_label(line.task, line.type) for line in results.metrics))
    path = " → ".join(map(shown_name, results.checkpoints))
    gates = [
        (*_GATE_LOOKS[passed][:2], _GATES[key], _GATE_LOOKS[passed][2])
        for key, passed in verdict.gates.items()
    ]
    return {
        "title": recipe.title,
        "subtitle": f"{path} · {clusters:,} pictures · {tasks}",
        "verdict": verdict,
        "gates": [
            gate
            for gate, key in zip(gates, verdict.gates, strict=True)
            if key != "answers_healthy" or verdict.gates[key] is not None
        ],
        "tiles": table.tiles(results),
        "columns": table.columns(results),
        "table_rows": rows,
        "num_secondary": sum(not row.primary for row in rows) if has_primary else 0,
        "before": shown_name(results.before),
        "after": shown_name(results.after),
        "cluster_word": "picture",
        "health_header": health_header,
        "health_rows": health_rows,
        "bad_rows": results.bad_rows,
        "seed": recipe.seed,
    }


def _figures(
    recipe: Recipe,
    results: Results,
    captions: Mapping[str, Sequence[Caption]],
    words: Mapping[str, float],
    matched: Sequence[Matched],
    margins: Margins,
) -> list[Figure]:
    losses = {("chair", "recall"): margins.recall, ("vqa", "accuracy"): margins.vqa}
    figures = [
        forest.forest(results, losses),
        tradeoff.chair_against_recall(results),
        tradeoff.chair_against_length(results, words, matched),
        position.by_sentence(results, captions),
        objects.top_invented(results, captions),
        pope.yes_ratio(results),
        questions.flips_chart(results, count_flips(results)),
        questions.by_kind(results),
    ]
    if recipe.judge is not None and (recipe.judge / "agreement.json").is_file():
        figures.append(sides.judge_panel(read_json(recipe.judge / "agreement.json")))
    if recipe.pairs is not None:
        figures.append(sides.pairs_panel(read_manifest_if_any(recipe.pairs).get("metrics") or {}))
    folders = {"sft": recipe.training.sft, "dpo": recipe.training.dpo}
    logs = {name: read_training_log(folder) for name, folder in folders.items() if folder is not None}
    return [figure for figure in figures if figure] + training.training_curves(logs)


def _examples(recipe: Recipe, examples: Sequence[Example]) -> dict[str, Any]:
    counts = {key: sum(item.stratum == key for item in examples) for key in STRATA}
    strata = [("all", "all", len(examples))]
    strata += [(key, name, counts[key]) for key, name in STRATA.items() if counts[key]]
    return {"examples": examples, "strata": strata}


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
        "no_effect": "Check the judge's agreement with the truth and the pairs' margins first; "
        "then take more pairs, or more test pictures (see MDE).",
        "worse": "Look at the examples and the judge's agreement before training again: "
        "the pairs may teach the wrong thing.",
        "no_captions": "Add the CHAIR task to the evaluation recipe.",
    }
    return [steps[verdict.status], "Read some of the examples yourself: no metric sees everything."]


def _sections(figures: bool, examples: bool) -> list[tuple[str, str]]:
    found = [("verdict", "Verdict"), ("results", "Results")]
    found += [("plots", "Plots")] if figures else []
    found += [("examples", "Examples")] if examples else []
    return [*found, ("health", "Health"), ("provenance", "Provenance")]
