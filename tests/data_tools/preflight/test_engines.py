"""Rows in parts, and on a Ray cluster of two nodes: the same as the whole file in one process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from align.errors import AlignError, RecipeError
from align.rows.parts import Part, split_rows
from align.rows.schema import Message, SFTRow, raw_rows, write_rows
from data_tools.preflight.engines import run_parts
from data_tools.preflight.run import Request, preflight
from tests.align.inputs.test_image_tokens import load
from tests.twins import Twins

LINES = b'{"a": 1}\n\n{"a": 2}\r\n[broken\n"\xff\xfe"\r{"a": "\xe2\x80\xa8"}\n{"a": 3}'


def row(number: int) -> SFTRow:
    turns = [
        Message(role="user", content=f"What is in picture {number}?"),
        Message(role="assistant", content="A cat and a dog. " * (1 + number % 40)),
    ]
    return SFTRow(id=f"r{number}", images=[f"{number % 7}.png"], messages=turns)


def plain(found: Iterator[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(where, raw.what if isinstance(raw, AlignError) else raw) for where, raw in found]


@pytest.mark.parametrize("part_bytes", [1, 7, 20, 1 << 20])
def test_parts_of_json_lines_are_the_whole(tmp_path: Path, part_bytes: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    parts = list(split_rows(path, part_bytes))
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert parts[-1].stop == len(LINES) and (part_bytes > 100) == (len(parts) == 1)
    found = [one for part in parts for one in plain(raw_rows(path, part))]
    assert found == plain(raw_rows(path)) and len(found) == 6
    assert found[-1] == (f"{path}:7", {"a": 3})


def test_parts_of_parquet_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, [row(k) for k in range(2100)])
    parts = list(split_rows(path))
    assert parts == [Part(path, k, k + 1, 1000 * k) for k in range(3)]
    assert [one for part in parts for one in raw_rows(path, part)] == list(raw_rows(path))


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match="Ray Data is not installed"):
        list(run_parts("ray", lambda part: iter([part]), []))


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A local Ray cluster of two nodes with a CPU each, and this process as its driver."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'align-vlm[ray]'")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_two_ray_nodes_give_what_one_process_gives(
    two_nodes: Any, twins: Twins, tmp_path: Path, suffix: str
) -> None:
    for k in range(6):  # the seventh is missing
        Image.new("RGB", (24 + 8 * k, 64), (90, 30, 20 * k)).save(tmp_path / f"{k}.png")
    data = tmp_path / f"rows{suffix}"
    write_rows(data, [row(k) for k in range(6000)])
    if suffix == ".jsonl":
        with data.open("a") as lines:
            lines.write("[broken\n")
    request = Request(data, tmp_path, max_length=120, out=tmp_path / f"local{suffix}")
    on_ray = replace(request, out=tmp_path / f"ray{suffix}", engine="ray")
    processor = load(twins("qwen2_vl"))
    reports = [preflight(one, processor, tmp_path).to_json() for one in (request, on_ray)]
    assert reports[0] == reports[1]
    assert reports[0]["rows"]["kept"] > 1000 and len(reports[0]["rows"]["dropped"]) >= 2
    for name in ("{}" + suffix, "{}" + suffix + ".preflight.quarantine.jsonl"):
        local, ray = ((tmp_path / name.format(engine)).read_bytes() for engine in ("local", "ray"))
        assert local == ray

    def node_of(
        part: Part,
    ) -> Iterator[str]:  # in here, so that it travels by value: workers lack this module
        import ray  # pyright: ignore[reportMissingImports]

        yield ray.get_runtime_context().get_node_id()

    parts = [Part(data, 0, 0, k) for k in range(40)]
    assert len(set(run_parts("ray", node_of, parts))) == len(two_nodes.nodes()) == 2
