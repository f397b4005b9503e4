"""vLLM's engine, with the server's arguments, in a forked process a checkpoint; vLLM is imported once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from align.merging.merge_checks import Probe
from align.serving.client import ChatRequest, Failure, Reply, Sampling
from align.serving.server import ServeSettings

Dtype = Literal["float32", "bfloat16"]


def answers(
    checkpoint: Path, probes: Sequence[Probe], max_tokens: int, dtype: Dtype = "float32"
) -> list[list[int]]:
    """Greedy token ids of each answer, the end token included.

    Raises:
        Exception: whatever vLLM says where it does not serve the checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vllm", "vllm.entrypoints.llm", "align.serving.engine", __name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_answers, checkpoint, probes, max_tokens, dtype).result()


def _answers(checkpoint: Path, probes: Sequence[Probe], max_tokens: int, dtype: Dtype) -> list[list[int]]:
    from align.serving.engine import offline_engine

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    requests = [
        (str(number), ChatRequest(messages=probe.messages, images=probe.images, sampling=sampling))
        for number, probe in enumerate(probes)
    ]
    settings = ServeSettings(
        dtype=dtype,
        max_model_len=256,
        max_num_seqs=8,
        kv_cache_gb=0.1,
        extra_args=["--distributed-executor-backend", "uni"],
    )
    found: dict[str, Reply | Failure] = {}
    with offline_engine(checkpoint, settings) as engine:
        engine.ask(requests, lambda key, reply: found.update({key: reply}))
    tokens = []
    for key, _ in requests:
        reply = found[key]
        assert isinstance(reply, Reply), reply
        tokens.append(reply.choices[0].token_ids)
    return tokens
