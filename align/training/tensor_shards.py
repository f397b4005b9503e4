"""Tensors on disk under content keys: append-only, crash-safe, shared by concurrent processes.

A folder of safetensors shards, each written whole under a temporary name, synced and renamed, and
never touched again. Every process writes shards of its own, so there is nothing to lock; what others
have written meanwhile is found when a key is missing. Each entry carries the sha256 of its bytes: one
that a disk or a copy has damaged is not returned.

The keys say what the tensors are (see `align.trainers`), so an entry is either right or not found.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from align.errors import AlignError

FORMAT = "1"
_SUFFIX = ".safetensors"
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 24 * 3600.0

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Place:
    """Where an entry is: its shard, the names of its tensors, and the sha256 of their bytes."""

    shard: str
    names: tuple[str, ...]
    sha256: str


class TensorShards:
    """A folder of tensors by content key.

    Args:
        folder: made when missing; may be in use by other processes.
        shard_bytes: pending entries are written when they reach this size.
        flush_seconds: or when the oldest has waited this long; what a kill can lose.
        max_bytes: on disk; a full folder takes no further entries. None is no limit. Entries are not
            evicted: training reads them in cycles, so the oldest is the next one needed.

    Attributes:
        damaged: shards and entries that could not be read back as written.
        num_bytes: size of the shards known to this process.
    """

    def __init__(
        self,
        folder: Path,
        shard_bytes: int = 64 << 20,
        flush_seconds: float = 30.0,
        max_bytes: int | None = None,
    ) -> None:
        self.folder = folder
        self.damaged = 0
        self.num_bytes = 0
        self._shard_bytes, self._flush_seconds, self._max_bytes = shard_bytes, flush_seconds, max_bytes
        self._places: dict[str, _Place] = {}
        self._open: dict[str, safe_open] = {}
        self._seen: set[str] = set()
        self._scanned = -1
        self._pending: dict[str, Tensors] = {}
        self._pending_bytes = 0
        self._pending_since = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AlignError(f"cannot make the store: {error.strerror}", where=str(folder)) from error
        self._sweep()
        self._scan()

    def __len__(self) -> int:
        return len(self._places) + len(self._pending)

    def __contains__(self, key: str) -> bool:
        if key in self._pending or key in self._places:
            return True
        self._scan()
        return key in self._places

    @property
    def is_full(self) -> bool:
        """Whether `put` takes no further entries."""
        return self._max_bytes is not None and self.num_bytes + self._pending_bytes >= self._max_bytes

    def get(self, key: str) -> Tensors | None:
        """The tensors of `key` on the CPU, or None: never stored, or no longer as they were written."""
        if key in self._pending:
            return dict(self._pending[key])
        if key not in self:
            return None
        place = self._places[key]
        shard = self._open[place.shard]
        try:
            tensors = {name: shard.get_tensor(f"{key}.{name}") for name in place.names}
        except (SafetensorError, OSError):
            tensors = {}
        if _digest(tensors) != place.sha256:
            self.damaged += 1
            del self._places[key]
            return None
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Store a copy of `tensors`; False when the folder is full. A key already there stays as it is."""
        if key in self:
            return True
        if self.is_full:
            return False
        if not self._pending:
            self._pending_since = time.monotonic()
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        self._pending[key] = copies
        self._pending_bytes += sum(tensor.nbytes for tensor in copies.values())
        waited = time.monotonic() - self._pending_since
        if self._pending_bytes >= self._shard_bytes or waited >= self._flush_seconds:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what is pending as one shard; on return it survives a kill and a power cut."""
        if not self._pending:
            return
        entries = {
            f"{key}.{name}": tensor
            for key, tensors in self._pending.items()
            for name, tensor in tensors.items()
        }
        digests = {key: _digest(tensors) for key, tensors in self._pending.items()}
        data = save(entries, metadata={"format": FORMAT, "sha256": json.dumps(digests)})
        name = uuid.uuid4().hex + _SUFFIX
        temporary = self.folder / (name + _TEMPORARY)
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self.folder / name)
        _sync_folder(self.folder)
        self._pending, self._pending_bytes = {}, 0
        self._scanned = -1
        self._scan()

    def _scan(self) -> None:
        """Index shards that have appeared since the last look; a listing only when the folder changed."""
        changed = self.folder.stat().st_mtime_ns
        if changed == self._scanned:
            return
        self._scanned = changed
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._index(path)

    def _index(self, path: Path) -> None:
        try:
            shard = safe_open(path, framework="pt")
            metadata = shard.metadata() or {}
            digests = json.loads(metadata.get("sha256", "{}"))
        except (SafetensorError, OSError, ValueError):
            self.damaged += 1
            return
        if metadata.get("format") != FORMAT:
            return
        names: dict[str, list[str]] = {}
        for full in shard.keys():  # noqa: SIM118 - not a mapping
            key, _, name = full.partition(".")
            names.setdefault(key, []).append(name)
        for key, parts in names.items():
            self._places.setdefault(key, _Place(path.name, tuple(sorted(parts)), digests.get(key, "")))
        self._open[path.name] = shard
        self.num_bytes += path.stat().st_size

    def _sweep(self) -> None:
        """Delete what processes killed long ago left half-written."""
        for path in self.folder.glob(f"*{_TEMPORARY}"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # its writer has just renamed it


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
