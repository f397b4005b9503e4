"""Two processes train as one does: same losses, no hang on an uneven batch or on one without images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.repository import REPO
from tests.twins import Twins

# Without a GPU accelerate launches several processes under this flag alone; each then takes gloo.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]


def launched(processes: int, folder: Path, out: Path) -> dict[str, Any]:
    script = ["tests.align.trainers.launched_dpo", str(folder), str(out), str(2 // processes)]
    command = [sys.executable, "-m", *script]
    if processes > 1:
        options = ["--num_processes", str(processes), "--dynamo_backend", "no", "--main_process_port", "0"]
        command = [sys.executable, *LAUNCH, *options, "-m", *script]
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=REPO, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_two_processes_equal_one(twins: Twins, tmp_path: Path) -> None:
    one = launched(1, twins("llava"), tmp_path / "one.json")
    two = launched(2, twins("llava"), tmp_path / "two.json")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert 0 in one["images"] and 2 in one["images"]
    assert len(one["losses"]) == len(two["losses"]) == 8
    # The last batch of seven pairs is a single one; two processes fill it up with the first pair.
    for step in range(3):
        assert two["losses"][step] == pytest.approx(one["losses"][step], abs=1e-5)
