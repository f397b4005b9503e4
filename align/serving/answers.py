"""Answers on disk, keyed by content: a stopped run goes on where it was, with nothing asked twice.

One JSON line an answer, appended whole. A process killed in the middle of a line leaves a torn one,
which is cut off when the store is opened again. Failures are not kept: they are asked again. Two processes
may write to one store: each line is written, and the file is opened, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from align.progress import Bar, say
from align.serving.client import ChatRequest, Failure, Reply, ask
from align.serving.server import Server

_FSYNC_SECONDS = 0.5

Ask = Callable[[Sequence[tuple[str, ChatRequest]], Callable[[str, Reply | Failure], None]], None]
"""Asks every request, in order, and calls back with each key and reply, never concurrently."""


class AnswerStore:
    """Append-only replies by content key; use it as a context manager.

    An answer counts as kept once its whole line is with the kernel; no buffer of this process is in between,
    and what the kernel holds outlives the process, so kill -9 loses none. Only a crash of the machine can:
    the disk is told to write (fsync) with the first answer half a second after the last time, and on closing,
    and what came since then is asked again.

    Attributes:
        num_torn: lines that were cut off or unreadable when the store was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_torn = 0
        self._replies: dict[str, Reply] = {}
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        with self._locked():
            self._load()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def __getitem__(self, key: str) -> Reply:
        return self._replies[key]

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply.

        Raises:
            OSError: the disk is full; what was written of the line is cut off on the next opening.
        """
        line = json.dumps({"key": key, "reply": reply.model_dump(mode="json")}, ensure_ascii=False) + "\n"
        data = line.encode("utf-8", errors="surrogatepass")
        with self._locked():
            while data:
                data = data[os.write(self._file, data) :]
        self._replies[key] = reply
        if time.monotonic() - self._synced >= _FSYNC_SECONDS:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def _load(self) -> None:
        whole = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    record = json.loads(line)
                    self._replies[record["key"]] = Reply.model_validate(record["reply"])
                except (ValueError, LookupError, TypeError, ValidationError):
                    self.num_torn += 1
        if whole < self.path.stat().st_size:
            self.num_torn += 1
            os.ftruncate(self._file, whole)


def ask_stored(
    server: Server,
    store: AnswerStore,
    requests: Mapping[str, ChatRequest],
    title: str,
    concurrency: int = 64,
) -> dict[str, Reply | Failure]:
    """Ask a server what the store does not hold yet; see `ask_missing`."""
    return ask_missing(
        lambda missing, keep: ask(server, missing, keep, concurrency=concurrency), store, requests, title
    )


def ask_missing(
    ask_all: Ask, store: AnswerStore, requests: Mapping[str, ChatRequest], title: str
) -> dict[str, Reply | Failure]:
    """Ask what the store does not hold yet, in the mapping's order, keeping each answer as it arrives.

    Args:
        ask_all: a server's `ask`, or an engine's.
        requests: content key -> request.
        title: of the progress bar.

    Returns:
        Content key -> reply or failure, for every request.

    Raises:
        AlignError: the server died; the store keeps what was answered.
        OSError: the disk is full.
    """
    missing = [(key, request) for key, request in requests.items() if key not in store]
    if len(missing) < len(requests):
        say(f"  {len(requests) - len(missing)} of {len(requests)} were answered before, asking the rest")
    failures: dict[str, Failure] = {}
    with Bar(title, len(requests), "requests", done=len(requests) - len(missing)) as bar:

        def keep(key: str, reply: Reply | Failure) -> None:
            if isinstance(reply, Failure):
                failures[key] = reply
            else:
                store.add(key, reply)
            bar.step(note=f"{len(failures)} failed" if failures else "")

        ask_all(missing, keep)
    return {key: failures[key] if key in failures else store[key] for key in requests}
