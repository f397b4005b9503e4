"""The tree's shape: no circles, no arrow up, rooms entered by their faces, front doors alone at the root."""

from __future__ import annotations

import ast
import re

from tests.tree.import_graph import (
    REPO,
    arrows,
    circles,
    imports,
    modules,
    place,
    place_arrows,
    place_circles,
    room_of,
    rooms,
)

FRONT_DOORS = {"__init__", "__main__", "cli", "sft", "dpo", "merge", "unmerge", "combine"}
GROUND = {"errors", "progress", "digest"}
_FILE = re.compile(r"^(\w+)(?:\.py|/) +\S", re.MULTILINE)


def test_circles_by_hand() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str](), "e": {"f"}, "f": {"e"}, "g": {"a"}}
    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set[str]()}) == []


def test_imports_in_functions_count_and_those_for_types_when_asked() -> None:
    source = (
        "from typing import TYPE_CHECKING\nimport x.a\nif TYPE_CHECKING:\n    from x import b\n"
        "def f():\n    from x import c, name\n    from x.d import thing\n"
    )
    known = {"x.a", "x.b", "x.c", "x.d", "x.own"}
    assert imports(source, "x.own", known) == {"x.a", "x.c", "x.d"}
    assert imports(source, "x.own", known, types=True) == {"x.a", "x.b", "x.c", "x.d"}


def test_arrows_between_places_by_hand() -> None:
    graph = {"x.a.one": {"x.b.two", "x.a.other", "y.c"}, "x.a.other": {"x.b.two"}, "x.b.two": {"x.door"}}
    assert {pair: len(found) for pair, found in place_arrows(graph).items()} == {
        ("x.a", "x.b"): 2,
        ("x.b", "x.door"): 1,
    }
    assert place_circles(graph) == []
    assert place_circles({**graph, "x.door": {"x.a.one"}}) == [["x.a", "x.b", "x.door"]]
    assert place("x.a.one.deep") == "x.a"


def test_the_tree_has_no_circle() -> None:
    graph = arrows(types=True)
    assert len(graph) > 300 and sum(map(len, graph.values())) > 1000
    assert circles(graph) == []


def test_no_arrow_runs_up() -> None:
    assert place_circles(arrows()) == []
    assert len(place_arrows(arrows())) <= 210


def test_the_map_is_in_the_order_of_the_imports() -> None:
    """The table of rooms in docs/architecture.md, from the ground up."""
    page = (REPO / "docs" / "architecture.md").read_text()
    table = page[page.index("| room of `align/` |") : page.index("| beside it |")]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    named = [re.findall(r"`(\w+)(?:/|\.py)`", row) for row in rows]
    floor = {f"align.{name}": number for number, names in enumerate(named) for name in names}
    floor |= {f"align.{name}": -1 for name in GROUND}
    assert set(floor) == {name for name in map(place, modules()) if name.startswith("align.")}
    up = {
        (one, two)
        for one, two in place_arrows(arrows())
        if one in floor and two in floor and floor[one] < floor[two]
    }
    assert up == set()


def test_the_root_holds_front_doors_and_the_ground() -> None:
    assert {path.stem for path in (REPO / "align").glob("*.py")} == FRONT_DOORS | GROUND


def test_every_room_has_a_face_that_names_its_files() -> None:
    """Or says that there is one file a something, which is then found by its name."""
    without = {path.parent for path in modules().values()} - {path.parent for path in rooms().values()}
    assert without == {REPO / name for name in ("align", "data_tools", "evals")}
    wrong = {}
    for room, path in rooms().items():
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        own = {file.stem for file in path.parent.glob("*.py")} - {"__init__"}
        own |= {face.parent.name for face in path.parent.glob("*/__init__.py")}
        if not re.search(r"\bone file a\b", said, re.IGNORECASE) and set(_FILE.findall(said)) != own:
            wrong[room] = sorted(set(_FILE.findall(said)) ^ own)
    assert wrong == {}


def test_nobody_imports_what_is_inside_another_room() -> None:
    """What stands below `Inside:` in a face, or is not named there at all."""
    found = []
    for one, others in arrows(types=True).items():
        for two in others:
            room = room_of(two)
            if room is None or room == two or f"{one}.".startswith(f"{room}."):
                continue
            outer, _, _ = (ast.get_docstring(ast.parse(rooms()[room].read_text())) or "").partition("Inside:")
            if f"{two.rpartition('.')[2]}.py" not in outer and not room.startswith(f"{place(one)}."):
                found.append(f"{one} -> {two}")
    assert found == []
