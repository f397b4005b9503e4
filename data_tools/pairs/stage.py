"""Build preference pairs from judged answers: the truer answer is chosen, and alike in all else.

A pair needs a score gap, a chosen answer that ended by itself, and (by default) one that has a fault fewer
(a denied claim, or an object named again as if it were a further one), says at least as much that the judge
confirms, and repeats itself no more: otherwise DPO learns to name fewer objects, or to name them again. Of
two such answers the better one mostly still names fewer, so where recall counts set `min_confirmed_gain:
0.5`. Length, mentions of objects, repetition and number words are balanced over the set, and style if
`style_tolerance` is set. A judge near chance is refused. Writes `pairs.parquet` (train prompts only) and
`dropped.json`; pairs built the same way on dev images are compared with the annotations. The gap of scores
stays in `meta.margin`, for a beta of its own for each pair.

  strategy: minimal_edit   each answer against itself without the objects that the judge denies; `spans` mark
                           them, for dense DPO (objective.token_weights)
  strategy: sentence       a true next sentence against a false one behind the same beginning, which `spans`
                           leave out (SENTINEL)

  align pairs recipes/quickstart/pairs.yaml min_gap=2 max_pairs_per_prompt=1

Next: `align dpo`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.errors import AlignError, EndOfRounds
from align.objects.mentions import Mode
from align.progress import say
from align.rows.schema import Message, PreferenceRow
from align.rows.tally import Tally
from align.rows.words import count_words
from align.rows.writing import RowWriter
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage, write_dropped
from data_tools.material.answer_counts import FEATURES
from data_tools.material.claims import split_objects
from data_tools.material.pair_cap import PairCap
from data_tools.material.truth import load_truth, truth_inputs
from data_tools.pairs.altered import altered_rows
from data_tools.pairs.chosen_rows import ChosenRows
from data_tools.pairs.earlier import earlier_inputs, earlier_rows
from data_tools.pairs.judged_answers import JudgedAnswers
from data_tools.pairs.recipe import Recipe
from data_tools.pairs.selection import Selected, Selection, edited_pairs, selected_rows
from data_tools.pairs.sentences import sentence_pairs

_BY_PROMPT = {"minimal_edit": edited_pairs, "sentence": sentence_pairs}
_AVERAGED = ("tokens", "confirmed", "true", "false", *FEATURES[1:])
"""What a row may know of either side (`chosen_tokens`): a number, or a list to be counted."""


class TooFewPairs(EndOfRounds):
    """The answers leave fewer pairs than `min_pairs`."""


class JudgeNearChance(EndOfRounds):
    """Pairs of this judge's verdicts would be noise."""


def run(recipe: Recipe) -> RunFolder:
    """Build the pairs; byte-equal for the same recipe and inputs.

    Raises:
        JudgeNearChance: its balanced accuracy may lie below `min_balanced_accuracy`.
        TooFewPairs: fewer than `min_pairs` of the train split.
        AlignError: verdicts that do not belong to the candidates, or an agreement that cannot be read.
    """
    inputs = {"candidates": recipe.candidates, "verdicts": recipe.verdicts, "agreement": recipe.agreement}
    return run_stage(
        recipe,
        {**inputs, **truth_inputs(recipe.truth), **earlier_inputs(recipe.earlier)},
        lambda folder: _work(recipe, folder),
    )


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    check_judge(recipe)
    splits = ("train", "dev")
    tallies = {split: (Tally(f"{split} answers"), Tally(f"{split} pairs")) for split in splits}
    answers = JudgedAnswers.open(recipe.candidates, recipe.verdicts)
    if recipe.strategy in _BY_PROMPT:
        selected, rows = None, _by_prompt(recipe, answers, tallies)
    else:
        balanced = _balanced(recipe, answers, tallies)
        selected = balanced["train"]
        rows = selected_rows(recipe, balanced, answers, {split: both[1] for split, both in tallies.items()})
    sums, dev, altered = PairSums(), DevCheck(recipe), Counter[str]()
    cap = PairCap(recipe.max_pairs, recipe.seed)
    with (
        RowWriter(PreferenceRow, folder.work / "pairs.parquet") as out,
        ChosenRows(folder.work / "chosen.parquet" if recipe.write_chosen else None) as chosen,
    ):
        for prompt_id, row in cap.drawn(dev.set_apart(rows)):
            out.write(row)
            chosen.write(row)
            sums.add(prompt_id, row)
            for beside in altered_rows(row, recipe.altered, recipe.seed, recipe.objects_mode):
                out.write(beside)
                altered[str(beside.meta["edit"])] += 1
        mixed_in = 0
        for row in earlier_rows(recipe.earlier, recipe.earlier_share, sums.pairs, recipe.seed):
            out.write(row)
            mixed_in += 1
    for tally in tallies["train"]:
        tally.show()
    write_dropped(folder.work, (tally for split in tallies.values() for tally in split))
    if selected is not None:
        _show_balance(recipe, selected)
    if sums.pairs < recipe.min_pairs:
        raise TooFewPairs(
            f"{sums.pairs} train pairs, at least {recipe.min_pairs} are wanted",
            where=str(recipe.verdicts),
            fix="sample more prompts or more answers each, or at a higher temperature",
        )
    check = dev.result()
    metrics = sums.metrics() | {"dev_check": check}
    for kind in recipe.altered:
        say(f"  {altered[kind]} pairs beside them differ in one phrase alone: {kind}")
        metrics[f"{kind}_pairs"] = altered[kind]
    if recipe.max_pairs is not None:
        say(f"  {sums.pairs} of {cap.seen} train pairs drawn (max_pairs)")
        metrics["pairs_before_cap"] = cap.seen
    if recipe.earlier:
        say(f"  {mixed_in} pairs of earlier rounds mixed in")
        metrics["earlier_pairs"] = mixed_in
    if selected is not None:
        metrics |= _balance_metrics(selected)
    return Done(metrics, "align dpo RECIPE")


