"""Starting, failing to start and stopping vLLM; the guard that no server outlives."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from align.config.model_ref import ModelRef
from align.digest import digest_file
from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import render
from align.inputs.images import open_image
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.messages import ImagePart, Message, TextPart
from align.serving.client import ChatRequest, Failure, Reply, Sampling, ask
from align.serving.server import ServeSettings, serve, server_args, telling_line
from tests.twins import Twins
from tests.vllm_fixtures import ServedBase

_SERVER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""
_PARENT = """
import os, subprocess, sys, time
from align.serving import guard as server_guard
guard = [sys.executable, "-S", "-E", server_guard.__file__, str(os.getpid())]
command = [sys.executable, "-S", "-c", sys.argv[1]]
print(subprocess.Popen(guard + command, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that passes for a checkpoint until vLLM reads it."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 256}')
    return folder


def enter(checkpoint: Path, settings: ServeSettings, log_dir: Path) -> None:
    """Start a server and stop it at once."""
    with serve(checkpoint, settings, log_dir):
        pass


def family(pid: int, count: int) -> list[psutil.Process]:
    """The process and its descendants, once there are `count` of them."""
    for _ in range(200):
        found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError("the guard did not start its command")


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_no_server_outlives_its_killed_parent(victim: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, _SERVER], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    guard = int(parent.stdout.readline())
    processes = family(guard, 3)
    if victim == "parent":
        os.kill(parent.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive and len(gone) == 3
    else:
        # Only the server itself hears of a killed guard; stopping its workers is then its own work.
        os.kill(guard, signal.SIGKILL)
        assert not psutil.wait_procs(processes[1:2], timeout=20)[1]
        os.kill(parent.pid, signal.SIGKILL)
        for process in processes[2:]:
            process.kill()
    parent.wait()


def test_a_taken_port_is_one_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AlignError, match=rf"cannot listen on 127.0.0.1:{port}") as caught:
            enter(checkpoint, ServeSettings(port=port), tmp_path / "logs")
    assert caught.value.where == "serve.port"


def test_missing_vllm_names_the_install_command(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(AlignError, match="vLLM is not installed") as caught:
        enter(checkpoint, ServeSettings(), tmp_path)
    assert "pip install" in caught.value.fix


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match=r"no config\.json"):
        ModelRef.of(tmp_path).digest()
    with pytest.raises(AlignError, match="no such checkpoint"):
        ModelRef.of(str(tmp_path / "gone")).digest()


def test_the_digest_is_of_bytes_not_of_the_place(checkpoint: Path, tmp_path: Path) -> None:
    before = ModelRef.of(checkpoint).digest()
    stage = tmp_path / "stage"
    stage.mkdir()
    moved = checkpoint.rename(stage / "checkpoint")
    assert ModelRef.of(moved).digest() == before
    sha256 = digest_file(moved / "config.json")
    (stage / "manifest.json").write_text(
        json.dumps({"outputs": {"checkpoint/config.json": {"sha256": sha256}}})
    )
    assert ModelRef.of(moved).digest() == before
    (moved / "model.safetensors").write_bytes(b"weights")
    assert ModelRef.of(moved).digest() != before


def test_arguments_pin_sampling_and_leave_room_for_whole_prompts(checkpoint: Path) -> None:
    args = server_args(ModelRef.of(checkpoint), ServeSettings(max_num_seqs=8), 8000, "m")
    pairs = dict(pairwise(args))
    assert pairs["--generation-config"] == "vllm"
    assert "--trust-remote-code" not in args
    if "--enforce-eager" in args:  # a CPU build
        assert pairs["--dtype"] == "float32"
        assert pairs["--max-num-batched-tokens"] == str(8 * 256)
        config = {"max_position_embeddings": 256, "text_config": {"linear_num_value_heads": 4}}
        (checkpoint / "config.json").write_text(json.dumps(config))
        pairs = dict(pairwise(server_args(ModelRef.of(checkpoint), ServeSettings(), 8000, "m")))
        assert pairs["--dtype"] == "bfloat16"


def test_only_a_model_that_reads_images_is_told_how_many(checkpoint: Path) -> None:
    assert not any("mm-" in word for word in server_args(ModelRef.of(checkpoint), ServeSettings(), 8000, "m"))
    for config in ({"model_type": "llava"}, {"model_type": "unheard_of", "vision_config": {}}):
        (checkpoint / "config.json").write_text(json.dumps({"max_position_embeddings": 256, **config}))
        pairs = dict(pairwise(server_args(ModelRef.of(checkpoint), ServeSettings(max_images=3), 8000, "m")))
        assert json.loads(pairs["--limit-mm-per-prompt"]) == {"image": 3}
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 128}))
    pairs = dict(pairwise(server_args(ModelRef.of(checkpoint), ServeSettings(max_num_seqs=2), 8000, "m")))
    assert pairs.get("--max-num-batched-tokens", "256") == "256"


