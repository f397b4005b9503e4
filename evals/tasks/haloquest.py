"""HaloQuest: questions that invite an invention: false premises, too little to go by, or hard to see
(Wang et al. 2024, arXiv:2407.15680; https://github.com/google/haloquest, haloquest-eval.csv).

A text judge compares each answer with the accepted ones and says whether it is right; accuracy over all and
for each of the three kinds. The published judge is Gemini through Langfun; ours has a prompt in our own words
with the same rules, so numbers are comparable only with the same judge.

Edge cases: a refusal is wrong; so is `no` or `nothing` where the thing asked about is absent, for it grants
the premise; counts must match exactly. Official takes any reply that holds `incorrect` for wrong, else one
with `correct` for right, and counts others as wrong. `strict` takes the last such word; other replies are
unscored.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.judging.ask import Judgement, told
from align.judging.wording import fill
from align.rows.schema import Message
from evals.answer_files.join import join_keys, join_lines, plain_question
from evals.answer_files.rows import TEXT_FIELDS, Row, answer_text, make_prediction
from evals.protocol import MODES, AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.tasks.hallusionbench import official_verdict, strict_verdict
from evals.tasks.judged_task import JudgedConfig, JudgedTask

ANSWER_FORMAT = (
    "{image_name, question, answer} a row, JSON or JSON lines, with a judge's `is_prediction_correct` (true "
    "or false) where one saw it; the same without `image_name` in the order of the questions; or "
    "predictions.jsonl of `align generate`"
)
KINDS = {
    "false premises": "false_premise",
    "visual challenge": "visually_challenging",
    "insufficient context": "insufficient_context",
}
"""The file's hallucination types -> the parts of the benchmark."""
_COLUMNS = ("image_name", "hallucination type", "question", "groundtruth responses")
_CHECKS = ("is_prediction_correct", "is_correct")

JUDGE_PROMPT = """\
Decide whether an answer to a question about a picture is right. You cannot see the picture; any of the \
accepted answers is right.

Question: {question}
Accepted answers, separated by semicolons: {reference}
Answer to check: {answer}

Read the answer as an answer to this question. If the accepted answers say that the thing asked about is not \
in the picture, the answer must say so too; a bare yes, no or nothing grants that it is there and is wrong. \
An answer that declines to answer is wrong. Counts must match exactly.

Reply with one word: `correct` or `incorrect`.
"""


class Config(JudgedConfig):
    """The published questions; images lie under `image_root` by their names."""

    prompt: str = Field(default="{question}", description="what is asked; {question} stands for the question")
    max_tokens: int = Field(default=256, gt=0, description="longest answer in tokens")
    data: Path = Field(description="haloquest-eval.csv")


class HaloQuest(JudgedTask[Config]):
    """See the module. Values of a sample, plain and with the prefix `strict_`: right (share of the repeats),
    scored (0 if the judge gave no verdict)."""

    measures = "probing"
    answer_format = ANSWER_FORMAT
    label = "HaloQuest"
    files = {"data": ("haloquest-eval.csv", "*haloquest*eval*.csv", "*haloquest*.csv")}
    parser = (
        "comparable to published numbers only if it is the same; official: `incorrect` is wrong, else "
        "`correct` right, else wrong; strict: the last such word, other replies unscored"
    )
    aggregation = "right answers / judged answers"
    source = "HaloQuest (arXiv:2407.15680), judge's prompt in our words"
    licence = "CC-BY-4.0; images as Open Images and Midjourney"
    wording = JUDGE_PROMPT

    @override
    def samples(self) -> list[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        path = self.config.data
        try:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                rows = list(csv.DictReader(lines))
        except OSError as error:
            raise AlignError(f"cannot read {path}: {error.strerror}") from error
        if not rows or set(_COLUMNS) - rows[0].keys():
            raise AlignError(f"not HaloQuest's table: needs {', '.join(_COLUMNS)}", where=str(path))
        return [self._sample(number, row) for number, row in enumerate(rows)]

    def _sample(self, number: int, row: dict[str, str]) -> Sample:
        question, accepted = row["question"], row["groundtruth responses"]
        kind = KINDS.get(row["hallucination type"].strip().lower(), "other")
        return Sample(
            id=str(number),
            images=[row["image_name"]],
            image_root=self.image_root,
            messages=[Message(role="user", content=self.config.prompt.replace("{question}", question))],
            max_tokens=self.config.max_tokens,
            cluster=row["image_name"],
            reference={"answers": accepted},
            subsets=(kind,),
            meta={"question": question, "label": accepted, "kind": kind},
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        samples = self.samples()
        ids = {f"{sample.cluster}:{plain_question(sample.meta['question'])}": sample.id for sample in samples}
        found, verdicts = [], dict[str, list[Judgement]]()
        for row, sample_id in join_keys(rows, ids, _key) or join_lines(rows, samples, _asked, ANSWER_FORMAT):
            check = row.first(_CHECKS)
            if isinstance(check, bool):
                verdicts[sample_id] = [told(sample_id, None, "1" if check else "0")]
            text = answer_text(row.need(TEXT_FIELDS, ANSWER_FORMAT), row.where)
            found.append(make_prediction(self.name, sample_id, text))
        return self.asked_in(found, verdicts)

    @override
    def judge_question(self, sample: Sample, text: str) -> Sequence[Message]:
        parts = {
            "question": sample.meta["question"],
            "reference": sample.reference["answers"],
            "answer": text,
        }
        return [Message(role="user", content=fill(JUDGE_PROMPT, parts))]

    @override
    def read_verdict(self, reply: str) -> str | None:
        """By strict; official reads the reply again."""
        verdict = strict_verdict(reply)
        return verdict if verdict in ("0", "1") else None

    @override
    def parse(self, text: str) -> str:
        return text

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        judged = self.judgements.get(sample.id, ())
        strict: list[str] = [row.verdict for row in judged if row.verdict is not None]
        official: list[str] = [
            row.verdict if row.reply is None else official_verdict(row.reply)
            for row in judged
            if row.reply is not None or row.verdict is not None
        ]
        values: dict[str, float] = {}
        for prefix, verdicts in (("", official), ("strict_", strict)):
            values[f"{prefix}right"] = verdicts.count("1") / max(len(verdicts), 1)
            values[f"{prefix}scored"] = float(bool(verdicts))
        meta = {"verdicts": official, "verdicts_strict": strict, **self.judgement_meta(sample.id)}
        return Mark(values, official, meta, unparsed=not strict)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        order = sorted(MODES, key=lambda mode: mode != self.config.primary_mode)
        parts = ("", *KINDS.values())
        return [self._metric(mode, part) for mode in order for part in parts]

    def _metric(self, mode: Mode, part: str) -> Metric:
        mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
        return Metric(
            name=f"accuracy{suffix}",
            split=part or "all",
            numerator={f"{mark}right": 1},
            denominator={f"{mark}scored": 1},
            higher_is_better=True,
            primary=not part and mode == self.config.primary_mode,
            description="answers that the judge calls right",
            mode=mode,
            subsets=(part,) if part else (),
        )

    @property
    @override
    def card(self) -> Card:
        judge = self.config.judge
        named = judge.name if judge else "as in the file"
        return replace(super().card, parser=f"judge: {named}, {self.parser}")


TASK = HaloQuest


def _asked(row: Row) -> str:
    return plain_question(str(row.first(("question", "prompt")) or ""))


def _key(row: Row) -> str | None:
    image = row.first(("image_name", "image"))
    return f"{Path(str(image)).name}:{_asked(row)}" if image and _asked(row) else None
