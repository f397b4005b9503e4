"""Judge sampled answers, or filter instruction rows, and measure the judge before it is believed.

Writes `verdicts.jsonl` (one an answer: score or the reason why there is none, the raw reply, the judge's id
and the digest of its prompt) and `agreement.json` (how often the judge is right).

  kind: claims    what an answer says of an object is put to the judge as short questions: is it there, how
                  many, where, in which colour, beside what (`kinds`). True claims earn, denied ones and
                  objects named again cost (`claim_scores`; `score: denied` is RLAIF-V's minus the denied
                  ones). Kinds at which the judge is near chance on dev are left out, and named. The judge
                  may be the policy itself. `splitter: model` has a model split answers into claims of any
                  kind (attributes, text, actions, charts), each with its own yes/no question (RLAIF-V).
  kind: rating    a rubric, 1 to 5: accuracy, completeness, relevance. With `rows`, instruction rows rated
                  4 or 5 are kept, in `instructions.parquet`.
  kind: pairwise  two answers side by side, in both orders; disagreement is a tie. Also writes
                  `comparisons.jsonl`; scores run from -1 to 1 (set pairs.min_gap to fit, say 0.5).
  kind: oracle    the annotations judge; for comparison, never for training data
  kind: ensemble  the verdicts of several judges become one; Cohen's kappa says how far they agree

The judge is a checkpoint that is served for it (`model`) or somebody's server (`judge.endpoint`). It is
measured on annotated dev images (`truth`) or by people's `labels`: accuracy, balanced accuracy, kappa, and
for pairwise the bias of order.

  align judge recipes/data/keep_rated_4_5.yaml judge.endpoint=http://localhost:8000/v1

Next: `align pairs`, which refuses a judge that is near chance; after `rows`, `align sft`.
"""

from __future__ import annotations

import json

from align.progress import say
from align.rows.schema import write_rows
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.run.state import Input
from data_tools.judge.agreement import show_agreement, show_decisions
from data_tools.judge.claims import judge_claims
from data_tools.judge.ensemble import judge_ensemble
from data_tools.judge.oracle import judge_oracle
from data_tools.judge.pairwise import judge_pairwise
from data_tools.judge.rating import judge_rating
from data_tools.judge.recipe import Recipe
from data_tools.judge.split_judge import judge_split_claims
from data_tools.material.truth import truth_inputs

_KINDS = {
    "claims": judge_claims,
    "rating": judge_rating,
    "pairwise": judge_pairwise,
    "oracle": judge_oracle,
    "ensemble": judge_ensemble,
}


def run(recipe: Recipe) -> RunFolder:
    """Judge; byte-equal for the same recipe, inputs and replies, also after a kill and resume.

    Raises:
        AlignError: nothing to judge, a missing image, a server that dies, too many failed requests, or
            annotations, labels or verdicts that do not belong to what is judged.
    """
    return run_stage(recipe, _inputs(recipe), lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    by_model = recipe.kind == "claims" and recipe.splitter == "model"
    judged = (judge_split_claims if by_model else _KINDS[recipe.kind])(recipe, folder)
    write_rows(folder.work / "verdicts.jsonl", judged.verdicts)
    agreement = json.dumps(judged.agreement, indent=1, sort_keys=True)
    (folder.work / "agreement.json").write_text(agreement + "\n")
    for line in judged.lines:
        say(line)
    if "undecided" in judged.agreement:
        show_decisions(judged.agreement, "couples of answers")
    elif recipe.kind == "rating":
        show_decisions(judged.agreement, "answers")
    else:
        show_agreement(judged.agreement)
    next_step = "align pairs RECIPE" if recipe.rows is None else "align sft RECIPE"
    return Done(judged.metrics | {"agreement": judged.agreement}, next_step)


def _inputs(recipe: Recipe) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    named = {"candidates": recipe.candidates, "rows": recipe.rows, "labels": recipe.labels}
    inputs |= {name: path for name, path in named.items() if path is not None}
    inputs |= truth_inputs(recipe.truth)
    if recipe.model is not None:
        inputs["model"] = recipe.model
    inputs |= {f"verdicts_{name}": path for name, path in recipe.ensemble.verdicts.items()}
    return inputs
