"""CHAIR: objects in a caption that are not in the picture (Rohrbach et al. 2018, arXiv:1809.02156;
https://github.com/LisaAnne/Hallucination, utils/chair.py at 6e4d33c4).

An object is in the picture if an instance is annotated or one of its human captions names it.
CHAIRi = invented mentions / mentions, repeats counting; CHAIRs = captions with an invention / captions;
recall = distinct right objects / objects in the pictures, over all captions together.

Edge cases: a caption without any object counts in CHAIRs' denominator alone; the published singulariser makes
`bus` into `bu`, so that one bus never counts (strict mends it); several captions of one picture all count.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from typing_extensions import override

from align.claims import PictureTruth, load_picture_truth
from align.errors import AlignError
from align.objects.coco import load_captions, load_instances, read_json
from align.objects.mentions import MODES, Mention, Mode, Singulariser, find_objects
from align.rows.schema import Message
from evals.answer_files.folder import find_file
from evals.answer_files.rows import (
    TEXT_FIELDS,
    Row,
    answer_text,
    make_prediction,
    read_answer_rows,
    read_whole,
)
from evals.protocol import AnswerSet, Card, Mark, Metric, Sample
from evals.scoring.caption_measures import caption_meta, caption_metrics, caption_values
from evals.scoring.places import count_words, describe_places
from evals.tasks.facts import Facts
from evals.tasks.task import Task, TaskConfig

_LAST_NUMBER = re.compile(r"\d+$")


ANSWER_FORMAT = (
    "{image_id, caption} as JSON lines or a JSON list (image_id a number or COCO's file name), CHAIR's own "
    "{imgToEval: {image_id: {caption}}}, a JSON object image id -> caption, or predictions.jsonl of "
    "`align generate`"
)
_CAPTION_FIELDS = ("caption", *TEXT_FIELDS)
_IMAGE_FIELDS = ("image_id", "image", "image_name", "file_name", "id", "question_id")


@dataclass(frozen=True)
class Truth:
    """What is in the pictures.

    Attributes:
        objects: image id -> annotated objects; every picture has an entry.
        captions: image id -> what people wrote about it.
        singulariser: for the captions, in official mode.
    """

    file_names: Mapping[int, str]
    objects: Mapping[int, Sequence[str]]
    captions: Mapping[int, Sequence[str]]
    singulariser: Singulariser

    def of(self, image_id: int) -> dict[str, list[str]]:
        """A picture's objects for each mode."""
        captions = self.captions.get(image_id, ())
        annotated = self.objects[image_id]
        return {mode: objects_in(annotated, captions, mode, self.singulariser) for mode in MODES}


class Config(TaskConfig):
    """The truth comes from `instances` and `captions`, or ready from `objects`."""

    prompt: str = Field(default="Please describe this image in detail.", description="what is asked")
    max_tokens: int = Field(default=512, gt=0, description="longest caption in tokens")
    instances: Path | None = Field(default=None, description="COCO instances file")
    captions: Path | None = Field(default=None, description="COCO captions file of the same images")
    objects: Path | None = Field(default=None, description="JSON: image id -> list of category names")
    file_name: str = Field(
        default="COCO_val2014_{image_id:012d}.jpg",
        description="image file of an id; used with objects, instances name theirs themselves",
    )
    singulariser: Singulariser = Field(
        default="pattern",
        description="how official finds singulars: pattern as CHAIR's own script, wordnet as newer copies do",
    )
    num_images: int = Field(default=500, gt=0, description="images to sample (all, if fewer)")
    seed: int = Field(default=0, ge=0, description="picks the images")

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        if (self.objects is None) == (self.instances is None):
            raise ValueError("set exactly one of instances and objects")
        if self.captions is not None and self.instances is None:
            raise ValueError("captions go with instances")
        return self


