"""HallusionBench: yes/no questions about figures and their edited versions (Guan et al. 2023,
arXiv:2310.14566; https://github.com/tianyi-lab/HallusionBench, utils.py and evaluation.py at 744007c2).

- aAcc: answers right; fAcc: figures with every answer right; qAcc: questions right on every figure;
- easy_aAcc and hard_aAcc: of the questions asked with no picture or an original one, and of those asked with
  edited ones (visual_input 2), the share that is right on every one of them. The leaderboard's columns have
  these names, though its script counts questions there, not answers.

There are 1,129 questions, 178 of them without a picture, or 951 with pictures alone (`questions: image`);
the card names which. `scorer: judge` has a text judge compare an answer with the truth, as published; `rule`
reads yes or no and needs none, and its numbers are no judge's.

Edge cases: a judge's text with `incorrect` in it is wrong, else with `correct` right, else unclear; unclear
counts as right only for VS questions without a figure. Those belong to no figure of fAcc. `strict` takes the
reply's last such word; a reply without one is unscored. By rule, an answer without a yes or no is unclear.
Of several judgements the majority decides. A group with an answer missing or unscored counts nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from align.judging.ask import Judgement, told
from align.judging.wording import fill
from align.objects.coco import read_json
from align.rows.schema import Message, Score
from evals.answer_files.rows import TEXT_FIELDS, Row, answer_text, make_prediction
from evals.protocol import MODE_PREFIXES, MODES, AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.scoring.groups import add_group_values
from evals.scoring.yes_no import parse_strict
from evals.tasks.facts import Facts
from evals.tasks.judged_task import JudgedConfig, JudgedTask
from evals.tasks.task import make_samples

ANSWER_FORMAT = (
    "HallusionBench.json with `model_prediction` on each row, and `gpt4v_output_gpt_check` (0, 1 or 2; "
    "any name that ends so) where a judge saw it; or predictions.jsonl of `align generate`"
)
Verdict = Literal["0", "1", "2"]
_WRONG, _RIGHT, _UNCLEAR = "0", "1", "2"
_CHECKS = ("correctness", "judge_output", "correct")
_GROUPS = {"figure": "figure", "question": "of_question", "easy": "easy", "hard": "hard"}
"""Group of answers that must all be right -> the field of a sample's `meta` that names its group."""

JUDGE_PROMPT = """\
Compare a prediction with the reference answer to a question.

Question: {question}
Reference answer: {reference}
Prediction: {answer}

If the prediction agrees with the reference or does not conflict with it, reply `correct`. If it conflicts \
with it, reply `incorrect`. If one cannot tell what it claims, reply `unclear`. Reply with that one word.
"""


class Config(JudgedConfig):
    """The published questions; images lie under `image_root` by their `filename`."""

    prompt: str = Field(default="{question}", description="what is asked; {question} stands for the question")
    max_tokens: int = Field(default=256, gt=0, description="longest answer in tokens")
    data: Path = Field(description="HallusionBench.json")
    questions: Literal["all", "image"] = Field(
        default="all", description="all 1,129, or the 951 that come with a picture"
    )
    scorer: Literal["judge", "rule"] = Field(
        default="judge", description="who scores: a judge as published, or the answer's own yes or no"
    )


