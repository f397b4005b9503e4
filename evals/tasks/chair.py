"""CHAIR: objects in a caption that are not in the picture (Rohrbach et al. 2018, arXiv:1809.02156;
https://github.com/LisaAnne/Hallucination, utils/chair.py at 6e4d33c4).

An object is in the picture if an instance is annotated or one of its human captions names it.
CHAIRi = invented mentions / mentions, repeats counting; CHAIRs = captions with an invention / captions;
recall = distinct right objects / objects in the pictures, over all captions together.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from align.coco import load_captions, load_instances, read_json
from align.errors import AlignError
from align.objects import MODES, Mention, Mode, find_objects
from align.schema import Message
from evals.task import Card, Mark, Metric, Sample, Task, TaskConfig

_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"[.!?]+[\"')\]]*\s+|\n+")


class Config(TaskConfig):
    """The truth comes from `instances` and `captions`, or ready from `objects`."""

    type: Literal["chair"] = "chair"
    prompt: str = Field(default="Please describe this image in detail.", description="what is asked")
    max_tokens: int = Field(default=512, gt=0, description="longest caption in tokens")
    instances: Path | None = Field(default=None, description="COCO instances file")
    captions: Path | None = Field(default=None, description="COCO captions file of the same images")
    objects: Path | None = Field(default=None, description="JSON: image id -> list of category names")
    file_name: str = Field(
        default="COCO_val2014_{image_id:012d}.jpg",
        description="image file of an id; used with objects, instances name theirs themselves",
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


class Chair(Task):
    """See the module. Values of a sample, plain for `official` and with the prefix `strict_`:
    captions (1), mentions, invented (mentions), has_invented (0 or 1), covered and truth (distinct
    objects); and words, at white space.

    `meta.mentions` lists the official mentions, `meta.mentions_strict` the strict ones, each with
    start and end (characters), text, category, invented, sentence (0 is the first) and word (how many
    words precede it).
    """

    type = "chair"

    def __init__(self, name: str, config: Config) -> None:
        super().__init__(name, config)
        self.config = config

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
        file_names, truth = self._truth()
        if not truth:
            raise AlignError("no images", where=", ".join(map(str, self.inputs().values())))
        ids = sorted(truth)
        chosen = sorted(random.Random(self.config.seed).sample(ids, min(self.config.num_images, len(ids))))
        return [
            Sample(
                id=str(image_id),
                images=[file_names[image_id]],
                image_root=self.image_root,
                messages=[Message(role="user", content=self.config.prompt)],
                max_tokens=self.config.max_tokens,
                cluster=file_names[image_id],
                reference=truth[image_id],
                meta={"question": self.config.prompt, "label": truth[image_id][self.config.primary_mode]},
            )
            for image_id in chosen
        ]

    def _truth(self) -> tuple[dict[int, str], dict[int, dict[str, list[str]]]]:
        """File names, and per image the objects of each mode."""
        config = self.config
        if config.instances is None:
            assert config.objects is not None
            ready = _read_objects(config.objects)
            names = {image_id: config.file_name.format(image_id=image_id) for image_id in ready}
            return names, {image_id: dict.fromkeys(MODES, sorted(found)) for image_id, found in ready.items()}
        instances = load_instances(config.instances)
        captions = load_captions(config.captions) if config.captions is not None else {}
        truth = {
            image_id: {mode: objects_in(objects, captions.get(image_id, []), mode) for mode in MODES}
            for image_id, objects in instances.objects.items()
        }
        return instances.file_names, truth

    @override
    def parse(self, text: str) -> list[str]:
        return [mention.category for mention in find_objects(text, "official")]

    @override
    def mark(self, sample: Sample, text: str) -> Mark:
        values: dict[str, float] = {"captions": 1.0, "words": float(len(_WORD.findall(text)))}
        found = {mode: find_objects(text, mode) for mode in MODES}
        for mode, prefix in (("official", ""), ("strict", "strict_")):
            values |= _count(prefix, found[mode], set(sample.reference[mode]))
        meta = {
            "mentions": _describe(text, found["official"], sample.reference["official"]),
            "mentions_strict": _describe(text, found["strict"], sample.reference["strict"]),
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
                    description="length control: fewer inventions may be only less text",
                )
            )
        return found

    @property
    @override
    def card(self) -> Card:
        return Card(
            task=self.name,
            type=self.type,
            prompt=self.config.prompt,
            parser="official: CHAIR's published extraction (pattern singulariser); "
            "strict: right singulars, compounds, colours and denials told apart",
            split=self.config.split,
            aggregation="sums over all captions; recall over distinct objects",
            source="CHAIR (arXiv:1809.02156), synonym list of LisaAnne/Hallucination",
            licence="BSD-2-Clause (synonyms); annotations as COCO, CC-BY-4.0",
            mode=self.config.primary_mode,
            cluster="image",
        )


def build(name: str, config: Config) -> Chair:
    """The task of a recipe's section."""
    return Chair(name, config)


def objects_in(annotated: Sequence[str], captions: Sequence[str], mode: Mode) -> list[str]:
    """The objects of a picture, sorted: annotated ones and those that its human captions name."""
    named = {mention.category for caption in captions for mention in find_objects(caption, mode)}
    return sorted(named | set(annotated))


def _read_objects(path: Path) -> dict[int, list[str]]:
    raw = read_json(path)
    try:
        return {int(image_id): [str(name) for name in names] for image_id, names in raw.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise AlignError(f"not a map of image id to object names: {error}", where=str(path)) from error


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
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    words = [match.start() for match in _WORD.finditer(text)]
    return [
        {
            "start": mention.start,
            "end": mention.end,
            "text": mention.text,
            "category": mention.category,
            "invented": mention.category not in truth,
            "sentence": bisect_right(ends, mention.start),
            "word": bisect_left(words, mention.start),
        }
        for mention in mentions
    ]


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
