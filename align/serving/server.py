"""A vLLM OpenAI server on a checkpoint: started, watched, stopped, shared between stages.

`with serve(checkpoint, settings, log_dir) as server:` starts one (or attaches to `settings.endpoint`).
Inside `with server_pool():` the last server stays up, so that consecutive stages on the same weights
share one start. vLLM keys its caches by path, hence a server never outlives its weights' digest.

LoRA adapters (`settings.adapters`) are served beside the base, unmerged: `serve(..., adapter="sft")` answers
with that one, and several stages ask several adapters of one server. They are loaded into the running
server when they are asked for; `align.serving.adapters` refuses what vLLM would ignore.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

import httpx
from pydantic import Field

from align.config.model_ref import ModelRef
from align.digest import digest_json
from align.errors import AlignError
from align.models.families import reads_images
from align.models.image_words import image_words
from align.models.thinking import served_kwargs, served_thinking, special_marks
from align.progress import say
from align.serving import guard as server_guard
from align.serving.adapters import adapted_digest, check_all, load_adapter, lora_args
from align.serving.template import template_args
from align.serving.vllm_install import is_cpu_build, require_vllm, vllm_environment
from align.serving.wire import PATIENCE_KEYS, Patience, base_url, url_of

_STOP_SECONDS = 15.0
_SAY_EVERY_SECONDS = 10.0
# "(EngineCore pid=7) ERROR 11-22 03:13:19 [core.py:1] " before what was really said.
_LOG_PREFIX = re.compile(r"^\(\w+ pid=\d+\)\s+(?:[A-Z]+ \S+ \S+ \[[^]]*\] ?)?")
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception)\b")


HOW_KEYS = frozenset(
    f"serve.{name}"
    for name in (
        "endpoint", "host", "port", "max_num_seqs", "gpu_memory_utilization", "kv_cache_gb", "prefix_caching",
        "startup_timeout_seconds", *sorted(PATIENCE_KEYS),
    )
)  # fmt: skip
"""For `StageRecipe.how_keys`: settings that change where and how fast answers come. (What is decoded together
moves logits in their last digits, as it does from run to run anyway.) An endpoint's weights are checked."""


class ServeSettings(Patience):
    """How the server is started. Whatever changes its answers belongs to the digest of the stage."""

    endpoint: str | None = Field(
        default=None,
        description="base URL of a running OpenAI-compatible server (http://host:port/v1); null starts vLLM",
    )
    host: str = Field(default="127.0.0.1", description="address that vLLM listens on")
    port: int = Field(default=0, ge=0, le=65535, description="port of vLLM; 0 takes a free one")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: the checkpoint's own on a GPU; on a CPU float32 (stable answers), but bfloat16 "
        "with linear attention, for which vLLM has nothing else there",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="prompt + answer tokens; null: the model's own limit"
    )
    max_num_seqs: int = Field(default=64, ge=1, description="requests decoded together")
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="share of each GPU's memory for vLLM"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs to split the model over")
    kv_cache_gb: float = Field(default=1.0, gt=0, description="KV cache on a CPU, GiB; unused on a GPU")
    max_images: int = Field(
        default=1, ge=1, description="images a request may hold; a text-only model is not told"
    )
    prefix_caching: bool = Field(default=True, description="reuse the KV cache of equal beginnings")
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")
    adapters: dict[str, Path] = Field(
        default={}, description="name -> LoRA adapter folder, served beside the model on one server"
    )
    max_loras: int = Field(default=4, ge=1, description="adapters that one batch may mix")
    startup_timeout_seconds: float = Field(
        default=900.0, gt=0, description="give up on a start that takes longer"
    )
    extra_args: list[str] = Field(default=[], description="further arguments of vLLM's server, as typed")


