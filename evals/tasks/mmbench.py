"""MMBench: multiple choice, right only if every rotation of the options is (Liu et al. 2023,
arXiv:2307.06281; https://github.com/open-compass/MMBench).

Reads MMBench's table, in which rotations of question i are rows i + k x 1,000,000 and share its picture.
Where the table has no rotations, they are made here the same way. An answer that picks no option is wrong:
there is neither a language model nor chance to fall back on.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.rows.schema import Score
from evals.answer_files.rows import Row
from evals.answer_files.spreadsheet import SUFFIXES, read_table
from evals.protocol import Grade, Metric, Mode
from evals.scoring.choices import LETTERS, format_choices, parse_mmbench
from evals.scoring.graders import grade_choice
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as, read_fields

_STEP = 1_000_000
_LONGEST_REFERENCE = 64
"""A shorter text in the column of pictures is the index of the row that has the picture."""


class Config(QuestionConfig):
    """MMBench's table."""

    prompt: str = Field(
        default="{question}\nAnswer with the option's letter from the given choices directly.",
        description="what is asked; {question} stands for hint, question and lettered options",
    )
    table: Path = Field(description="MMBench table with answers, such as mmbench_dev_en_20231003.tsv")
    file_name: str = Field(
        default="{index}.jpg", description="picture of question {index}; unpacked there from the table"
    )
    split: str = Field(default="dev", description="name of the data split, as tables show it")


@dataclass(frozen=True)
class Rotation:
    """One way to put a question.

    Attributes:
        group: index of the question that this is a rotation of.
        size: how many rotations the question has.
    """

    index: int
    group: int
    size: int
    row: Mapping[str, str]
    choices: Mapping[str, str]
    answer: str