def test_the_telling_line_is_the_root_cause() -> None:
    log = """
(APIServer pid=1) INFO 11-22 03:13:38 [base.py:280] Multi-modal warmup completed in 0.394s
(Worker pid=3) ERROR 11-22 03:13:39 [multiproc_executor.py:1063] Traceback (most recent call last):
(Worker pid=3) ERROR 11-22 03:13:39 [multiproc_executor.py:1063] ValueError: no weights in this folder
(EngineCore pid=2) ERROR 11-22 03:13:40 [core.py:1] Exception: WorkerProc failed, see root cause.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
    assert telling_line(log) == "ValueError: no weights in this folder"
    assert telling_line("usage: x\napi: error: unrecognized arguments: --nope\n").endswith("--nope")
    assert telling_line("one\nKilled\n") == "Killed"
    assert telling_line("") == ""


def test_an_endpoint_that_nobody_serves(checkpoint: Path, tmp_path: Path) -> None:
    settings = ServeSettings(endpoint="http://127.0.0.1:9/v1")
    with pytest.raises(AlignError, match="no OpenAI-compatible server") as caught:
        enter(checkpoint, settings, tmp_path)
    assert caught.value.where == "serve.endpoint"


@pytest.mark.vllm
def test_an_endpoint_of_another_model_is_refused(
    served_base: ServedBase, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(AlignError, match="serves other weights"):
        enter(checkpoint, ServeSettings(endpoint=served_base.url), tmp_path)


@pytest.mark.vllm
def test_the_pool_starts_one_server_for_consecutive_stages(served_base: ServedBase, tmp_path: Path) -> None:
    assert served_base.shared
    settings = ServeSettings(endpoint=served_base.url.removesuffix("/v1"))
    with serve(served_base.checkpoint, settings, tmp_path) as server:
        assert (server.url, server.digest, server.is_vllm) == (served_base.url, served_base.digest, True)


@pytest.mark.vllm
def test_a_start_that_fails_tells_why_and_leaves_nothing_running(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match=r"vLLM did not start: \S+") as caught:
        enter(checkpoint, ServeSettings(), tmp_path / "logs")
    assert Path(caught.value.where).is_file()
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if str(checkpoint) in command]


@pytest.mark.vllm
def test_images_and_their_budget_are_those_of_training(twins: Twins, tmp_path: Path) -> None:
    """Pictures inside the text, under `max_pixels`: the tokens counted, and transformers' greedy answer."""
    pictures = []
    for number, size in enumerate(((400, 90), (80, 400))):
        path = tmp_path / f"{number}.png"
        Image.effect_noise(size, 60).convert("RGB").save(path)
        pictures.append(path)
    parts = [TextPart(text="A: "), ImagePart(), TextPart(text="\nB: "), ImagePart(), TextPart(text=" Which?")]
    messages = [Message(role="user", content=parts)]
    section = ModelSection(path=str(twins("qwen2_5_vl")), max_pixels=2048, dtype="float32")
    processor: Any = load_processor(section)
    model: Any = load_model(section)
    text = render(processor, messages, 2, add_generation_prompt=True)
    opened = [open_image(path) for path in pictures]
    inputs = processor(text=[text], images=[opened], add_special_tokens=False, return_tensors="pt")
    begin = inputs["input_ids"].shape[1]
    assert TokenBudget(processor).lengths([([text], [(90, 400), (400, 80)])]) == [begin]
    wanted = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, begin:].tolist()
    found: list[Reply | Failure] = []
    request = ChatRequest(messages, pictures, Sampling(max_tokens=8, temperature=0))
    settings = ServeSettings(max_images=2, max_model_len=512, max_num_seqs=2)
    with serve(section, settings, tmp_path / "logs") as server:
        ask(server, [("", request)], lambda _, reply: found.append(reply))
    assert isinstance(found[0], Reply)
    assert found[0].prompt_tokens == begin
    assert found[0].choices[0].token_ids == wanted