def check_judge(recipe: Recipe) -> None:
    """Refuse a judge whose balanced accuracy against the annotations may be near chance.

    Raises:
        JudgeNearChance: the lower bound of its 95% interval is below `min_balanced_accuracy`, or unknown.
        AlignError: the file cannot be read.
    """
    try:
        agreement = json.loads(recipe.agreement.read_text())
        measured = agreement["balanced_accuracy"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AlignError(
            f"cannot read the judge's agreement: {error}", where=str(recipe.agreement)
        ) from error
    low = measured["ci_low"] if measured else 0.0
    if low < recipe.min_balanced_accuracy:
        if measured is None:
            raise _unmeasured(recipe, agreement)
        raise JudgeNearChance(
            "the judge is too near chance to build pairs from: balanced accuracy "
            f"{measured['value']:.3f} [{low:.3f}, {measured['ci_high']:.3f}], its lower bound must reach "
            f"{recipe.min_balanced_accuracy}",
            where=str(recipe.agreement),
            fix="teach the judge yes/no questions (longer SFT), take a better judge, or name more dev images "
            "with their `truth` in the judge's recipe so that the interval narrows",
        )


def _unmeasured(recipe: Recipe, agreement: Mapping[str, Any]) -> JudgeNearChance:
    count = int(agreement.get("n") or 0)
    why = "it was measured on nothing"
    if count:
        why = f"the {count} decisions it was measured on are all of one kind, all true or all false"
    return JudgeNearChance(
        f"whether the judge is better than chance is unknown: {why}",
        where=str(recipe.agreement),
        fix="measure it: in the judge's recipe name annotated dev images in `truth`, or people's verdicts in "
        "`labels` (its answers are kept, nothing is asked again); or build pairs from a judge that nobody "
        "measured: min_balanced_accuracy=0",
    )


class DevCheck:
    """How often dev pairs, built like the train ones, prefer the answer that truly invents less."""

    def __init__(self, recipe: Recipe) -> None:
        self._truth = load_truth(recipe.truth, recipe.objects_mode)
        self._mode: Mode = recipe.objects_mode
        self._found: Counter[str] = Counter()

    def set_apart(
        self, rows: Iterable[tuple[str, str, PreferenceRow]]
    ) -> Iterator[tuple[str, PreferenceRow]]:
        """(prompt id, row) of the train pairs among (split, prompt id, row); the dev pairs are counted."""
        for split, prompt_id, row in rows:
            if split == "dev":
                self.add(row)
            else:
                yield prompt_id, row

    def add(self, row: PreferenceRow) -> None:
        """Count one pair; one without annotations is not counted."""
        image_id = row.meta.get("image_id")
        if image_id not in self._truth:
            return
        difference = self._invented(row.rejected, image_id) - self._invented(row.chosen, image_id)
        self._found["right" if difference > 0 else "wrong" if difference < 0 else "tied"] += 1

    def _invented(self, messages: Sequence[Message], image_id: int) -> int:
        return len(set(split_objects(messages[-1].text, self._mode)) - self._truth[image_id])

    def result(self) -> dict[str, Any] | None:
        """Print and return what was counted.

        Returns:
            Counts of `right`, `tied` (both invent equally much) and `wrong`, and `right_share` of the
            untied; None without annotations of the dev images.
        """
        pairs = self._found.total()
        if not pairs:
            say("  no annotated dev pairs: not checked against the truth")
            return None
        right, tied, wrong = (self._found[name] for name in ("right", "tied", "wrong"))
        share = round(right / (right + wrong), 4) if right + wrong else None
        say(
            f"  on dev, the chosen answer truly invents less in {right} of {pairs} pairs, equally much in "
            f"{tied}, more in {wrong}"
        )
        return {"pairs": pairs, "right": right, "tied": tied, "wrong": wrong, "right_share": share}


def _balanced(
    recipe: Recipe, answers: JudgedAnswers, tallies: Mapping[str, tuple[Tally, Tally]]
) -> dict[str, Selected]:
    """Which pairs of both splits to take, after one pass over the files; a second one to balance style."""
    selections = {split: Selection(recipe, both[1]) for split, both in tallies.items()}
    for split, prompt_id, found in answers.prompts({split: both[0] for split, both in tallies.items()}):
        selections[split].look(prompt_id, found)
    return {split: found.balance(split, answers) for split, found in selections.items()}


def _by_prompt(
    recipe: Recipe, answers: JudgedAnswers, tallies: Mapping[str, tuple[Tally, Tally]]
) -> Iterator[tuple[str, str, PreferenceRow]]:
    """Pairs of a strategy that makes them prompt by prompt and balances nothing."""
    for split, prompt_id, found in answers.prompts({split: both[0] for split, both in tallies.items()}):
        for row in _BY_PROMPT[recipe.strategy](recipe, found, tallies[split][1]):
            yield split, prompt_id, row


def _show_balance(recipe: Recipe, selected: Selected) -> None:
    found = selected.balanced
    say(
        f"  chosen minus rejected, means: by margin alone, at shortening ratio {found.ratio:.2f}, "
        f"after trimming {found.trimmed} pairs" + ("" if selected.style is None else ", after style balance")
    )
    for place, name in enumerate(FEATURES):
        means = [found.before[place], found.searched[place], found.after[place]]
        means += [] if selected.style is None else [selected.gaps[place]]
        say(f"    {name.replace('_', ' '):<14}" + "".join(f"{mean:>+8.2f}" for mean in means))
        limit = recipe.limits.tolerances[place]
        high, low = selected.gaps[place], 0.0 if recipe.limits.may_fall[place] else -selected.gaps[place]
        if limit is not None and max(high, low) > limit:
            say(f"    WARNING: not within {limit}: DPO may learn {name.replace('_', ' ')} from these pairs")
    if selected.style is None or recipe.style_tolerance is None:
        return
    for name, after in selected.style["after"].items():
        before = selected.style["before"][name]
        say(f"  style, {name.replace('_', ' ')}: {before:+.2f} before, {after:+.2f} after")
    if max(map(abs, selected.style["after"].values())) > recipe.style_tolerance:
        say(f"  WARNING: style is not within {recipe.style_tolerance}: raise max_trimmed, or sample more")


def _balance_metrics(selected: Selected) -> dict[str, Any]:
    found = selected.balanced
    gaps = {
        name: {
            "by_margin": round(found.before[place], 3),
            "searched": round(found.searched[place], 3),
            "after": round(selected.gaps[place], 3),
        }
        for place, name in enumerate(FEATURES)
    }
    metrics: dict[str, Any] = {
        "shortening_ratio": found.ratio,
        "length_gap": gaps["length"],
        "gaps": gaps,
        "trimmed": found.trimmed,
    }
    return metrics | ({} if selected.style is None else {"style_gap": selected.style})


@dataclass
class PairSums:
    """Means over the train pairs, added up while they are written, prompt by prompt.

    Attributes:
        totals: by side and measure: words, and what else the rows know (`_AVERAGED`).
    """

    pairs: int = 0
    prompts: int = 0
    last_prompt: str = ""
    totals: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    known: set[str] = field(default_factory=set)

    def add(self, prompt_id: str, row: PreferenceRow) -> None:
        """Count one pair."""
        self.pairs += 1
        self.prompts += prompt_id != self.last_prompt
        self.last_prompt = prompt_id
        for side, messages in (("chosen", row.chosen), ("rejected", row.rejected)):
            self._count(f"{side}_words", count_words(messages[-1].text))
            for name in _AVERAGED:
                value = row.meta.get(f"{side}_{name}")
                if value is not None:
                    self._count(f"{side}_{name}", len(value) if isinstance(value, list) else value)

    def _count(self, name: str, value: float) -> None:
        self.totals[name] += value
        self.known.add(name)

    def metrics(self) -> dict[str, Any]:
        """Counts and means, for the manifest."""
        means = {name: round(self.totals[name] / max(self.pairs, 1), 3) for name in sorted(self.known)}
        return {"pairs": self.pairs, "prompts": self.prompts, **means}
