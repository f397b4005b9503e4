"""The stores: what was put comes back, from other processes too, and nothing else ever does."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from align.trainers.feature_store import FeatureStore
from align.trainers.reference_store import ReferenceStore
from align.training.tensor_shards import TensorShards

PROMPT, CHOSEN, REJECTED, IMAGES = [5, 6, 7], [1, 2], [3, 4, 9], ["aa"]
SCOPE = {"weights": "w", "attention": "sdpa", "dtype": "torch.float32", "processor": "p"}


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def write_until_killed(folder: Path, first: int, ready: Any) -> None:
    shards = TensorShards(folder, flush_seconds=0.0)
    for number in range(first, first + 100_000):
        shards.put(f"key{number}", {"0": torch.full((7,), float(number))})
        if number == first + 20:
            ready.set()


def test_values_return_bit_for_bit_after_reopening(tmp_path: Path) -> None:
    values = torch.tensor([-0.125, -3.0000001, -1e-30])
    store = ReferenceStore(TensorShards(tmp_path), SCOPE)
    key = store.key(PROMPT, [CHOSEN, REJECTED], IMAGES)
    store.put(key, [values[:2], values])
    assert store.get(key, [2, 3]) is not None, "found before it is on disk"
    store.flush()
    again = ReferenceStore(TensorShards(tmp_path), SCOPE)
    found = again.get(again.key(PROMPT, [CHOSEN, REJECTED], IMAGES), [2, 3])
    assert found is not None
    assert torch.equal(found[0], values[:2]) and torch.equal(found[1], values)
    assert (again.hits, again.misses) == (1, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"scope": {**SCOPE, "weights": "v"}},
        {"scope": {**SCOPE, "attention": "eager"}},
        {"scope": {**SCOPE, "dtype": "torch.bfloat16"}},
        {"scope": {**SCOPE, "processor": "q"}},
        {"prompt": [5, 6, 8]},
        {"completions": [[1, 3], REJECTED]},
        {"completions": [CHOSEN, [3, 4, 8]]},
        {"completions": [[1, 2, 3], [4, 9]]},
        {"images": ["ab"]},
        {"images": ["aa", "aa"]},
    ],
)
def test_nothing_changed_ever_hits(tmp_path: Path, changed: dict[str, Any]) -> None:
    shards = TensorShards(tmp_path)
    store = ReferenceStore(shards, SCOPE)
    store.put(store.key(PROMPT, [CHOSEN, REJECTED], IMAGES), [torch.zeros(2), torch.zeros(3)])
    other = ReferenceStore(shards, changed.get("scope", SCOPE))
    completions = changed.get("completions", [CHOSEN, REJECTED])
    images = changed.get("images", IMAGES)
    key = other.key(changed.get("prompt", PROMPT), completions, images)
    assert other.get(key, [len(ids) for ids in completions]) is None
    assert (other.hits, other.misses) == (0, 1)


def test_values_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    store = ReferenceStore(TensorShards(tmp_path), SCOPE)
    store.put("key", [torch.tensor([-1.0, float("nan")])])
    assert store.get("key", [2]) is None


def test_other_lengths_are_no_hit(tmp_path: Path) -> None:
    store = ReferenceStore(TensorShards(tmp_path), SCOPE)
    store.put("key", [torch.zeros(2), torch.zeros(3)])
    assert store.get("key", [3, 2]) is None
    assert store.get("key", [2]) is None


def test_two_killed_writers_leave_only_whole_entries(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = []
    for first in (0, 200_000):
        ready = context.Event()
        process = context.Process(target=write_until_killed, args=(tmp_path, first, ready))
        process.start()
        writers.append((process, ready))
    for process, ready in writers:
        assert ready.wait(120)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    (tmp_path / "half.safetensors.tmp").write_bytes(shard_files(tmp_path)[0].read_bytes()[:50])
    shards = TensorShards(tmp_path)
    assert shards.damaged == 0
    for first in (0, 200_000):
        for number in range(first, first + 21):
            found = shards.get(f"key{number}")
            assert found is not None and torch.equal(found["0"], torch.full((7,), float(number)))


def test_a_truncated_shard_and_a_flipped_byte_are_misses(tmp_path: Path) -> None:
    shards = TensorShards(tmp_path)
    shards.put("a", {"0": torch.arange(1000.0)})
    shards.flush()
    shards.put("b", {"0": torch.arange(2000.0)})
    shards.flush()
    small, large = sorted(shard_files(tmp_path), key=lambda path: path.stat().st_size)
    small.write_bytes(small.read_bytes()[:-4])
    data = bytearray(large.read_bytes())
    data[-3] ^= 1
    large.write_bytes(data)
    again = TensorShards(tmp_path)
    assert again.get("a") is None and again.get("b") is None
    assert again.damaged == 2


def test_what_another_process_writes_is_found_when_it_is_needed(tmp_path: Path) -> None:
    reader, writer = TensorShards(tmp_path), TensorShards(tmp_path)
    assert reader.get("late") is None
    writer.put("late", {"0": torch.ones(1)})
    writer.flush()
    found = reader.get("late")
    assert found is not None and torch.equal(found["0"], torch.ones(1))
    reader.put("late", {"0": torch.zeros(1)})
    reader.flush()
    assert len(shard_files(tmp_path)) == 1, "a known key is not written again"


def test_a_full_folder_takes_nothing_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    shards = TensorShards(tmp_path, shard_bytes=1, max_bytes=4000)
    taken = [shards.put(str(number), {"0": torch.zeros(500)}) for number in range(5)]
    assert taken == [True, True, False, False, False]
    assert len(TensorShards(tmp_path)) == 2


def test_features_move_between_ram_and_disk(tmp_path: Path) -> None:
    store = FeatureStore(TensorShards(tmp_path), {"tower": "t"}, ram_bytes=8000)
    keys = [store.key(image) for image in ("a", "b", "c")]
    for value, key in enumerate(keys):
        store.put(key, {"image": torch.full((1000,), float(value)), "deep": torch.tensor([value])})
    assert store.ram_bytes_used <= 8000, "one image of 4008 bytes fits, two don't"
    for value, key in enumerate(keys):
        found = store.get(key)
        assert found is not None and found["image"][0] == value and found["deep"][0] == value
    assert (store.hits, store.misses) == (3, 0)
    assert store.get(store.key("d")) is None
    other = FeatureStore(TensorShards(tmp_path), {"tower": "u"}, ram_bytes=8000)
    assert other.get(other.key("a")) is None
    store.flush()
    again = FeatureStore(TensorShards(tmp_path), {"tower": "t"}, ram_bytes=0)
    found = again.get(again.key("c"))
    assert found is not None and found["image"][0] == 2
    assert again.ram_bytes_used == 0


def test_the_most_recent_features_stay_in_ram(tmp_path: Path) -> None:
    store = FeatureStore(TensorShards(tmp_path, max_bytes=0), {}, ram_bytes=8)
    store.put("a", {"0": torch.zeros(1)})
    store.put("b", {"0": torch.zeros(1)})
    assert store.get("a") is not None
    store.put("c", {"0": torch.zeros(1)})
    assert store.get("a") is not None, "used after b"
    assert store.get("b") is None, "on no disk, and the least recent"
