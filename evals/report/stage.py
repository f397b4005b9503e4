"""Write the hallucination report: a page for reading, Markdown for a pull request, JSON for programs.

Reads a finished score folder (one checkpoint or more) and, where they are given, what the judge, pairs
and training stages left. Writes `report.html`, one file that opens offline, `report.md` and `report.json`.
It starts with a verdict in plain words, which says so when less hallucination is only less text.

  align report run_dir=runs/quickstart scores=runs/quickstart/score num_examples=24

Checkpoints of several runs side by side, with what cannot be compared and why:

  align report --compare runs/a runs/b@sft [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.progress import say
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from evals.report.recipe import Recipe


def run(recipe: Recipe) -> RunFolder:
    """Render the three files.

    Raises:
        AlignError: a folder is missing or unfinished.
    """
    return run_stage(recipe, _inputs(recipe), lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    from evals.report.build import build_report

    report = build_report(recipe)
    for name, text in report.files.items():
        # Lone surrogates cannot be written; the page's own texts are clean, paths and ids may not be.
        (folder.work / name).write_bytes(text.encode("utf-8", "replace"))
    say(f"  {report.verdict.headline}\n  {report.verdict.summary}")
    page = recipe.stage_dir / "report.html"
    metrics = {
        "status": report.verdict.status,
        "gates": dict(report.verdict.gates),
        "num_examples": report.num_examples,
    }
    return Done(metrics, f"open {page} in a browser")


def direct(words: Sequence[str]) -> int | None:
    """`align report --compare RUN RUN`; None where the words name a recipe."""
    if "--compare" not in words:
        return None
    from evals.report.compare import main

    def report(out: Path, scores: Path, title: str) -> RunFolder:
        return run(Recipe(run_dir=out, scores=scores, title=title))

    return main(words, report)


def _inputs(recipe: Recipe) -> dict[str, str | Path]:
    optional = {
        "judge": recipe.judge,
        "pairs": recipe.pairs,
        "rounds": recipe.rounds,
        "sft": recipe.training.sft,
        "dpo": recipe.training.dpo,
    }
    found: dict[str, str | Path] = {"scores": recipe.scores}
    found |= {name: path for name, path in optional.items() if path is not None}
    return found | {f"stage_{index}": path for index, path in enumerate(recipe.stages)}
