"""One real vLLM server on the shipped base for a whole test session.

It runs under a helper process of its own, so that no test's server pool can stop it; tests reach it
through `serve.endpoint`. The helper is killed with -9 at the end: nothing of the server may survive that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from align.config.model_ref import ModelRef

_HELPER = """
import json, sys, time
from pathlib import Path
from align.serving.server import ServeSettings, serve, server_pool

checkpoint, logs = Path(sys.argv[1]), Path(sys.argv[2])
settings = ServeSettings(dtype="float32", max_model_len=512, max_num_seqs=32)
with server_pool():
    with serve(checkpoint, settings, logs) as first:
        pass
    with serve(checkpoint, settings, logs) as second:
        found = {"url": second.url, "digest": second.digest, "shared": first.process is second.process}
        print("READY " + json.dumps(found), flush=True)
        time.sleep(1e6)
"""


@dataclass(frozen=True)
class ServedBase:
    """A running server on the shipped base.

    Attributes:
        shared: whether two `serve` calls in a row inside `server_pool` got the same process.
    """

    url: str
    digest: str
    shared: bool
    checkpoint: Path


@pytest.fixture(scope="session")
def served_base(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBase]:
    """A vLLM server on the shipped base, fp32; started once, about half a minute.

    `ALIGN_TEST_SERVER=http://host:port/v1` names one that is up already.
    """
    if url := os.environ.get("ALIGN_TEST_SERVER"):
        yield ServedBase(url, ModelRef.of(base_checkpoint).digest(), True, base_checkpoint)
        return
    logs = tmp_path_factory.mktemp("vllm")
    command = [sys.executable, "-c", _HELPER, str(base_checkpoint), str(logs)]
    helper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert helper.stdout is not None
    said = ""
    for line in helper.stdout:
        said += line
        if line.startswith("READY "):
            break
    else:
        pytest.fail(f"vLLM did not start:\n{said}")
    found = json.loads(line.removeprefix("READY "))
    yield ServedBase(checkpoint=base_checkpoint, **found)
    os.kill(helper.pid, signal.SIGKILL)
    helper.wait()
    assert closes(found["url"], seconds=30), f"the server at {found['url']} outlived its killed parent"


def closes(url: str, seconds: float) -> bool:
    """Whether the server at `url` stops listening in time."""
    place = urlsplit(url)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((place.hostname or "", place.port or 0)):
                return True
        time.sleep(0.2)
    return False


def kill_midway(command: list[str], store: Path, lines: int) -> None:
    """Run a stage as a command and kill it with -9 as soon as its answer store holds `lines` lines."""
    process = subprocess.Popen([sys.executable, "-m", "align.cli", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if store.is_file() and store.read_bytes().count(b"\n") >= lines:
            process.kill()
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL, "the stage ended before it could be killed"