class Chair(Task[Config]):
    """See the module. Values of a sample, plain for `official` and with the prefix `strict_`:
    captions (1), mentions, invented (mentions), has_invented (0 or 1), covered and truth (distinct
    objects); and words, at white space. Beside them those of `align.claims.measure_answer`: with `instances`
    what is known of numbers, places and colours is measured too, with `objects` presence alone.

    `meta.mentions` lists the official mentions, `meta.mentions_strict` the strict ones, each with
    start and end (characters), text, category, invented, sentence (0 is the first) and word (how many
    words precede it).
    """

    label = "CHAIR"
    facts = Facts(
        named="never",
        guard="recall",
        invented="chair_i",
        with_invention="chair_s",
        tiles={
            "chair_s": "captions with at least one invented object",
            "chair_i": "named objects that are invented",
            "recall": "objects in the picture that are named",
        },
        metric_labels={"chair_i": "CHAIRi", "chair_s": "CHAIRs"},
    )
    measures = "invention"
    answer_format = ANSWER_FORMAT
    all_expected = False

    @override
    def inputs(self) -> dict[str, Path]:
        files = {
            "instances": self.config.instances,
            "captions": self.config.captions,
            "objects": self.config.objects,
        }
        return {name: path for name, path in files.items() if path is not None}

    @override
    def samples(self) -> list[Sample]:
        ids = sorted(self._truth.objects)
        chosen = sorted(random.Random(self.config.seed).sample(ids, min(self.config.num_images, len(ids))))
        return [self._sample(image_id, str(image_id)) for image_id in chosen]

    @override
    def samples_of(self, ids: Collection[str]) -> list[Sample]:
        """Of any pictures that the truth knows; `ID#2` is the second caption of a picture."""
        asked = {sample_id: sample_id.partition("#")[0] for sample_id in ids}
        known = {str(image_id): image_id for image_id in self._truth.objects}
        return [self._sample(known[name], sample_id) for sample_id, name in asked.items() if name in known]

    def _sample(self, image_id: int, sample_id: str) -> Sample:
        file_name, truth = self._truth.file_names[image_id], self._truth.of(image_id)
        return Sample(
            id=sample_id,
            images=[file_name],
            image_root=self.image_root,
            messages=[Message(role="user", content=self.config.prompt)],
            max_tokens=self.config.max_tokens,
            cluster=file_name,
            reference=truth,
            meta={"question": self.config.prompt, "label": truth[self.config.primary_mode]},
        )

    def picture_of(self, sample: Sample) -> PictureTruth:
        """What is known of a sample's picture, for the measures beside CHAIR's."""
        if self.config.instances is None:
            return PictureTruth.of_objects(sample.reference["strict"])
        return self._pictures[int(sample.id.partition("#")[0])]

    def pictures(self) -> Collection[PictureTruth]:
        """What is known of all pictures."""
        known = self._truth.objects if self.config.instances is None else {}
        return self._pictures.values() or [PictureTruth.of_objects(names) for names in known.values()]

    @cached_property
    def _pictures(self) -> dict[int, PictureTruth]:
        """Empty where only `objects` are given."""
        config = self.config
        return load_picture_truth(config.instances, config.captions) if config.instances is not None else {}

    @cached_property
    def _truth(self) -> Truth:
        config = self.config
        if config.instances is None:
            assert config.objects is not None
            ready = _read_objects(config.objects)
            names = {image_id: config.file_name.format(image_id=image_id) for image_id in ready}
            truth = Truth(names, ready, {}, config.singulariser)
        else:
            instances = load_instances(config.instances)
            captions = load_captions(config.captions) if config.captions is not None else {}
            truth = Truth(instances.file_names, instances.objects, captions, config.singulariser)
        if not truth.objects:
            raise AlignError("no images", where=", ".join(map(str, self.inputs().values())))
        return truth

    @override
    def answers_in(self, rows: Sequence[Row]) -> AnswerSet:
        seen: Counter[str] = Counter()
        found = []
        for row in rows:
            image_id = image_number(row)
            seen[image_id] += 1
            name = image_id if seen[image_id] == 1 else f"{image_id}#{seen[image_id]}"
            text = answer_text(row.need(_CAPTION_FIELDS, ANSWER_FORMAT), row.where)
            found.append(make_prediction(self.name, name, text))
        return self.asked_in(found)

    @override
    def parse(self, text: str) -> list[str]:
        found = find_objects(text, "official", self.config.singulariser)
        return [mention.category for mention in found]

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        values: dict[str, float] = {"captions": 1.0, "words": float(count_words(text))}
        found = {mode: find_objects(text, mode, self.config.singulariser) for mode in MODES}
        for mode, prefix in (("official", ""), ("strict", "strict_")):
            values |= _count(prefix, found[mode], set(sample.reference[mode]))
        picture = self.picture_of(sample)
        values |= caption_values(text, picture)
        meta = {
            "mentions": _describe(text, found["official"], sample.reference["official"]),
            "mentions_strict": _describe(text, found["strict"], sample.reference["strict"]),
            **caption_meta(text, picture),
        }
        # A caption that names no object can be right; only an empty one cannot be scored in earnest.
        return Mark(
            values, [mention.category for mention in found["official"]], meta, unparsed=not text.strip()
        )

    @property
    @override
    def metrics(self) -> Sequence[Metric]:
        config = self.config
        order = sorted(MODES, key=lambda mode: mode != config.primary_mode)
        found = [
            metric for mode in order for metric in _metrics(mode, config.split, mode == config.primary_mode)
        ]
        for name, value in (("words", "words"), ("mentions_per_caption", "mentions")):
            found.append(
                Metric(
                    name=name,
                    split=config.split,
                    numerator={value: 1},
                    denominator={"captions": 1},
                    higher_is_better=None,
                    scale=1.0,
                    points=True,
                    description="length control: fewer inventions may be only less text",
                )
            )
        return found + caption_metrics(self.pictures(), config.split, without=("words",))

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser=f"official: CHAIR's published extraction ({self.config.singulariser} singulariser); "
            "strict: right singulars, compounds, colours and denials told apart",
            split=self.config.split,
            aggregation="sums over all captions; recall over distinct objects",
            source="CHAIR (arXiv:1809.02156), synonym list of LisaAnne/Hallucination",
            licence="BSD-2-Clause (synonyms); annotations as COCO, CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )

    @override
    @classmethod
    def locate(cls, data: Path) -> dict[str, Any]:
        """COCO's instances and captions of the same split, else a ready map of image id to objects."""
        instances = find_file(data, "instances_val2014.json", "instances*.json")
        if instances is not None:
            captions = find_file(data, instances.name.replace("instances", "captions"), "captions*.json")
            return {"instances": instances} | ({"captions": captions} if captions is not None else {})
        objects = find_file(data, "gt_objects*.json", "*objects*.json*", "*truth*.json*")
        if objects is None and data.is_file():
            objects = data
        return {"objects": objects} if objects is not None else {}