@dataclass
class Server:
    """A server that answers.

    Attributes:
        url: base URL, which `align.serving.wire.url_of` extends.
        model: the name to ask for.
        digest: sha256 of the weights' folder; part of every content key.
        is_vllm: whether vLLM's own request fields may be sent.
        api_key: sent as a bearer token; empty for servers that want none.
        image_words: texts that the model would take for an image; requests that spell one are not sent.
        patience: how long it is waited for.
        left_out: field that it refuses -> its words; filled while it is asked.
        template_kwargs: what its chat template is told with each request: whether to think. Part of `digest`.
        thinks: whether its prompts ask for thoughts, so that an answer's first token is no answer.
        keeps_marks: vLLM is asked to leave special tokens in its text: marks of thoughts are among them.
    """

    url: str
    model: str
    digest: str
    is_vllm: bool = True
    process: subprocess.Popen[bytes] | None = None
    log: IO[str] | None = None
    log_path: Path | None = None
    api_key: str = ""
    image_words: tuple[str, ...] = ()
    patience: Patience = field(default_factory=Patience)
    left_out: dict[str, str] = field(default_factory=dict)
    template_kwargs: dict[str, bool] = field(default_factory=dict)
    keeps_marks: bool = False
    thinks: bool = False

    def alive(self) -> bool:
        """False when the server was started here and its process has ended."""
        return self.process is None or self.process.poll() is None

    def last_words(self) -> str:
        """The line of the log that tells why the server died; empty for a foreign server."""
        if self.log is None:
            return ""
        self.log.seek(0)
        return telling_line(self.log.read())


@dataclass
class _Pool:
    """At most one idle server, kept between `serve` calls."""

    key: str = ""
    server: Server | None = None
    in_use: int = 0
    depth: int = 0
    started: list[Server] = field(default_factory=list)


_pool = _Pool()


@contextmanager
def server_pool() -> Iterator[None]:
    """Keep the last server alive between `serve` calls on the same weights and settings."""
    _pool.depth += 1
    try:
        yield
    finally:
        _pool.depth -= 1
        if _pool.depth == 0:
            stop_servers()


def stop_servers() -> None:
    """Stop every server that this process started, idle or not (say, to free memory for training)."""
    for server in list(_pool.started):
        _stop(server)
    _pool.server, _pool.key, _pool.in_use = None, "", 0


@contextmanager
def serve(
    checkpoint: ModelRef | str | Path, settings: ServeSettings, log_dir: Path, adapter: str | None = None
) -> Iterator[Server]:
    """A server that answers for `checkpoint`, for the length of the block.

    Args:
        adapter: one of `settings.adapters`, to answer with it on; None answers without any.

    Raises:
        AlignError: no such checkpoint, vLLM not installed, port taken, a start that fails (with the
            line of its log that says why) or takes too long; an endpoint that does not answer or
            serves another folder; an adapter that vLLM would not serve whole.
    """
    model = ModelRef.of(checkpoint)
    digest = model.answering_digest()
    if settings.adapters:
        check_all(model, settings.adapters)
    with _base_server(model, settings, log_dir, digest) as server:
        server.patience = settings
        if kwargs := served_kwargs(model):
            digest = digest_json([digest, kwargs])
            server = replace(server, digest=digest, template_kwargs=kwargs)
        if any(kwargs.values()) or served_thinking(model):
            server = replace(server, thinks=True)
        if adapter is None:
            yield server
            return
        name = load_adapter(server.url, settings.adapters, adapter, str(server.log_path or server.url))
        yield replace(server, model=name, digest=adapted_digest(digest, settings.adapters[adapter]))


@contextmanager
def _base_server(model: ModelRef, settings: ServeSettings, log_dir: Path, digest: str) -> Iterator[Server]:
    if settings.endpoint:
        yield _attach(model, settings.endpoint, digest)
        return
    # Not which adapters: those are loaded into a running server.
    room = lora_args(model, settings.adapters, settings.max_loras)
    key = digest_json([digest, room, settings.model_dump(mode="json", exclude={"adapters", *PATIENCE_KEYS})])
    if _pool.depth and (not _pool.in_use or _pool.key == key):
        if _pool.server is not None and (_pool.key != key or not _pool.server.alive()):
            _stop(_pool.server)
            _pool.server = None
        if _pool.server is None:
            _pool.server, _pool.key = _start(model, settings, digest, log_dir), key
        else:
            say(f"  the server on {model.name} is still up: using it")
        _pool.in_use += 1
        try:
            yield _pool.server
        finally:
            _pool.in_use = max(0, _pool.in_use - 1)
        return
    server = _start(model, settings, digest, log_dir)
    try:
        yield server
    finally:
        _stop(server)


