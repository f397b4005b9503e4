"""No module leads back to itself: a circle makes its modules one that only looks like several."""

from __future__ import annotations

from tests.import_graph import arrows, circles, folder_arrows, imports, upward


def test_circles_by_hand() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str](), "e": {"f"}, "f": {"e"}, "g": {"a"}}
    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set[str]()}) == []


def test_imports_in_functions_count_and_those_for_types_do_not() -> None:
    source = (
        "from typing import TYPE_CHECKING\nimport x.a\nif TYPE_CHECKING:\n    from x import b\n"
        "def f():\n    from x import c, name\n    from x.d import thing\n"
    )
    assert imports(source, "x.own", {"x.a", "x.b", "x.c", "x.d", "x.own"}) == {"x.a", "x.c", "x.d"}


def test_arrows_between_folders_by_hand() -> None:
    graph = {"x.a.one": {"x.b.two", "x.a.other"}, "x.a.other": {"x.b.two"}, "x.b.two": {"x.a.one"}}
    assert folder_arrows(graph) == {("x.a", "x.b"): 2, ("x.b", "x.a"): 1}
    assert upward(graph) == 1


def test_the_tree_has_no_circle() -> None:
    graph = arrows()
    assert len(graph) > 300 and sum(map(len, graph.values())) > 1000
    assert circles(graph) == []
