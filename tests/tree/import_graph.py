"""The tree as a graph of its imports: `make graph` prints the numbers that say how well it is cut.

An arrow goes from a module to one that it imports, also inside a function. Circles are groups of modules each
of which leads to all the others; there, imports for type checking alone count too. A place is a room (a
folder of a package) or a file beside the rooms; places that lead to each other are circles as well, and where
there are none, no arrow runs up.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.repository import REPO

PACKAGES = ("align", "data_tools", "evals")

Arrows = Mapping[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            found[".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def arrows(types: bool = False) -> dict[str, set[str]]:
    """Module -> the modules of the tree that it imports, with `types` also for type checking alone."""
    known = {*modules()}
    return {name: imports(path.read_text(), name, known, types) for name, path in modules().items()}


def imports(source: str, own: str, known: set[str], types: bool = False) -> set[str]:
    """Which of the `known` modules a source imports; `own` is its name."""
    found = set()
    tree = ast.parse(source)
    for node in ast.walk(tree) if types else _running(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {node.module}
    return (found & known) - {own}


def circles(graph: Arrows) -> list[list[str]]:
    """Groups of two modules or more that lead to each other, by Tarjan's algorithm, sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


def place_arrows(graph: Arrows) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(place, place) of one package -> the arrows between their modules."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one, others in graph.items():
        for two in others:
            pair = (place(one), place(two))
            if pair[0] != pair[1] and pair[0].partition(".")[0] == pair[1].partition(".")[0]:
                found.setdefault(pair, []).append((one, two))
    return found


def place(name: str) -> str:
    """`align.rows.schema` -> `align.rows`, `align.sft` -> `align.sft`."""
    return ".".join(name.split(".")[:2])


def place_circles(graph: Arrows) -> list[list[str]]:
    """Groups of places that lead to each other."""
    leads: dict[str, set[str]] = {}
    for one, two in place_arrows(graph):
        leads.setdefault(one, set()).add(two)
    return circles(leads)


def rooms() -> dict[str, Path]:
    """Dotted name -> face (`__init__.py`) of every room, also of those inside a room."""
    return {name: path for name, path in modules().items() if path.name == "__init__.py" and "." in name}


def room_of(name: str) -> str | None:
    """The innermost room that a module is in or is the face of."""
    return max((room for room in rooms() if f"{name}.".startswith(f"{room}.")), key=len, default=None)


def main() -> None:
    """Print the numbers, and the circles by name."""
    graph = arrows()
    found = circles(arrows(types=True))
    between = place_arrows(graph)
    up = place_circles(graph)
    at_root = sum(path.parent == REPO / "align" for path in modules().values())
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} arrows")
    print(f"{len(found)} circles of modules")
    for group in [*found, *up]:
        print("  " + ", ".join(group))
    running = sum(place(one) in group and place(two) in group for group in up for one, two in between)
    print(f"{running} arrows in circles of places, of {len(between)} between places")
    print(f"{at_root} files at the root of align, {len(rooms())} rooms")


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


if __name__ == "__main__":
    main()
