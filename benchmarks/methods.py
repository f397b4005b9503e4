"""Published preference methods side by side: the recipes of recipes/methods on one quickstart run, on dev.

    python -m benchmarks.methods runs/quickstart --only sentinel,rlhf_v --seed 0

Needs the quickstart's run up to `judge`; `rlaif_v` also needs vLLM, as it samples anew. Each method trains on
at most as many pairs as the others and is shown at its last step, against the checkpoint that all start from,
with paired intervals over pictures. Prints one Markdown table and writes it to RUN_DIR/methods/table.md. What
is done is not done again, and stays in the table. Test pictures are not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.recipe import StageRecipe
from align.dev_check import DEV_LOG
from align.dev_check.asked import Asked, read_asked
from align.dev_check.scores import Scorer, values_of
from align.dev_check.state import DEV_ANSWERS
from align.errors import AlignError
from align.models.loading import load_processor
from align.pipeline import load_pipeline, run_pipeline
from align.pipeline.load import Pipeline
from align.tuning.method_sections import TrainingRecipe
from benchmarks.dev_table import SHOWN, cells, markdown

RECIPES = Path(__file__).parent.parent / "recipes" / "methods"
FOR_7B = "_7b"


@dataclass(frozen=True)
class Row:
    """What a method did.

    Attributes:
        pairs: trained on, of each training.
        steps: of each training.
        start, end: measure -> value, delta and interval, before the first and after the last training.
        error: why there is nothing else; empty where there is.
    """

    method: str
    pairs: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    start: Mapping[str, Mapping[str, float]] | None = None
    end: Mapping[str, Mapping[str, float]] | None = None
    error: str = ""


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--only", default="", help="beginnings of methods' names; all without")
    parser.add_argument("--seed", type=int, default=0, help="of pairs, of their order and of LoRA's start")
    args = parser.parse_args(argv)
    wanted = tuple(args.only.split(","))
    rows: list[Row] = []
    for name in methods():
        is_asked = name.startswith(wanted)
        if not (is_asked or (args.run_dir / "methods" / f"{name}{_suffix(args.seed)}").is_dir()):
            continue
        try:
            pipeline = method_pipeline(name, args.run_dir, args.seed)
            if is_asked:
                run_pipeline(pipeline)
            elif not _is_finished(pipeline):
                continue
            rows.append(measured(name, pipeline))
        except AlignError as error:
            rows.append(Row(name, error=str(error).splitlines()[0]))
        (args.run_dir / "methods").mkdir(exist_ok=True)
        (args.run_dir / "methods" / f"table{_suffix(args.seed)}.md").write_text(show(rows))
    print(show(rows))


def methods() -> list[str]:
    """Names of the recipes for the embedded world."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.endswith(FOR_7B))


def method_pipeline(name: str, run_dir: Path, seed: int = 0, overrides: Sequence[str] = ()) -> Pipeline:
    """The method's pipeline on a quickstart run, in a folder of its own inside it."""
    own = run_dir / "methods" / f"{name}{_suffix(seed)}"
    words = [f"run_dir={own}", f"vars.made={run_dir}", f"seed={seed}", *overrides]
    return load_pipeline(RECIPES / f"{name}.yaml", words)


def measured(name: str, pipeline: Pipeline) -> Row:
    """A method's row, from what the trainings of its finished pipeline left on disk."""
    done = [recipe for recipe in trainings(pipeline) if (recipe.stage_dir / DEV_LOG).is_file()]
    if not done:
        raise AlignError(f"no training of {name} has a look at dev", fix="give its recipe a `dev` section")
    manifests = [json.loads((recipe.stage_dir / "manifest.json").read_text())["metrics"] for recipe in done]
    start, end = changes(done[0], done[-1])
    pairs = tuple(int(found["rows"]) for found in manifests)
    return Row(name, pairs, tuple(int(found["steps"]) for found in manifests), start, end)


def trainings(pipeline: Pipeline) -> list[TrainingRecipe]:
    """The trainings of a pipeline, in order."""
    recipes: list[StageRecipe] = [step.recipe for step in pipeline]
    return [recipe for recipe in recipes if isinstance(recipe, TrainingRecipe)]


def _is_finished(pipeline: Pipeline) -> bool:
    """Whether every training of an earlier call is there: its row stays in the table."""
    return all((recipe.stage_dir / DEV_LOG).is_file() for recipe in trainings(pipeline))


def changes(first: Any, last: Any) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Measure -> value, delta and interval, at step 0 of one training and at the last step of another.

    Both looked at the same pictures, so that the answers are paired whatever was trained in between.

    Args:
        first, last: training recipes with `dev`, finished; may be the same.
    """
    root = last.dev.image_root or last.data.image_root
    asked = read_asked(last.dev, root, load_processor(last.model))
    log = (last.stage_dir / DEV_LOG).read_text().splitlines()
    start = _values(first, 0, asked)
    scorer = Scorer(asked, last.dev.level, start)
    end = _values(last, json.loads(log[-1])["step"], asked)
    before, after = ({k: one.to_json() for k, one in scorer.changes(v)["all"].items()} for v in (start, end))
    return before, after


def show(rows: Sequence[Row]) -> str:
    """The table: where all start, then each method at its end with deltas and intervals."""
    told: list[list[str]] = []
    for row in rows:
        if row.start is not None and not told:
            told.append(["start", "", "", *cells(row.start, delta=False)])
    for row in rows:
        if row.end is None:
            told.append([row.method, row.error])
            continue
        numbers = [" + ".join(map(str, found)) for found in (row.pairs, row.steps)]
        told.append([row.method, *numbers, *cells(row.end, delta=True, interval=True)])
    return markdown(["method", "rows", "steps", *SHOWN.values()], told)


def _values(recipe: Any, step: int, asked: Sequence[Asked]) -> list[dict[str, float]]:
    path = recipe.stage_dir / "logs" / DEV_ANSWERS / f"step-{step}.jsonl"
    said = {line["id"]: line["answer"] for line in map(json.loads, path.read_text().splitlines())}
    if missing := [item.id for item in asked if item.id not in said]:
        raise AlignError(f"{len(missing)} questions of the last training were not asked", where=str(path))
    return [values_of(item, said[item.id]) for item in asked]


def _suffix(seed: int) -> str:
    return f"_seed{seed}" if seed else ""


if __name__ == "__main__":
    main()