class HallusionBench(JudgedTask[Config]):
    """See the module. Values of a sample, plain and with the prefix `strict_`: right, scored (0 if the judge
    gave no verdict); of a group: figure and figure_right, and so on for question, easy and hard."""

    measures = "probing"
    answer_format = ANSWER_FORMAT
    label = "HallusionBench"
    facts = Facts(metric_labels={name: name for name in ("aAcc", "fAcc", "qAcc")})
    files = {"data": ("HallusionBench.json", "HallusionBench*.json")}
    parser = (
        "official: `incorrect` is wrong, else `correct` right, else unclear; strict: the last such word, "
        "other replies unscored"
    )
    aggregation = "aAcc over answers, fAcc over figures, qAcc over questions"
    source = "HallusionBench (arXiv:2310.14566), judge's prompt in our words"
    licence = "BSD-3-Clause"
    cluster = "set_id"
    wording = JUDGE_PROMPT

    @override
    def samples(self) -> list[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        path = self.config.data
        rows = (row for row in read_json(path) if self.config.questions == "all" or _has_image(row))
        return make_samples(rows, self._sample, "HallusionBench's questions", path)

    def _sample(self, row: dict[str, Any]) -> Sample:
        figure, question = (f"{_set_of(row)}_{row[name]}" for name in ("figure_id", "question_id"))
        without = row["category"] == "VS" and str(row["figure_id"]) == "0"
        edited = str(row["visual_input"]) == "2"
        return Sample(
            id=_id_of(row),
            images=[str(row["filename"]).removeprefix("./")] if _has_image(row) else [],
            image_root=self.image_root,
            messages=[
                Message(role="user", content=self.config.prompt.replace("{question}", row["question"]))
            ],
            max_tokens=self.config.max_tokens,
            cluster=_set_of(row),
            reference={
                "answer": str(row["gt_answer"]),
                "details": row["gt_answer_details"],
                "without": without,
            },
            subsets=(str(row["category"]),),
            meta={
                "question": row["question"],
                "label": {"0": "no", "1": "yes"}.get(str(row["gt_answer"]), ""),
                "kind": f"{row['category']} {row['subcategory']}",
                "figure": None if without else figure,
                "of_question": question,
                "easy": None if edited else question,
                "hard": question if edited else None,
            },
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        found, verdicts = [], dict[str, list[Judgement]]()
        for row in rows:
            sample_id = _row_id(row)
            check = row.first([*(name for name in row.fields if name.endswith("gpt_check")), *_CHECKS])
            text = answer_text(row.first(("model_prediction", *TEXT_FIELDS)), row.where)
            if check is not None and self.config.scorer == "judge":
                verdicts[sample_id] = [told(sample_id, str(check), strict_verdict(str(check)))]
            elif text is None:
                row.need(("model_prediction",), ANSWER_FORMAT)
            found.append(
                make_prediction(self.name, sample_id, "" if check is not None and text is None else text)
            )
        return self.asked_in(found, verdicts)

    @override
    def judge_question(self, sample: Sample, text: str) -> Sequence[Message] | None:
        if self.config.scorer == "rule":
            return None
        details = str(sample.reference["details"])
        parts = {"question": sample.meta["question"], "reference": details, "answer": text}
        return [Message(role="user", content=fill(JUDGE_PROMPT, parts))]

    @override
    def read_verdict(self, reply: str) -> Verdict | None:
        """By strict; official reads the reply again."""
        return strict_verdict(reply)

    @override
    def parse(self, text: str) -> str:
        return text

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        values: dict[str, float] = {}
        parsed: dict[Mode, list[Verdict]] = {}
        for mode, prefix in MODE_PREFIXES:
            verdicts = self._verdicts(sample, text, mode)
            accepted = (_RIGHT, _UNCLEAR) if sample.reference["without"] else (_RIGHT,)
            share = sum(verdict in accepted for verdict in verdicts) / max(len(verdicts), 1)
            parsed[mode] = verdicts
            values |= {f"{prefix}right": float(share > 0.5), f"{prefix}scored": float(bool(verdicts))}
        meta = {"verdicts": parsed["official"], "verdicts_strict": parsed["strict"]}
        unparsed = not parsed["strict"] or (self.config.scorer == "rule" and parsed["strict"] == [_UNCLEAR])
        return Mark(values, parsed["official"], meta | self.judgement_meta(sample.id), unparsed=unparsed)

    def _verdicts(self, sample: Sample, text: str, mode: Mode) -> list[Verdict]:
        """Of several judgements the majority decides; an even split is not right."""
        if self.config.scorer == "rule":
            answer = {"0": "no", "1": "yes", "2": None}.get(text.strip(), parse_strict(text))
            return [_UNCLEAR if answer is None else _RIGHT if answer == sample.meta["label"] else _WRONG]
        judged = self.judgements.get(sample.id, ())
        if mode == "official":
            return [official_verdict(row.reply) for row in judged if row.reply is not None]
        return [row.verdict for row in judged if row.verdict is not None]

    @override
    def combine(self, scores: Sequence[Score]) -> list[Score]:
        found = list(scores)
        for group, key in _GROUPS.items():
            sizes = Counter(name for sample in self.samples() if (name := sample.meta[key]) is not None)
            found = add_group_values(
                found,
                lambda score, key=key: score.meta[key],
                sizes,
                lambda rows, group=group: _group(rows, group),
            )
        return found

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        order = sorted(MODES, key=lambda mode: mode != self.config.primary_mode)
        return [metric for mode in order for part in ("", "VD", "VS") for metric in self._metrics(mode, part)]

    def _metrics(self, mode: Mode, part: str) -> list[Metric]:
        mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
        table = [
            ("aAcc", f"{mark}right", f"{mark}scored", "answers right"),
            ("fAcc", f"{mark}figure_right", f"{mark}figure", "figures with every answer right"),
            ("qAcc", f"{mark}question_right", f"{mark}question", "questions right on every figure"),
            (
                "easy_aAcc",
                f"{mark}easy_right",
                f"{mark}easy",
                "questions right on no or the original picture",
            ),
            ("hard_aAcc", f"{mark}hard_right", f"{mark}hard", "questions right on every edited picture"),
        ]
        return [
            Metric(
                name=name + suffix,
                split=part or "all",
                numerator={top: 1},
                denominator={bottom: 1},
                higher_is_better=True,
                primary=not part and name in ("aAcc", "fAcc", "qAcc") and mode == self.config.primary_mode,
                description=description,
                mode=mode,
                subsets=(part,) if part else (),
            )
            for name, top, bottom, description in table
        ]

    @property
    @override
    def card(self) -> Card:
        config, judge = self.config, self.config.judge
        named = "as in the file" if judge is None else judge.name
        scorer = f"judge: {named}" if config.scorer == "judge" else "rule: the answer's yes or no, no judge"
        asked = "all" if config.questions == "all" else "with pictures"
        split = f"{len(self.samples())} questions, {asked}"
        return replace(super().card, parser=f"{scorer}; {self.parser}", split=split)


TASK = HallusionBench


def official_verdict(reply: str) -> Verdict:
    """0 wrong, 1 right, 2 unclear, as utils.py reads a judge's reply.

    >>> [official_verdict(text) for text in ("Incorrect.", "Correct", "Not correct", "unclear", "2")]
    ['0', '1', '1', '2', '2']
    """
    text = reply.strip().lower()
    if text in (_WRONG, _RIGHT):
        return _WRONG if text == _WRONG else _RIGHT
    return _WRONG if "incorrect" in text else _RIGHT if "correct" in text else _UNCLEAR


_VERDICT = re.compile(r"\b(?:not correct|incorrect|correct|unclear)\b")


def strict_verdict(reply: str) -> Verdict | None:
    """The last word of the set in the reply, None without one.

    >>> [strict_verdict(text) for text in ("Not correct", "unclear, I'd say correct", "maybe", "2")]
    ['0', '1', None, '2']
    """
    text = reply.strip().lower()
    if text in (_WRONG, _RIGHT, _UNCLEAR):
        return _WRONG if text == _WRONG else _RIGHT if text == _RIGHT else _UNCLEAR
    words = _VERDICT.findall(text)
    if not words:
        return None
    return _RIGHT if words[-1] == "correct" else _UNCLEAR if words[-1] == "unclear" else _WRONG


def _group(rows: Sequence[Score], group: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for prefix in ("", "strict_"):
        whole = bool(rows) and all(row.values[f"{prefix}scored"] for row in rows)
        right = whole and all(row.values[f"{prefix}right"] for row in rows)
        values |= {f"{prefix}{group}": float(whole), f"{prefix}{group}_right": float(right)}
    return values


def _has_image(row: dict[str, Any]) -> bool:
    return str(row["visual_input"]) != "0"


def _set_of(row: Any) -> str:
    return f"{row['category']}_{row['subcategory']}_{row['set_id']}"


def _id_of(row: Any) -> str:
    return f"{_set_of(row)}_{row['figure_id']}_{row['question_id']}"


def _row_id(row: Row) -> str:
    for name in ("category", "subcategory", "set_id", "figure_id", "question_id"):
        row.need((name,), ANSWER_FORMAT)
    return _id_of(row.fields)
