"""The recipe of `align pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from align.config.recipe import StageRecipe
from align.objects.mentions import Mode
from data_tools.material.answer_counts import FEATURES
from data_tools.material.edit_spans import DEFAULT_WEIGHT
from data_tools.material.truth import Annotations
from data_tools.pairs.altered import Alteration
from data_tools.pairs.balance import Limits


class Recipe(StageRecipe):
    """The recipe of `align pairs`."""

    name: str = "pairs"
    candidates: Path = Field(description="candidates.jsonl of the sample stage")
    verdicts: Path = Field(description="verdicts.jsonl of the judge stage")
    agreement: Path = Field(description="agreement.json of the judge stage")
    strategy: Literal["best_worst", "all", "minimal_edit", "sentence"] = Field(
        default="all",
        description="best_worst: only a prompt's best score against its worst; minimal_edit: each answer "
        "against itself without the objects that the judge denies; sentence: a true next sentence against a "
        "false one behind the same beginning",
    )
    min_gap: float = Field(default=1.0, gt=0, description="smallest difference of scores")
    max_pairs_per_prompt: int = Field(default=2, ge=1, description="most pairs of one prompt")
    max_pairs: int | None = Field(
        default=None, ge=1, description="most train pairs in all, drawn by the seed; null: any number"
    )
    write_chosen: bool = Field(
        default=False,
        description="also write the chosen answers as instruction rows, `chosen.parquet`: SFT before DPO",
    )
    min_fault_drop: int | None = Field(
        default=1,
        ge=0,
        description="faults (denied claims, objects named again) that chosen must have fewer than rejected; "
        "0 also takes pairs that differ in what is left out; null: it may have more",
    )
    min_confirmed_gain: float | None = Field(
        default=0.0,
        ge=0,
        description="confirmed claims that chosen must have more than rejected, for each fault that it has "
        "fewer; 0: as many will do, 0.5: half of what is left out is made up for; null: fewer will do",
    )
    max_chosen_faults: int | None = Field(
        default=None,
        ge=0,
        description="faults that chosen may have; 0: it is true throughout, as far as the judge sees, which "
        "matters where its likelihood is trained on too (loss_type sft); null: fewer than rejected will do",
    )
    max_more_repeats: int | None = Field(
        default=0, ge=0, description="objects that chosen may name again more often than rejected; null: any"
    )
    altered: dict[Alteration, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={},
        description="share of the pairs beside which another stands whose rejected answer is the chosen one "
        "with one phrase altered: repetition (an object said twice), swap (a denied object in place of a "
        "confirmed one), omission (a confirmed one left out); see docs/pairs.md",
    )
    length_tolerance: float | None = Field(
        default=0.25, gt=0, description="largest mean length gap, tokens; null: lengths are not balanced"
    )
    mention_tolerance: float | None = Field(
        default=0.1, gt=0, description="largest mean gap of mentions of objects an answer; null: not balanced"
    )
    repetition_tolerance: float | None = Field(
        default=0.02,
        gt=0,
        description="objects that chosen may name again more often than rejected in the mean; less often is "
        "always fine: it is the only thing that pushes back; null: not balanced",
    )
    number_word_tolerance: float | None = Field(
        default=0.1, gt=0, description="largest mean gap of number words (two and more); null: not balanced"
    )
    style_tolerance: float | None = Field(
        default=None,
        gt=0,
        description="largest gap of a style feature (sentence length, commas, lists, hedging) in standard "
        "deviations, such as 0.1; null: style is not balanced",
    )
    span_weight: float = Field(
        default=DEFAULT_WEIGHT, gt=0, description="minimal_edit: weight of what is denied, for dense DPO"
    )
    max_trimmed: float = Field(
        default=0.5, ge=0, le=1, description="share of pairs that each balancing may drop"
    )
    min_pairs: int = Field(
        default=1, ge=1, description="fewer train pairs are an error; in a later round, the end of the rounds"
    )
    min_balanced_accuracy: float = Field(
        default=0.6, ge=0, le=1, description="lower bound of the judge's balanced accuracy; 0.5 is chance"
    )
    earlier: list[Path] = Field(
        default=[], description="pairs files or folders of earlier rounds to mix in, `${round.earlier.pairs}`"
    )
    earlier_share: float = Field(default=0.25, gt=0, lt=1, description="share of `earlier` pairs among all")
    truth: list[Annotations] = Field(default=[], description="annotations of the dev images, for the check")
    objects_mode: Mode = Field(default="strict", description="how objects are found in texts (the check)")

    @property
    def limits(self) -> Limits:
        """The tolerances, in the order of `answer_counts.FEATURES`."""
        tolerances = (
            self.length_tolerance,
            self.mention_tolerance,
            self.repetition_tolerance,
            self.number_word_tolerance,
        )
        return Limits(tolerances, may_fall=tuple(name == "repetition" for name in FEATURES))
