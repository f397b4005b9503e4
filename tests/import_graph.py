"""The tree as a graph of its imports: `make graph` prints the four numbers that say how well it is cut.

An arrow goes from a module to one that it imports, also inside a function; imports for type checking alone
are none. Circles are groups of modules each of which leads to all the others.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
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


def arrows() -> dict[str, set[str]]:
    """Module -> the modules of the tree that it imports."""
    return {name: imports(path.read_text(), name, {*modules()}) for name, path in modules().items()}


def imports(source: str, own: str, known: set[str]) -> set[str]:
    """Which of the `known` modules a source imports; `own` is its name."""
    found = set()
    for node in _running(ast.parse(source)):
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


def folder_arrows(graph: Arrows) -> Counter[tuple[str, str]]:
    """(folder, folder) -> how many arrows between their files."""
    pairs = ((_folder(one), _folder(two)) for one, others in graph.items() for two in others)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def upward(graph: Arrows) -> int:
    """Arrows against the order of the folders: of two that import each other, those of the fewer side."""
    counts = folder_arrows(graph)
    return sum(min(count, counts[two, one]) for (one, two), count in counts.items() if one < two)


def main() -> None:
    """Print the numbers, and the circles by name."""
    graph = arrows()
    found = circles(graph)
    counts = folder_arrows(graph)
    at_root = sum(path.parent == REPO / "align" for path in modules().values())
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} arrows")
    print(f"{len(found)} circles")
    for group in found:
        print("  " + ", ".join(group))
    print(f"{upward(graph)} arrows run up, between folders that import each other")
    print(f"{at_root} files at the root of align")
    print(f"{len(counts)} arrows between folders, of {counts.total()} between their files")


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def _folder(name: str) -> str:
    path = modules().get(name)
    return str((path or REPO).parent.relative_to(REPO)) if path else name.rpartition(".")[0]


if __name__ == "__main__":
    main()
