"""MME's four object parts, the usual hallucination subset: existence, count, position, color (Fu et al. 2023,
arXiv:2306.13394; eval_tool/calculation.py of the published results folder).

Two questions a picture, one yes and one no. A part's score is 100 x accuracy + 100 x accuracy+, where
accuracy+ counts pictures with both right; so 200 is the best part and 800 the best total.

Edge cases: official takes an answer that is `yes` or `no` in any case, else looks for `yes`, then for `no`,
in its first four characters, else it is wrong (so `not` is no, and `There is no dog` wrong). `strict` finds
the yes or no that a reader would find. A picture with an answer missing counts nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field
from typing_extensions import override

from align.errors import AlignError
from align.rows.schema import Message, Score
from evals.answer_files.join import plain_question
from evals.answer_files.rows import (
    TEXT_FIELDS,
    answer_text,
    is_own,
    make_prediction,
    own_predictions,
    read_answer_rows,
    read_text,
    unknown_shape,
)
from evals.protocol import MODES, AnswerSet, Card, Mark, Metric, Mode, Sample
from evals.scoring.groups import add_group_values
from evals.scoring.yes_no import Answer, parse_strict
from evals.tasks.facts import Facts
from evals.tasks.task import Task, TaskConfig

Part = Literal["existence", "count", "position", "color"]
PARTS: tuple[Part, ...] = get_args(Part)
ANSWER_FORMAT = (
    "MME's results folder (existence.txt and so on) or one such file, lines `image TAB question TAB truth "
    "TAB answer`; LLaVA's {question_id: part/image, prompt, text} a line; or predictions.jsonl of "
    "`align generate`"
)

_QUESTIONS = 2
"""MME asks two questions a picture."""


class Config(TaskConfig):
    """The release's folder; a results folder of published answers needs none, it carries the truth."""

    prompt: str = Field(
        default="{question}", description="what is asked; MME's questions end in `Please answer yes or no.`"
    )
    max_tokens: int = Field(default=16, gt=0, description="longest answer in tokens")
    folder: Path | None = Field(
        default=None, description="MME_Benchmark_release_version: a folder a part, with a .txt a picture"
    )
    parts: list[Part] = Field(default=list(PARTS), min_length=1, description="parts to ask")


