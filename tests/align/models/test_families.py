"""The families' records: no fact left out, none twice, and each file on the page."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pkgutil import iter_modules
from typing import Any, Literal

import pytest

from align.models import families
from align.models.families import FAMILIES, known_processors
from align.models.family import Family, Modules, Processor, Serving, Sharing
from align.models.image_rules import Expansion, collapsed
from tests.repository import REPO

RECORDS = (Family, Modules, Processor, Sharing, Serving)


def facts(record: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted field, its annotation, its value) of a record and all records below it."""
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        yield f"{name}{field.name}", hints[field.name], value
        if dataclasses.is_dataclass(value):
            yield from facts(value, f"{name}{field.name}.")


def test_no_fact_has_a_default() -> None:
    """So that a family that leaves one out is a TypeError, and not a hole."""
    for record in RECORDS:
        for field in dataclasses.fields(record):
            assert field.kw_only, f"{record.__name__}.{field.name}"
            assert field.default is field.default_factory is dataclasses.MISSING, field.name
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'lora'"):
        Serving(template="the checkpoint's")  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_no_family_has_a_hole(model_type: str) -> None:
    family = FAMILIES[model_type]
    seen = list(facts(family))
    for name, hint, value in seen:
        choices = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is Literal]
        assert not choices or value in typing.get_args(choices[0]), f"{name}: {value!r}"
        assert value is not None or type(None) in typing.get_args(hint), name
    sees = family.modules.vision is not None
    assert sees == (family.processor is not None) == (family.sharing.images != "no images")
    assert sees == (family.modules.tower is not None) == bool(family.modules.connector)
    assert len(seen) == (26 if sees else 18)
    assert set(family.modules.layers) <= set(family.modules.connector)


def test_a_processor_has_the_same_facts_in_every_family() -> None:
    """What a trainer asks knows the processor's class, and not the model beside it."""
    from transformers.models.auto import processing_auto

    classes = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    of_processor = known_processors()
    for model_type, family in FAMILIES.items():
        if family.processor is not None:
            assert of_processor[family.processor.name] == family.processor
            assert classes[model_type] == family.processor.name


def test_every_file_is_collected_and_named_on_the_page() -> None:
    files = {file.name: file for file in iter_modules(families.__path__)}
    given = [
        family.model_type
        for name in files
        for family in __import__(f"{families.__name__}.{name}", fromlist=["FAMILIES"]).FAMILIES
    ]
    assert sorted(given) == sorted(FAMILIES), "a model_type stands in two files"
    page = (REPO / "docs" / "families.md").read_text()
    named = dict(re.findall(r"^\| `(\w+)\.py` \| ([^|]+) \|", page, re.MULTILINE))
    assert named.keys() == files.keys()
    said = sorted(name for line in named.values() for name in re.findall(r"`([\w-]+)`", line))
    assert said == sorted(FAMILIES)


def test_decoders_belong_to_one_family() -> None:
    brought = [name for family in FAMILIES.values() for name in family.sharing.decoders]
    assert len(brought) == len(set(brought))


def test_runs_are_collapsed_by_hand() -> None:
    assert collapsed("<a><i><i><i></a><i><i>", "<i>") == Expansion("<a><i></a><i>", 3)
    assert collapsed("no image", "<i>") == Expansion("no image", 0)
