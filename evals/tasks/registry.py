"""Which types of task there are, and the tasks of a recipe.

A type is a file of this folder that has a `Config` and a `TASK`. Which ones do is read in their texts, so
that asking for the types imports none.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from align.config.recipe import nearest
from align.errors import RecipeError
from evals.tasks.facts import Facts
from evals.tasks.task import Task, TaskConfig

_PARTS = (re.compile(r"^class Config\(", re.MULTILINE), re.compile(r"^TASK = ", re.MULTILINE))
_ALIASES = re.compile(r"^ALIASES = (\{.*?\})$", re.MULTILINE | re.DOTALL)


@cache
def task_types() -> Mapping[str, str]:
    """Type of task -> the module that has it, in alphabetical order; with other names that a module gives its
    type as the keys of `ALIASES`."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    found: dict[str, str] = {}
    for item in pkgutil.iter_modules(folder):
        module = f"{package}.{item.name}"
        text = _source(module)
        if all(part.search(text) for part in _PARTS):
            names = _ALIASES.search(text)
            found |= dict.fromkeys([item.name, *(ast.literal_eval(names[1]) if names else ())], module)
    return dict(sorted(found.items()))


def task_class(kind: str) -> type[Task[Any]]:
    """The class of a type of task.

    Raises:
        KeyError: there is none.
    """
    return importlib.import_module(task_types()[kind]).TASK


def config_class(kind: str) -> type[TaskConfig]:
    """What a recipe's section of that type may set.

    Raises:
        KeyError: there is no such type.
    """
    return importlib.import_module(task_types()[kind]).Config


def facts_of(task: Task) -> Facts:
    """A task's facts, with its name and kind."""
    return _facts(task.name, type(task))


def known_facts(name: str, kind: str, metrics: Collection[str]) -> Facts:
    """The facts of a task of which only scores are left, without them.

    Args:
        metrics: names of the metrics that it was scored by.
    """
    if kind not in task_types():
        return Facts(label=_label_of_type(name) or name, kind=kind)
    return _facts(name, task_class(kind).scoring(metrics))


def load_tasks(config: Mapping[str, Any], where: str = "tasks") -> dict[str, Task]:
    """Build the tasks of a recipe's `tasks` section; reads no data.

    Args:
        config: task name -> its section; `type` picks the task, the rest is its own configuration.

    Raises:
        RecipeError: all faults at once, each with its dotted path, value and nearest known key.
    """
    if not config:
        raise RecipeError("no tasks", where=where, fix=f"add a section with type: {' | '.join(task_types())}")
    tasks: dict[str, Task] = {}
    faults: list[str] = []
    for name, section in config.items():
        path = f"{where}.{name}"
        if not isinstance(section, Mapping):
            faults.append(f"{path} = {section!r}: a task is a section with a type")
        elif section.get("type") not in task_types():
            kind = str(section.get("type", ""))
            faults.append(f"{path}.type = {kind!r}: unknown task type{nearest(kind, task_types())}")
        else:
            settings = config_class(section["type"])
            try:
                tasks[name] = task_class(section["type"]).of(name, settings.model_validate(dict(section)))
            except ValidationError as error:
                faults += [_fault(path, settings, item) for item in error.errors()]
    if faults:
        raise RecipeError("\n".join(faults))
    return tasks


def _facts(name: str, task: type[Task[Any]]) -> Facts:
    """With `CHAIR` as the label of `chair`, `CHAIR unseen` of `chair_unseen`, and other names as they are."""
    kind = task.facts.kind or task.type
    rest = name.removeprefix(kind)
    label = _label_of_type(name) or name
    if label == name and task.label and rest != name and rest.startswith(("_", "-")):
        label = f"{task.label} {rest[1:].replace('_', ' ')}".strip()
    return replace(task.facts, label=label, kind=kind)


def _label_of_type(name: str) -> str:
    """What readers call the type of that name; empty where there is none."""
    if name not in task_types():
        return ""
    module = importlib.import_module(task_types()[name])
    return getattr(module, "ALIASES", {}).get(name, module.TASK.label)


def _source(module: str) -> str:
    """A module's text; importing the module is not needed for it."""
    spec = find_spec(module)
    loader = spec.loader if spec is not None else None
    read = getattr(loader, "get_source", None)
    return (read(module) if read is not None else None) or ""


def _fault(path: str, cls: type[TaskConfig], item: Any) -> str:
    dotted = ".".join([path, *map(str, item["loc"])])
    if item["type"] == "extra_forbidden":
        return f"unknown key {dotted!r} = {item['input']!r}{nearest(str(item['loc'][-1]), cls.model_fields)}"
    if item["type"] == "missing":
        about = cls.model_fields.get(str(item["loc"][0]))
        return f"missing key {dotted!r}: {(about.description if about else None) or 'required'}"
    if not item["loc"]:
        return f"{path}: {item['msg'].removeprefix('Value error, ')}"
    return f"{dotted} = {item['input']!r}: {item['msg']}"