class Mme(Task[Config]):
    """See the module. Values of a sample: n (1), correct, strict_correct, unparsed; of a picture with both
    answers: images (1), both, points (right answers / 2 + both), and strict_both, strict_points."""

    measures = "probing"
    answer_format = ANSWER_FORMAT
    label = "MME"
    facts = Facts(metric_labels={"acc": "Accuracy", "acc_plus": "Accuracy+"})
    files = {"folder": ()}
    parser = (
        "official: exactly yes or no in any case, else `yes`, then `no`, in the first four characters, else "
        "wrong; strict: the leading yes or no, or a plain statement"
    )
    aggregation = "100 x accuracy + 100 x share of pictures with both right, a part; summed over parts"
    source = "MME (arXiv:2306.13394)"
    licence = "as MME's release: research only"
    cluster = "picture"

    @override
    def samples(self) -> list[Sample]:
        if not self._asked:
            raise AlignError(
                "no MME questions", where=f"tasks.{self.name}.folder", fix="name the release's folder"
            )
        return self._asked

    @cached_property
    def _asked(self) -> list[Sample]:
        folder = self.config.folder
        if folder is None:
            return []
        return [sample for part in self.config.parts for sample in self._read_part(folder / part, part)]

    def _read_part(self, folder: Path, part: Part) -> Iterable[Sample]:
        texts = folder / "questions_answers_YN"
        pictures = folder / "images"
        for path in sorted((texts if texts.is_dir() else folder).glob("*.txt")):
            images = sorted((pictures if pictures.is_dir() else folder).glob(f"{path.stem}.*"))
            image = next((str(item.relative_to(folder.parent)) for item in images if item != path), "")
            for number, line in enumerate(_lines(path)):
                cells = line.split("\t")
                if len(cells) != 2:
                    raise AlignError("not `question TAB answer`", where=f"{path}:{number + 1}")
                yield self._sample(part, image or f"{part}/{path.stem}", number, cells[0], cells[1])

    def _sample(self, part: str, image: str, number: int, question: str, truth: str) -> Sample:
        label, stem = truth.strip().lower(), Path(image).stem
        if label not in ("yes", "no"):
            raise AlignError(f"truth {truth!r} is neither yes nor no", where=f"{part}/{stem}")
        return Sample(
            id=f"{part}/{stem}/{number}",
            images=[image],
            image_root=self.image_root,
            messages=[Message(role="user", content=self.config.prompt.replace("{question}", question))],
            max_tokens=self.config.max_tokens,
            cluster=f"{part}/{stem}",
            reference={"label": label},
            subsets=(part,),
            meta={"question": question, "label": label, "kind": part},
        )

    @override
    def read_answers(self, path: Path) -> AnswerSet:
        """Files that carry the truth ask what stands in them."""
        if path.is_dir() or path.suffix == ".txt":
            return self._read_results(self._result_files(path))
        rows = read_answer_rows(path, ANSWER_FORMAT)
        if is_own(rows):
            return self.asked_in(own_predictions(rows, self.name))
        ids = {
            (sample.cluster, plain_question(sample.meta["question"])): sample.id for sample in self.samples()
        }
        found = []
        for row in rows:
            place = str(row.need(("question_id",), ANSWER_FORMAT))
            part, stem = place.partition("/")[0], Path(place).stem
            key = (f"{part}/{stem}", plain_question(str(row.need(("prompt", "question"), ANSWER_FORMAT))))
            text = answer_text(row.need(TEXT_FIELDS, ANSWER_FORMAT), row.where)
            if part in self.config.parts:
                found.append(make_prediction(self.name, ids.get(key, f"?{place}"), text))
        if not found:
            raise unknown_shape(str(path), f"no answers about {', '.join(self.config.parts)}", ANSWER_FORMAT)
        return self.asked_in(found)

    def _result_files(self, path: Path) -> list[Path]:
        files = [path] if path.is_file() else [path / f"{part}.txt" for part in self.config.parts]
        found = [file for file in files if file.is_file() and file.stem in self.config.parts]
        if not found:
            raise unknown_shape(str(path), f"no {'.txt, '.join(self.config.parts)}.txt", ANSWER_FORMAT)
        return found

    def _read_results(self, paths: Sequence[Path]) -> AnswerSet:
        samples: dict[str, Sample] = {}
        predictions = []
        for path in paths:
            for where, sample, text in self._results(path):
                if sample.id in samples:
                    raise AlignError(f"picture {Path(sample.images[0]).name} again", where=where)
                samples[sample.id] = sample
                predictions.append(make_prediction(self.name, sample.id, text))
        return AnswerSet(list(samples.values()), predictions)

    def _results(self, path: Path) -> Iterable[tuple[str, Sample, str]]:
        """Place, question with the truth that the line carries, and answer; two lines in a row are a
        picture's, as for the script."""
        previous, number = "", 1
        for place, line in enumerate(_lines(path), 1):
            cells = line.split("\t", 3)
            if len(cells) != 4:
                raise unknown_shape(f"{path}:{place}", f"{len(cells)} cells", ANSWER_FORMAT)
            number = 1 - number if cells[0] == previous else 0
            previous = cells[0] if number == 0 else ""
            sample = self._sample(path.stem, cells[0], number, cells[1], cells[2])
            yield f"{path}:{place}", sample, cells[3]

    @override
    def parse(self, text: str) -> Answer | None:
        return parse_mme(text)

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        label, official, strict = sample.reference["label"], parse_mme(text), parse_strict(text)
        values = {
            "n": 1.0,
            "correct": float(official == label),
            "strict_correct": float(strict == label),
            "unparsed": float(strict is None),
        }
        return Mark(values, official, {"parsed_strict": strict}, unparsed=strict is None)

    @override
    def combine(self, scores: Sequence[Score]) -> list[Score]:
        sizes = {score.cluster: _QUESTIONS for score in scores}
        return add_group_values(scores, lambda score: score.cluster, sizes, _picture)

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        order = sorted(MODES, key=lambda mode: mode != self.config.primary_mode)
        return [metric for mode in order for metric in self._metrics(mode)]

    def _metrics(self, mode: Mode) -> list[Metric]:
        mark, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
        parts = tuple(self.config.parts)
        points, right, both = f"{mark}points", f"{mark}correct", f"{mark}both"
        table = [("total", "all", points, "images", parts, 100.0 * len(parts))]
        table += [(part, part, points, "images", (part,), 100.0) for part in parts]
        table += [("acc", part, right, "n", (part,), 100.0) for part in parts]
        table += [("acc_plus", part, both, "images", (part,), 100.0) for part in parts]
        table += [("acc", "all", right, "n", (), 100.0), ("acc_plus", "all", both, "images", (), 100.0)]
        return [
            Metric(
                name=name + suffix,
                split=split,
                numerator={top: 1},
                denominator={bottom: 1},
                higher_is_better=True,
                primary=name == "total" and mode == self.config.primary_mode,
                scale=scale,
                description="100 x accuracy + 100 x accuracy+" if top == points else "",
                mode=mode,
                subsets=subsets,
                points=top == points,
            )
            for name, split, top, bottom, subsets, scale in table
        ]

    @property
    @override
    def card(self) -> Card:
        return replace(super().card, split=", ".join(self.config.parts))

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """The release's folder: the one that holds a folder `existence`."""
        for folder in (data, data / "MME_Benchmark_release_version", data / "MME_Benchmark"):
            if any((folder / part).is_dir() for part in PARTS):
                present = [part for part in PARTS if (folder / part).is_dir()]
                return {"folder": folder, "image_root": folder, "parts": present}
        return {}


TASK = Mme


def parse_mme(text: str) -> Answer | None:
    """As MME's calculation.py.

    >>> [parse_mme(text) for text in ("Yes", "No, it is", "not", "There is no dog", " yes", "")]
    ['yes', 'no', 'no', None, 'yes', None]
    """
    text = text.lower()
    if text in ("yes", "no"):
        return "yes" if text == "yes" else "no"
    return "yes" if "yes" in text[:4] else "no" if "no" in text[:4] else None


def _lines(path: Path) -> list[str]:
    return [line for line in read_text(path, ANSWER_FORMAT).split("\n") if line.strip()]


def _picture(pair: Sequence[Score]) -> dict[str, float]:
    values = {"images": 1.0}
    for prefix in ("", "strict_"):
        right = [score.values[f"{prefix}correct"] for score in pair]
        both = float(all(right))
        values |= {f"{prefix}both": both, f"{prefix}points": sum(right) / 2 + both}
    return values
