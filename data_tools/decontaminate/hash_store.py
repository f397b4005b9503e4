"""Hashes of pictures by their bytes, kept in one file, so that no picture is hashed twice.

A killed stage goes on where it was, and the next run, or one against another benchmark, only looks them up.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from align.errors import AlignError

_VERSION = 2
"""Of what is kept; raised whenever a hash changes."""


class HashStore:
    """Blobs by sha256; safe from several threads. Without a path it keeps nothing.

    Raises:
        AlignError: the file is no store.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock, self._new = threading.Lock(), dict[str, bytes]()
        self._base: sqlite3.Connection | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, timeout=60)
            table = "create table if not exists pictures (key text primary key, data blob) without rowid"
            self._base.execute(table)
            self._base.commit()
        except sqlite3.DatabaseError as error:
            fix = "delete it; pictures are then hashed again"
            raise AlignError(f"not a store of hashes: {error}", where=str(path), fix=fix) from error

    def get(self, digest: str) -> bytes | None:
        """What is kept of these bytes."""
        if self._base is None:
            return None
        with self._lock:
            found = self._base.execute(
                "select data from pictures where key = ?", (f"{_VERSION} {digest}",)
            ).fetchone()
        return None if found is None else bytes(found[0])

    def put(self, digest: str, data: bytes) -> None:
        """Keep something; on disk after `flush`."""
        with self._lock:
            self._new[f"{_VERSION} {digest}"] = data

    def flush(self) -> None:
        """Write what is new."""
        if self._base is None or not self._new:
            self._new.clear()
            return
        with self._lock:
            self._base.executemany("insert or replace into pictures values (?, ?)", list(self._new.items()))
            self._base.commit()
            self._new.clear()