class MmBench(QuestionTask[Config]):
    """See the module; kinds are MMBench's abilities (l2-category, else category).

    Values beside `QuestionTask`'s: `first` (1 for a question as it was written), `first_accuracy`, and, on
    the first score of a question whose rotations all have an answer, `groups` (1) and `group_accuracy` (all
    are right); each accuracy also with the prefix `strict_`.
    """

    label = "MMBench"
    description = "questions right in every rotation"
    files = {
        "table": ("mmbench_dev_en*.tsv", "mmbench_dev*.tsv", "*mmbench*.tsv", "*.tsv", "*.xlsx"),
    }
    answer_format = answers_as(
        "MMBench's table with index and prediction (.xlsx, .tsv, .csv)", "JSONL {index, prediction}"
    )
    parser = (
        "official: VLMEvalKit's exact matching, without a language model and never at random; strict: the "
        "letter or option that a reader would take; unparsed is wrong"
    )
    aggregation = "questions right in every rotation / questions; accuracy_vanilla: as written"
    source = "MMBench (arXiv:2307.06281)"
    licence = "Apache-2.0"
    cluster = "question with its rotations"

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The dev table; pictures are unpacked into `images` beside it."""
        found = super().locate(data)
        return found | {"image_root": found["table"].parent / "images"} if found else {}

    @cached_property
    def _rotations(self) -> list[Rotation]:
        rows = read_table(self.config.table)
        groups: dict[int, list[tuple[int, dict[str, str]]]] = defaultdict(list)
        for number, row in enumerate(rows, 2):
            where = f"{self.config.table} row {number}"
            index, _, _, answer = read_fields(row, ("index", "question", "A", "answer"), where)
            if not index.isdigit() or answer not in _options(row):
                raise AlignError(
                    f"index {index!r} with the answer {answer!r}: no number, or no option of that letter",
                    where=where,
                    fix="use a split whose answers are published (dev)",
                )
            groups[int(index) % _STEP].append((int(index), row))
        rotate = all(len(members) == 1 for members in groups.values())
        return [
            rotation
            for group, members in groups.items()
            for rotation in (_rotate(group, members[0][1]) if rotate else _as_they_are(group, members))
        ]

    @override
    def questions(self) -> list[Question]:
        return [self._question(rotation) for rotation in self._rotations]

    def _question(self, rotation: Rotation) -> Question:
        row = rotation.row
        hint = f"{row['hint']}\n" if row.get("hint") not in (None, "", "nan") else ""
        kind = row.get("l2-category") or row.get("l2_category") or row.get("category")
        return Question(
            id=str(rotation.index),
            image=self.config.file_name.format(index=rotation.group),
            text=f"{hint}{row['question']}\n{format_choices(rotation.choices)}",
            reference={"choices": dict(rotation.choices), "answer": rotation.answer, "size": rotation.size},
            label=f"{rotation.answer}. {rotation.choices[rotation.answer]}",
            kinds=(kind,) if kind else (),
            cluster=f"question {rotation.group}",
        )

    @override
    def unit(self, question: Question) -> str:
        return question.cluster

    @override
    def prepare(self) -> None:
        """Write the pictures of the table to the image root, with their original bytes."""
        pictures = {int(row["index"]): row.get("image", "") for row in read_table(self.config.table)}
        for rotation in self._rotations:
            path = self.image_root / self.config.file_name.format(index=rotation.group)
            if path.is_file():
                continue
            text = pictures.get(rotation.group, "")
            if text.isdigit() and len(text) <= _LONGEST_REFERENCE:
                text = pictures.get(int(text), "")
            try:
                data = base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise AlignError(
                    f"the picture of question {rotation.group} is not base64: {error}",
                    where=str(self.config.table),
                ) from error
            if data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_choice(parse_mmbench, reference, text)

    @override
    def combine(self, scores: Sequence[Score]) -> list[Score]:
        sizes = {str(rotation.index): rotation.size for rotation in self._rotations}
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            groups[score.cluster].append(score)
        found = []
        for members in groups.values():
            whole = len(members) == sizes[members[0].sample_id]
            for place, score in enumerate(members):
                counts = float(whole and place == 0)
                first = float(int(score.sample_id) < _STEP)
                added = {"groups": counts, "first": first}
                for name in ("accuracy", "strict_accuracy"):
                    prefix = name.removesuffix("accuracy")
                    right = all(member.values[name] == 1 for member in members)
                    added[f"{prefix}group_accuracy"] = counts * right
                    added[f"{prefix}first_accuracy"] = first * score.values[name]
                found.append(score.model_copy(update={"values": {**score.values, **added}}))
        return found

    @override
    def ratio(self, mode: Mode, split: str, subsets: tuple[str, ...], description: str) -> Metric:
        mark = "" if mode == "official" else "strict_"
        metric = super().ratio(mode, split, subsets, description)
        return replace(metric, numerator={f"{mark}group_accuracy": 1}, denominator={"groups": 1})

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        return [*super().metrics, *(self._first(mode) for mode in ("official", "strict"))]

    def _first(self, mode: Mode) -> Metric:
        mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
        return replace(
            super().ratio(mode, self.config.split, (), ""),
            name=f"accuracy_vanilla{suffix}",
            numerator={f"{mark}first_accuracy": 1},
            denominator={"first": 1},
            primary=False,
            description="questions right as they are written, without rotations",
        )

    @override
    def answer_rows(self, path: Path) -> list[Row]:
        if path.suffix.lower() not in SUFFIXES:
            return super().answer_rows(path)
        rows = [Row(f"{path} row {number}", row) for number, row in enumerate(read_table(path), 2)]
        for row in rows:
            row.need(("prediction",), self.answer_format)
        return rows

    @override
    def answered_id(self, row: Row) -> str:
        """LLaVA's answers to all rotations number them as rounds of one question."""
        name, turn = super().answered_id(row), row.fields.get("round_id", 0)
        return str(int(name) + int(turn) * _STEP) if turn and name.isdigit() else name


TASK = MmBench


def _options(row: Mapping[str, str]) -> dict[str, str]:
    """The lettered options, up to the first that is empty."""
    found: dict[str, str] = {}
    for letter in LETTERS:
        if row.get(letter) in (None, "", "nan"):
            break
        found[letter] = row[letter]
    return found


def _as_they_are(group: int, members: Sequence[tuple[int, Mapping[str, str]]]) -> list[Rotation]:
    return [Rotation(index, group, len(members), row, _options(row), row["answer"]) for index, row in members]


def _rotate(group: int, row: Mapping[str, str]) -> list[Rotation]:
    """Each option once in each place: rotation k moves them k letters up, the first ones to the end."""
    choices = _options(row)
    letters, texts = list(choices), list(choices.values())
    right = letters.index(row["answer"])
    size = len(letters)
    return [
        Rotation(
            index=group + k * _STEP,
            group=group,
            size=size,
            row=row,
            choices=dict(zip(letters, texts[k:] + texts[:k], strict=True)),
            answer=letters[(right - k) % size],
        )
        for k in range(size)
    ]
