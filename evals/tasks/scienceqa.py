"""ScienceQA-IMG: school questions with a picture and up to five options (Lu et al. 2022, arXiv:2209.09513;
https://github.com/lupantech/ScienceQA).

Reads `problems.json` and `pid_splits.json`, and asks those problems of the split that have a picture (2,017
of test). The model is asked for the option's letter; an answer without one is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from evals.answer_files.rows import Row, read_whole
from evals.protocol import Grade
from evals.scoring.choices import format_choices, label_choices, parse_scienceqa
from evals.scoring.graders import grade_choice
from evals.tasks.question_task import Question, QuestionConfig, QuestionTask, answers_as, read_fields


class Config(QuestionConfig):
    """ScienceQA's problems and splits."""

    prompt: str = Field(
        default="{question}\nAnswer with the option's letter from the given choices directly.",
        description="what is asked; {question} stands for hint, question and lettered options",
    )
    problems: Path = Field(description="ScienceQA problems.json")
    splits: Path = Field(description="ScienceQA pid_splits.json")
    split: str = Field(default="test", description="which of the splits: test, val, minival, ...")


class ScienceQa(QuestionTask[Config]):
    """See the module; kinds are the subjects."""

    label = "ScienceQA"
    files = {"problems": ("problems.json",), "splits": ("pid_splits.json",)}
    answer_format = answers_as("LLaVA's results JSON {outputs: {problem id: text}}")
    parser = (
        "official: LLaVA's letter parse, unparsed is wrong; strict: the letter or option that a reader would "
        "take"
    )
    aggregation = "right answers / questions with a picture"
    source = "ScienceQA (arXiv:2209.09513), problems with a picture"
    licence = "CC-BY-NC-SA-4.0"

    @override
    def questions(self) -> list[Question]:
        problems, splits = read_json(self.config.problems), read_json(self.config.splits)
        split = self.config.split
        if not isinstance(splits, dict) or split not in splits:
            raise AlignError(
                f"no split {split!r}", where=str(self.config.splits), fix="name one with `split`"
            )
        where = str(self.config.problems)
        return [
            self._question(str(name), problem, f"{where} key {name!r}")
            for name in splits[split]
            if (problem := read_fields(problems, (str(name),), where)[0]).get("image")
        ]

    def _question(self, name: str, problem: Any, where: str) -> Question:
        text, options, answer = read_fields(problem, ("question", "choices", "answer"), where)
        choices = label_choices([str(option) for option in options])
        hint = f"{problem['hint']}\n" if problem.get("hint") else ""
        letter = list(choices)[int(answer)]
        return Question(
            id=name,
            image=f"{problem.get('split') or self.config.split}/{name}/{problem['image']}",
            text=f"{hint}{text}\n{format_choices(choices)}",
            reference={"choices": choices, "answer": letter},
            label=f"{letter}. {choices[letter]}",
            kinds=(str(problem["subject"]),) if problem.get("subject") else (),
        )

    @override
    def grade(self, reference: Mapping[str, Any], text: str) -> Grade:
        return grade_choice(parse_scienceqa, reference, text)

    @override
    def answer_rows(self, path: Path) -> list[Row]:
        tree = read_whole(path)
        if isinstance(tree, dict) and isinstance(tree.get("outputs"), dict):
            return [
                Row(f"{path} outputs {name!r}", {"id": name, "text": text})
                for name, text in tree["outputs"].items()
            ]
        return super().answer_rows(path)


TASK = ScienceQa
