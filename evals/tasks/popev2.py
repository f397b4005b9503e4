"""POPEv2: the same question about a picture and about the picture with the object taken out
(https://github.com/AoiDragon/POPE, POPEv2/dataset at 08d957b9).

Accuracy, precision, recall, F1 and yes-ratio as in POPE, over 500 pictures and their 500 edited twins; and
pair accuracy: pictures where both answers are right, which a model that always says yes cannot reach.

Edge cases: as POPE's. A pair with an answer missing counts in no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from align.rows.schema import Message, Score
from evals.answer_files.join import join_keys, join_lines, plain_question
from evals.answer_files.rows import TEXT_FIELDS, Row, answer_text, make_prediction
from evals.protocol import MODES, AnswerSet, Mark, Metric, Mode, Sample
from evals.scoring.groups import add_group_values
from evals.scoring.yes_no import Answer, parse_official, parse_strict, yes_no_metrics, yes_no_values
from evals.tasks.task import Task, TaskConfig, make_samples

ANSWER_FORMAT = (
    "POPEv2's annotations with the answer added ({image_name, query, answer} a row), {question, answer} in "
    "the order of the annotations, or predictions.jsonl of `align generate`"
)


class Config(TaskConfig):
    """The published annotations; images lie under `image_root` by the names that they give."""

    prompt: str = Field(
        default="{question}\nAnswer the question using a single word or phrase.",
        description="what is asked; {question} stands for the question",
    )
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    annotations: Path = Field(description="POPEv2's annotations.json")


class PopeV2(Task[Config]):
    """See the module; values of a sample as `yes_no_values` has them, and of a pair: pairs (1), pair_right
    and strict_pair_right."""

    measures = "probing"
    answer_format = ANSWER_FORMAT
    label = "POPEv2"
    files = {"annotations": ("popev2*.json", "annotations.json")}
    parser = (
        "official: POPE's (no iff a token before the first full stop is No, no or not); strict: the leading "
        "yes or no, or a plain statement; anything else is unparsed and wrong"
    )
    aggregation = "yes is positive; pair accuracy over pictures with both answers right"
    source = "POPEv2 (github.com/AoiDragon/POPE)"
    licence = "MIT; images as COCO"
    cluster = "picture with its edited twin"

    @override
    def samples(self) -> list[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        path = self.config.annotations
        return make_samples(read_json(path), self._sample, "POPEv2's annotations", path)

    def _sample(self, row: dict[str, Any]) -> Sample:
        label, image = str(row["label"]).lower(), str(row["image_name"]).lstrip("/")
        if label not in ("yes", "no"):
            raise AlignError(
                f"label {row['label']!r} is neither yes nor no", where=str(self.config.annotations)
            )
        return Sample(
            id=f"{image}:{row['target_object']}",
            images=[image],
            image_root=self.image_root,
            messages=[Message(role="user", content=self.config.prompt.replace("{question}", row["query"]))],
            max_tokens=self.config.max_tokens,
            cluster=str(row["image_id"]),
            reference={"label": label},
            meta={
                "question": row["query"],
                "label": label,
                "kind": "present" if label == "yes" else "absent",
                "group": f"{row['image_id']}:{row['target_object']}",
            },
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        samples = self.samples()
        ids = {
            f"{sample.images[0]}:{plain_question(sample.meta['question'])}": sample.id for sample in samples
        }
        pairs = join_keys(rows, ids, _key) or join_lines(rows, samples, _asked, ANSWER_FORMAT)
        found = [
            make_prediction(
                self.name, sample_id, answer_text(row.need(TEXT_FIELDS, ANSWER_FORMAT), row.where)
            )
            for row, sample_id in pairs
        ]
        return self.asked_in(found)

    @override
    def parse(self, text: str) -> Answer:
        return parse_official(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        official, strict = parse_official(text), parse_strict(text)
        values = yes_no_values(sample.reference["label"], official, strict)
        return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)

    @override
    def combine(self, scores: Sequence[Score]) -> list[Score]:
        sizes = Counter(sample.meta["group"] for sample in self.samples())
        return add_group_values(scores, lambda score: score.meta["group"], sizes, _pair_values)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        config = self.config
        found = []
        for mode in sorted(MODES, key=lambda mode: mode != config.primary_mode):
            is_primary = mode == config.primary_mode
            found.append(_pair_metric(mode, config.split, is_primary))
            found += yes_no_metrics(mode, config.split, (), config.primary_mode)
        return found


TASK = PopeV2


def _asked(row: Row) -> str:
    return plain_question(str(row.first(("query", "question", "prompt")) or ""))


def _key(row: Row) -> str | None:
    image = row.first(("image_name", "image"))
    return f"{str(image).lstrip('/')}:{_asked(row)}" if image and _asked(row) else None


def _pair_values(pair: Sequence[Score]) -> dict[str, float]:
    return {
        "pairs": 1.0,
        "pair_right": float(all(score.values["correct"] for score in pair)),
        "strict_pair_right": float(all(score.values["strict_correct"] for score in pair)),
    }


def _pair_metric(mode: Mode, split: str, is_primary: bool) -> Metric:
    mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    return Metric(
        name=f"pair_accuracy{suffix}",
        split=split,
        numerator={f"{mark}pair_right": 1},
        denominator={"pairs": 1},
        higher_is_better=True,
        primary=is_primary,
        description="pictures with both answers right, with the object and without it",
        mode=mode,
    )