def telling_line(log: str) -> str:
    """The line of a vLLM log that names the root cause: its first exception that does not merely point
    at another one ("see root cause above"); without any, the last line."""
    lines = [_LOG_PREFIX.sub("", line.rstrip()) for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if _EXCEPTION.match(line) or ": error: " in line]
    causes = [line for line in raised if "root cause" not in line]
    return (causes[:1] or raised[-1:] or lines[-1:] or [""])[0].strip()[:500]


def _attach(model: ModelRef, endpoint: str, digest: str) -> Server:
    url = base_url(endpoint)
    try:
        reply = httpx.get(url_of(url, "models"), timeout=10, trust_env=False)
        card = reply.raise_for_status().json()["data"][0]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise AlignError(
            f"no OpenAI-compatible server answers at {url}: {error}",
            where="serve.endpoint",
            fix="start it, or set serve.endpoint=null to have one started",
        ) from error
    name, told = str(card["id"]), card.get("root")
    root = Path(str(told))
    # A server may tell nothing of its weights, or have been started by align on these very ones.
    tells = told and name != _served_name(root, digest) and root.is_dir()
    if tells and (name.startswith(_served_name(root, "")) or ModelRef.of(root).digest() != model.digest()):
        raise AlignError(
            f"the server at {url} serves other weights ({name} from {root}) than {model.name} has now",
            where="serve.endpoint",
            fix="name the server of this checkpoint, or set serve.endpoint=null",
        )
    say(f"  using the server at {url} (model {name})")
    if model.has_pixel_budget and name != _served_name(root, digest):
        say("  images are resized as that server was started to, whatever the recipe's pixel budget")
    is_vllm = card.get("owned_by") == "vllm"
    return Server(
        url=url,
        model=name,
        digest=digest,
        is_vllm=is_vllm,
        image_words=image_words(model),
        keeps_marks=special_marks(model),
    )


def _served_name(checkpoint: str | Path, digest: str) -> str:
    """The model name that align gives a server: readable, and different for different weights."""
    path = Path(checkpoint)
    return f"{path.parent.name or path.name}-{digest.removeprefix('id:').replace('/', '-')[:12]}"


def _start(model: ModelRef, settings: ServeSettings, digest: str, log_dir: Path) -> Server:
    require_vllm()
    port = _free_port(settings.host, settings.port)
    name = _served_name(model.path, digest)
    log_dir.mkdir(parents=True, exist_ok=True)
    log_path = log_dir / f"vllm-{time.strftime('%H%M%S')}-{port}.log"
    command = [sys.executable, "-S", "-E", server_guard.__file__, str(os.getpid())]
    command += [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
    command += [*server_args(model, settings, port, name), *template_args(model, log_path)]
    say(f"  starting vLLM on {model.name} (log: {log_path})")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=vllm_environment(model, bool(settings.adapters)),
        )
    server = Server(
        url=f"http://{settings.host}:{port}/v1",
        model=name,
        digest=digest,
        process=process,
        log=log_path.open(encoding="utf-8", errors="replace"),
        log_path=log_path,
        image_words=image_words(model),
        keeps_marks=special_marks(model),
    )
    _pool.started.append(server)
    try:
        _wait_until_healthy(server, settings.startup_timeout_seconds)
    except BaseException:
        _stop(server)
        raise
    return server


def server_args(model: ModelRef, settings: ServeSettings, port: int, name: str) -> list[str]:
    """The arguments of vLLM's OpenAI server."""
    args = ["--served-model-name", name, "--host", settings.host, "--port", str(port)]
    return [*args, "--disable-uvicorn-access-log", *engine_args(model, settings)]