TASK = Chair


def objects_in(
    annotated: Sequence[str], captions: Sequence[str], mode: Mode, singulariser: Singulariser = "pattern"
) -> list[str]:
    """The objects of a picture, sorted: annotated ones and those that its human captions name."""
    found = (find_objects(caption, mode, singulariser) for caption in captions)
    named = {mention.category for mentions in found for mention in mentions}
    return sorted(named | set(annotated))


def _read_objects(path: Path) -> dict[int, list[str]]:
    """`{image id: [objects]}`; rows of `image_id` (or `image`) and `objects`, as in POPE's repository; or a
    scorer's own output, whose sentences tell `mscoco_gt_words`."""
    expected = "a JSON object: image id -> list of object names"
    rows = read_answer_rows(path, expected) if _has_rows(path) else []
    raw = {} if rows else read_json(path)
    try:
        for row in rows:
            raw[image_number(row)] = row.need(("objects", "mscoco_gt_words"), expected)
        if not all(isinstance(names, list) for names in raw.values()):
            raise TypeError("objects are no list")
        return {_number(image_id): sorted({str(name) for name in names}) for image_id, names in raw.items()}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise AlignError(
            f"not a map of image id to object names: {error}",
            where=str(path),
            fix='expected {"42": ["dog", "person"], ...}',
        ) from error


def _has_rows(path: Path) -> bool:
    """Whether the file is JSON lines, a list or a scorer's output, rather than one object of lists."""
    whole = read_whole(path)
    if whole is None:
        return path.is_file()
    return not isinstance(whole, dict) or "sentences" in whole


def image_number(row: Row) -> str:
    """The picture's number, from a number or the end of COCO's file name."""
    value = str(row.need(_IMAGE_FIELDS, ANSWER_FORMAT))
    try:
        return str(_number(value))
    except ValueError as error:
        raise AlignError(str(error), where=row.where, fix=f"expected {ANSWER_FORMAT}") from error


def _number(name: str) -> int:
    digits = _LAST_NUMBER.search(Path(name).stem)
    if digits is None:
        raise ValueError(f"no image number in {name!r}")
    return int(digits.group())


def _count(prefix: str, mentions: Sequence[Mention], truth: set[str]) -> dict[str, float]:
    invented = sum(mention.category not in truth for mention in mentions)
    covered = {mention.category for mention in mentions} & truth
    return {
        f"{prefix}mentions": float(len(mentions)),
        f"{prefix}invented": float(invented),
        f"{prefix}has_invented": float(invented > 0),
        f"{prefix}covered": float(len(covered)),
        f"{prefix}truth": float(len(truth)),
    }


def _describe(text: str, mentions: Sequence[Mention], truth: Sequence[str]) -> list[dict[str, Any]]:
    found = ((item.start, item.end, item.category, item.category not in truth) for item in mentions)
    return describe_places(text, found)


def _metrics(mode: Mode, split: str, is_primary: bool) -> list[Metric]:
    """CHAIRs and CHAIRi (primary, lower is better) and recall."""
    prefix, suffix = ("", "") if mode == "official" else ("strict_", "_strict")
    table: list[tuple[str, Mapping[str, float], Mapping[str, float], bool, str]] = [
        ("chair_s", {f"{prefix}has_invented": 1}, {"captions": 1}, False, "captions with an invented object"),
        (
            "chair_i",
            {f"{prefix}invented": 1},
            {f"{prefix}mentions": 1},
            False,
            "object mentions that are invented",
        ),
        (
            "recall",
            {f"{prefix}covered": 1},
            {f"{prefix}truth": 1},
            True,
            "objects in the pictures that are named",
        ),
    ]
    return [
        Metric(
            name=name + suffix,
            split=split,
            numerator=numerator,
            denominator=denominator,
            higher_is_better=better,
            primary=is_primary and name != "recall",
            description=description,
            mode=mode,
        )
        for name, numerator, denominator, better, description in table
    ]
