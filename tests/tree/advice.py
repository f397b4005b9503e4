"""Which recipe keys the errors of the tree advise, and which stages can raise each: read from the source.

A stage can raise an error when its `run`, its recipe or what these name, directly or not, holds it. Names are
followed through imports, also those inside functions; a class stands for all its methods.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.repository import REPO

PACKAGES = ("align", "data_tools", "evals")
_FIX_NAMES = {"fix", "merge_it"}
_VALUE = r"null|true|false|-?\d[\d.]*|\[[\w, ]*\]|[a-z][a-z0-9_]*"
_ADVICE = re.compile(
    r"(?<![\w./-])(?P<key>[a-z][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)(?![\w./(])"
    rf"(?=(?:(?:: |=)(?P<value>{_VALUE}))?)"
)

Place = tuple[str, str]
"""A module, and a function or class at its top level; "" for what it does when it is imported."""


@dataclass(frozen=True)
class Advice:
    """A word of a `fix` that may be a recipe key, and the value that it is given there, if any."""

    place: Place
    line: int
    key: str
    value: str | None
    text: str


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name -> parsed source of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


def all_advice() -> list[Advice]:
    """Every word that could be a key, of every `fix=` text and every local `fix = ...`."""
    return [
        Advice(place, line, match["key"], match["value"], text)
        for place, body in _definitions().items()
        for line, text in _fixes(body)
        for match in _ADVICE.finditer(text)
    ]


def reached(start: str) -> set[Place]:
    """What a stage can run: its `run`, its `Recipe`, and all that these name."""
    definitions = _definitions()
    waiting: list[Place] = [(start, "run"), (start, "Recipe")]
    found: set[Place] = set()
    while waiting:
        place = waiting.pop()
        if place in found or place not in definitions:
            continue
        found.add(place)
        waiting += _named(place)
    return found


@cache
def _definitions() -> dict[Place, tuple[ast.AST, ...]]:
    found: dict[Place, tuple[ast.AST, ...]] = {}
    for module, tree in modules().items():
        loose = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[module, node.name] = (node,)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        found[module, target.id] = (node,)
            else:
                loose.append(node)
        found[module, ""] = tuple(loose)
    return found


def _named(place: Place) -> Iterator[Place]:
    module, _ = place
    body = _definitions()[place]
    imported = _imported(module, body)
    for node in (found for part in body for found in ast.walk(part)):
        if isinstance(node, ast.Name):
            yield imported.get(node.id, (module, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = imported.get(node.value.id)
            if owner is not None:
                yield f"{owner[0]}.{owner[1]}" if owner[1] else owner[0], node.attr


def _imported(module: str, body: tuple[ast.AST, ...]) -> dict[str, Place]:
    """Name -> where it is from, as the module's head and the body's own imports say."""
    head = [node for node in modules()[module].body if isinstance(node, ast.ImportFrom | ast.If)]
    found: dict[str, Place] = {}
    for node in (found for part in (*head, *body) for found in ast.walk(part)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found


def _fixes(body: tuple[ast.AST, ...]) -> Iterator[tuple[int, str]]:
    for node in (found for part in body for found in ast.walk(part)):
        if isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg == "fix":
                    yield node.lineno, _text(word.value)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & _FIX_NAMES:
                yield node.lineno, _text(node.value)


def _text(node: ast.expr) -> str:
    """What is known of a text before it is made; what is not known is left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body)} | {_text(node.orelse)}"
    return ""
