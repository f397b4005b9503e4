"""What an error tells the user to set can be set: in the recipe of every stage that can raise it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from align.config.library_sections import Passthrough
from align.config.recipe import read_words
from align.pipeline.stages import load_stage, stage_names
from evals.tasks.registry import config_class, task_types
from tests.tree.advice import Advice, Place, all_advice, reached

_TRAIN = frozenset({"sft", "dpo"})
ONLY: dict[Place, frozenset[str]] = {
    ("align.dev_check.answering", "Answerer"): _TRAIN,  # `train` names it, which classify calls without
    ("align.dev_check.check", "DevCheck"): _TRAIN,
    ("align.dev_check.heldout_loss", "HeldoutLoss"): frozenset({"sft"}),  # the others do not pack rows
    ("align.dev_check.rule", "KeepRule"): _TRAIN,
    ("align.models.families", "confirm"): _TRAIN
    | {"merge", "audit", "negatives", "best"},  # which have `family`
}
"""Whose methods are called by fewer stages than name them: the stages that do."""


@cache
def stage_keys() -> dict[str, dict[str, Any]]:
    """Stage -> key -> annotation; a stage that takes tasks takes the keys of every type of task."""
    tasks = {f"tasks.NAME.{key}": kind for name in task_types() for key, kind in keys_of(config_class(name))}
    found = {name: dict(keys_of(load_stage(name).recipe)) for name in stage_names()}
    return {name: keys | (tasks if "tasks" in keys else {}) for name, keys in found.items()}


@cache
def stages_of() -> dict[Place, set[str]]:
    found: dict[Place, set[str]] = {}
    for name in stage_names():
        for place in reached(load_stage(name).run.__module__):
            found.setdefault(place, set()).add(name)
    return found


def kinds_of(stage: str, key: str) -> list[Any]:
    """What the recipe's keys of this name, or below another section, may be set to."""
    return [kind for own, kind in stage_keys()[stage].items() if own == key or own.endswith(f".{key}")]


def is_key(advice: Advice) -> bool:
    """Whether the word is meant as a key: it begins with a section, or is the name of a key."""
    own = [key.split(".") for keys in stage_keys().values() for key in keys]
    first, *rest = advice.key.split(".")
    if rest:
        return first in {part for key in own for part in key[:-1]}
    names = {key[-1] for key in own}
    return first in names and ("_" in first or advice.value is not None)


def keys_of(cls: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Dotted key and annotation of everything that a recipe of this class may set."""
    passed = set(cls.model_fields)
    if issubclass(cls, Passthrough):
        own, theirs = cls.own_and_passed()
        passed = {*own, *theirs}
    for name, field in cls.model_fields.items():
        if name not in passed:
            continue
        own = field.alias or name
        yield own, typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for section in sections_in(field.annotation):
            yield from ((f"{own}.{key}", kind) for key, kind in keys_of(section))


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from sections_in(inner)


KEYS = [advice for advice in all_advice() if is_key(advice)]


def test_the_tree_gives_advice_about_keys() -> None:
    assert len(KEYS) > 50
    assert {"trainer.max_length", "serve.endpoint", "lora.components"} <= {advice.key for advice in KEYS}


@pytest.mark.parametrize("advice", KEYS, ids=lambda advice: f"{advice.place[0]}:{advice.key}")
def test_a_key_that_is_advised_can_be_set(advice: Advice) -> None:
    raising = stages_of().get(advice.place, set()) & ONLY.get(advice.place, {*stage_names()})
    without = [stage for stage in sorted(raising) if not kinds_of(stage, advice.key)]
    assert not without, f"{advice.text!r} is raised by {without}, which have no {advice.key}"
    kinds = [kind for stage in raising or stage_keys() for kind in kinds_of(stage, advice.key)]
    assert kinds, f"{advice.text!r}: no recipe has {advice.key}"
    if advice.value is not None:
        value = read_words([f"key={advice.value}"])["key"]
        assert any(takes(kind, value) for kind in kinds), f"{advice.key} takes no {advice.value}"


def takes(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True
