"""DASH-B: objects that detectors and people agree are absent, where models say yes (Augustin et al. 2025,
arXiv:2503.23573; https://github.com/YanNeu/DASH-B, src/eval_utils.py at 0ed9a618).

TNR: right among pictures without the object, the benchmark's point; TPR: right among those with it; accuracy
over all, and the harmonic mean of the two.

Edge cases: the official reading is yes where `yes` stands anywhere in the answer, else no where `no` does
(so in `cannot`), else wrong. `strict` finds the yes or no that a reader would find. The harmonic mean is no
plain ratio: `align score dash_b` prints it, comparisons use TNR, TPR and accuracy. The answers that the
authors publish are to an earlier list of pictures with the object: pictures that the data has not are scored
by the label that the answer file carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.objects.coco import read_json
from align.rows.schema import Message, Score
from evals.answer_files.rows import Row, answer_text, make_prediction
from evals.protocol import MODES, AnswerSet, Mark, Metric, Mode, Sample
from evals.scoring.yes_no import Answer, parse_containing, parse_strict
from evals.tasks.facts import Facts
from evals.tasks.task import Task, TaskConfig

ANSWER_FORMAT = (
    "DASH-B's answers ([{img_id, object_name, response}]) or predictions.jsonl of `align generate`"
)


class Config(TaskConfig):
    """The published lists; images lie under `image_root` as neg|pos/dataset/object/name."""

    prompt: str = Field(
        default="Can you see a {object} in this image? Please answer only with yes or no.",
        description="what is asked; {object} stands for the object",
    )
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    negatives: Path = Field(description="dash_benchmark_neg.json: dataset -> object -> images")
    positives: Path = Field(description="dash_benchmark_pos.json, likewise")


class DashB(Task[Config]):
    """See the module. Values of a sample: n (1), absent and present (0 or 1), correct, true_no, true_yes, and
    with the prefix `strict_` the last three; unparsed."""

    measures = "probing"
    answer_format = ANSWER_FORMAT
    label = "DASH-B"
    facts = Facts(metric_labels={"tnr": "True negatives", "tpr": "True positives"})
    files = {"negatives": ("dash_benchmark_neg.json",), "positives": ("dash_benchmark_pos.json",)}
    parser = (
        "official: yes if `yes` stands anywhere, else no if `no` does, else wrong; strict: the leading yes "
        "or no, or a plain statement; anything else is unparsed and wrong"
    )
    aggregation = "shares over pictures without and with the object"
    source = "DASH-B (arXiv:2503.23573)"
    licence = "images from ReLAION, Open Images, COCO and Objects365, each under its own"
    cluster = "object"

    @override
    def samples(self) -> list[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        found = []
        for folder, label, path in (
            ("neg", "no", self.config.negatives),
            ("pos", "yes", self.config.positives),
        ):
            try:
                found += [
                    self._sample(f"{folder}/{dataset}/{name}/{image}", name, label)
                    for dataset, objects in read_json(path).items()
                    for name, images in objects.items()
                    for image in images
                ]
            except (AttributeError, TypeError) as error:
                raise AlignError(f"not DASH-B's list of images: {error}", where=str(path)) from error
        return found

    def _sample(self, image: str, name: str, label: str) -> Sample:
        prompt = self.config.prompt.replace("{object}", name)
        return Sample(
            id=image,
            images=[image],
            image_root=self.image_root,
            messages=[Message(role="user", content=prompt)],
            max_tokens=self.config.max_tokens,
            cluster=name,
            reference={"label": label},
            meta={"question": prompt, "label": label, "kind": "present" if label == "yes" else "absent"},
        )

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        """Asked are the lists, and pictures that only the file of answers has, with its label."""
        of_file: dict[str, Sample] = {}
        ids = {f"{sample.cluster}/{Path(sample.id).name}": sample.id for sample in self.samples()}
        pairs = []
        for row in rows:
            name, image = (str(row.need((field,), ANSWER_FORMAT)) for field in ("object_name", "img_id"))
            sample_id = ids.get(f"{name}/{Path(image).name}")
            if sample_id is None and row.fields.get("gt") in ("yes", "no"):
                sample_id = f"file/{row.fields['gt']}/{name}/{image}"
                of_file[sample_id] = self._sample(sample_id, name, row.fields["gt"])
            pairs.append((row, sample_id or f"?{name}/{image}"))
        fields = ("response", "answer")
        predictions = [
            make_prediction(self.name, sample_id, answer_text(row.need(fields, ANSWER_FORMAT), row.where))
            for row, sample_id in pairs
        ]
        return AnswerSet([*self.samples(), *of_file.values()], predictions)

    @override
    def parse(self, text: str) -> Answer | None:
        return parse_containing(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        label, official, strict = sample.reference["label"], parse_containing(text), parse_strict(text)
        values = {"n": 1.0, "absent": float(label == "no"), "present": float(label == "yes")}
        for prefix, answer in (("", official), ("strict_", strict)):
            values |= {
                f"{prefix}correct": float(answer == label),
                f"{prefix}true_no": float(answer == label == "no"),
                f"{prefix}true_yes": float(answer == label == "yes"),
            }
        values["unparsed"] = float(strict is None)
        return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        order = sorted(MODES, key=lambda mode: mode != self.config.primary_mode)
        return [metric for mode in order for metric in self._metrics(mode)]

    def _metrics(self, mode: Mode) -> list[Metric]:
        mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
        table = [
            ("tnr", f"{mark}true_no", "absent", "right among pictures without the object"),
            ("tpr", f"{mark}true_yes", "present", "right among pictures with the object"),
            ("accuracy", f"{mark}correct", "n", "right answers"),
        ]
        return [
            Metric(
                name=name + suffix,
                split=self.config.split,
                numerator={top: 1},
                denominator={bottom: 1},
                higher_is_better=True,
                primary=name == "tnr" and mode == self.config.primary_mode,
                description=description,
                mode=mode,
            )
            for name, top, bottom, description in table
        ]

    @override
    def published(self, scores: Sequence[Score]) -> dict[str, dict[str, float]]:
        sums = {name: sum(score.values[name] for score in scores) for name in ("true_no", "true_yes")}
        absent, present = (sum(score.values[name] for score in scores) for name in ("absent", "present"))
        if not absent or not present or not sum(sums.values()):
            return {}
        tnr, tpr = sums["true_no"] / absent, sums["true_yes"] / present
        return {"": {"harmonic_mean": round(200 * tpr * tnr / (tpr + tnr), 6)}}

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The two lists of DASH-B's folder `images`; that folder is the image root."""
        found = super().locate(data)
        return found | ({"image_root": found["negatives"].parent} if "negatives" in found else {})


TASK = DashB