def engine_args(model: ModelRef, settings: ServeSettings) -> list[str]:
    """The arguments of vLLM's engine, in a server or not. Sampling defaults come from vLLM, never from the
    model's generation config."""
    on_cpu = is_cpu_build()
    dtype = _cpu_dtype(model) if settings.dtype == "auto" and on_cpu else settings.dtype
    args = ["--model", model.path, "--dtype", dtype]
    if model.revision:
        args += ["--revision", model.revision]  # vLLM takes the tokenizer's from it
    if model.has_pixel_budget:
        args += ["--mm-processor-kwargs", _pixel_budget(model, settings)]
    args += ["--generation-config", "vllm", "--max-num-seqs", str(settings.max_num_seqs)]
    args += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    sees = reads_images(model.config() or {"vision_config": "a hub id: not known here"})
    if sees:
        args += ["--limit-mm-per-prompt", f'{{"image": {settings.max_images}}}']
    args += ["--max-logprobs", "20", "--seed", "0"]
    args += ["--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching"]
    if settings.prefix_caching and on_cpu:
        args += ["--block-size", "32"]  # whole blocks are shared; vLLM's own 128 is longer than many prompts
    if settings.max_model_len:
        args += ["--max-model-len", str(settings.max_model_len)]
    if settings.trust_remote_code:
        args += ["--trust-remote-code"]
    if on_cpu:
        args += ["--enforce-eager", "--kv-cache-memory-bytes", str(int(settings.kv_cache_gb * 2**30))]
        if sees:
            args += ["--mm-processor-cache-gb", "0.5"]
        # A seeded request whose prompt is cut over two steps kills vLLM's CPU engine ("CPU Generator
        # does not use offset", gpu_model_runner.py in 0.32): room for all prompts in one step avoids it.
        longest = settings.max_model_len or model.longest_context()
        if longest:
            args += ["--max-num-batched-tokens", str(longest * settings.max_num_seqs)]
    else:
        args += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
    return args + lora_args(model, settings.adapters, settings.max_loras) + settings.extra_args


def _cpu_dtype(model: ModelRef) -> str:
    """float32; but vLLM 0.32 says of gated delta nets (Qwen3.5) "CPU GDN attention requires BF16"."""
    config = model.config() or {}
    text = config.get("text_config") or config
    return "bfloat16" if "linear_num_value_heads" in text else "float32"


def _pixel_budget(model: ModelRef, settings: ServeSettings) -> str:
    """The budget as vLLM hands it to the model's processor, JSON."""
    from transformers import AutoProcessor

    from align.models.loading import pixel_settings

    trust = settings.trust_remote_code
    processor = AutoProcessor.from_pretrained(model.path, revision=model.revision, trust_remote_code=trust)
    return json.dumps(pixel_settings(model, processor))


def _free_port(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AlignError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                where="serve.port",
                fix="stop what uses it, choose another port, or set serve.port=0 for a free one",
            ) from error
        return probe.getsockname()[1]


def _wait_until_healthy(server: Server, timeout: float) -> None:
    start = said = time.monotonic()
    health = server.url.removesuffix("/v1") + "/health"
    while True:
        if not server.alive():
            raise AlignError(
                f"vLLM did not start: {server.last_words()}",
                where=str(server.log_path),
                fix="the log has the whole story; `align doctor` checks the installation",
            )
        try:
            if httpx.get(health, timeout=5, trust_env=False).status_code == 200:
                say(f"  vLLM is up after {time.monotonic() - start:.0f} s at {server.url}")
                return
        except httpx.HTTPError:
            pass
        now = time.monotonic()
        if now - start > timeout:
            raise AlignError(
                f"vLLM was not ready after {timeout:.0f} s",
                where=str(server.log_path),
                fix="raise serve.startup_timeout_seconds, or look into the log",
            )
        if now - said >= _SAY_EVERY_SECONDS:
            said = now
            say(f"  vLLM is starting, {now - start:.0f} s (usually 30 to 60)")
        time.sleep(0.2)


def _stop(server: Server) -> None:
    """End the server's whole process group: asked first, then killed."""
    if server in _pool.started:
        _pool.started.remove(server)
    if server.process is not None and server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
    if server.log is not None:
        server.log.close()
        server.log = None


atexit.register(stop_servers)
