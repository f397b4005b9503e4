"""Adapters on a server, unmerged: what is refused, how it is started, and that it answers as trained."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.config.model_ref import ModelRef
from align.errors import AlignError
from align.merging.layer_changes import compare
from align.merging.merge_checks import Probe
from align.models.adapter_folder import read_adapter
from align.models.families import FAMILIES
from align.serving.adapters import (
    RANKS,
    adapted_digest,
    check_all,
    ignored_tensors,
    load_adapter,
    served_name,
)
from align.serving.client import ChatRequest, Sampling, ask
from align.serving.server import Server, ServeSettings, serve, server_args
from align.serving.vllm_install import vllm_environment
from tests.align.adapter_folders import make_adapter, merge_by_peft
from tests.align.models.test_families_matrix import MAX_TOKENS, greedy
from tests.twins import Twins


def test_what_vllm_would_ignore_is_refused_with_the_component(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    text = make_adapter(base, tmp_path / "text")
    check_all(ModelRef.of(base), {"text": text})
    tower = make_adapter(base, tmp_path / "tower", components=("language", "vision", "connector"))
    ignored = ignored_tensors(read_adapter(tower), "llava")
    assert ignored.keys() == {"vision", "connector"} and len(ignored["connector"]) == 4
    with pytest.raises(AlignError, match=r"vLLM would ignore 4 in connector, \d+ in vision") as caught:
        check_all(ModelRef.of(base), {"text": text, "tower": tower})
    assert "align merge" in caught.value.fix
    changes = compare(base, merge_by_peft(base, tower, tmp_path / "merged"), read_adapter(tower))
    assert not changes.faults() and changes.why_merge == caught.value.what
    assert changes.ignored_unmerged["connector"] == 4
    assert compare(base, merge_by_peft(base, text, tmp_path / "too"), read_adapter(text)).why_merge == ""


def test_a_whole_model_is_served_where_it_was_compared(twins: Twins, tmp_path: Path) -> None:
    """And the engine is told to, only for an adapter that reaches beyond the language model."""
    base = twins("qwen2_vl")
    tower = make_adapter(base, tmp_path / "tower", components=("language", "vision", "connector"))
    text = make_adapter(base, tmp_path / "text")
    check_all(ModelRef.of(base), {"tower": tower, "text": text})
    assert ignored_tensors(read_adapter(tower), "qwen2_vl") == {}
    flag = "--enable-tower-connector-lora"
    args = {
        name: server_args(ModelRef.of(base), ServeSettings(adapters={name: path}), 8000, "m")
        for name, path in {"tower": tower, "text": text}.items()
    }
    assert flag in args["tower"] and flag not in args["text"]


@pytest.mark.vllm
def test_an_adapter_on_tower_and_connector_answers_as_its_merged_checkpoint(
    twins: Twins, tmp_path: Path
) -> None:
    """Token for token on six pictures; the base's answers are others, so that ignored tensors would show."""
    base = twins("qwen2_vl")
    adapter = make_adapter(base, tmp_path / "adapter", components=("language", "vision", "connector"))
    merged = merge_by_peft(base, adapter, tmp_path / "merged")
    for file in base.iterdir():  # its processor, tokenizer and template
        if not (merged / file.name).exists():
            shutil.copy(file, merged / file.name)
    draw = np.random.default_rng(0)
    pictures = [tmp_path / f"{number}.png" for number in range(6)]
    for path in pictures:
        colours = Image.fromarray(draw.integers(0, 255, (3, 4, 3), dtype=np.uint8))
        colours.resize((48, 40), Image.Resampling.BICUBIC).save(path)
    probes = [Probe(path, "What is this?") for path in pictures]
    wanted, plain = greedy(merged, probes), greedy(base, probes)
    assert wanted != plain
    settings = ServeSettings(
        dtype="float32", max_model_len=256, max_num_seqs=8, kv_cache_gb=0.1, adapters={"it": adapter}
    )
    requests = [
        (
            str(number),
            ChatRequest(
                messages=probe.messages,
                images=probe.images,
                sampling=Sampling(temperature=0.0, max_tokens=MAX_TOKENS),
            ),
        )
        for number, probe in enumerate(probes)
    ]
    found: dict[str, Any] = {}
    with serve(ModelRef.of(base), settings, tmp_path, adapter="it") as server:
        ask(server, requests, lambda key, reply: found.update({key: reply}))
    same, total = 0, 0
    for number, ids in enumerate(wanted):  # each up to its first near-tie
        told = found[str(number)].choices[0].token_ids
        same += sum(one == two for one, two in zip(ids, told, strict=False))
        total += len(ids)
    assert total >= 12 and same / total >= 0.99, (same, total)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"modules_to_save": ["linear_1"]}, "replaces whole parameters"),
    ],
)
def test_what_vllm_refuses_is_refused_before_it_starts(
    twins: Twins, config: dict[str, Any], why: str, tmp_path: Path
) -> None:
    adapter = make_adapter(twins("llava"), tmp_path / "adapter", **config)
    with pytest.raises(AlignError, match=why):
        check_all(ModelRef.of(twins("llava")), {"it": adapter})


def test_an_adapter_of_other_weights_is_refused(twins: Twins, tmp_path: Path) -> None:
    base, adapter = twins("llava"), make_adapter(twins("llava"), tmp_path / "adapter")
    (adapter / "base.json").write_text(json.dumps({"path": "elsewhere", "digest": "0" * 64}))
    with pytest.raises(AlignError, match="'it' was trained on another base"):
        check_all(ModelRef.of(base), {"it": adapter})
    record = {"path": "elsewhere", "digest": "0" * 64, "quantization": "nf4"}
    (adapter / "base.json").write_text(json.dumps(record))
    with pytest.raises(AlignError, match="trained on a base in nf4"):
        check_all(ModelRef.of(base), {"it": adapter})


def test_the_command_line_makes_room_for_the_largest(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    adapters = {
        "small": make_adapter(base, tmp_path / "small", r=4),
        "large": make_adapter(base, tmp_path / "large", r=17, seed=1),
    }
    args = server_args(ModelRef.of(base), ServeSettings(adapters=adapters, max_loras=2), 8000, "m")
    pairs = dict(pairwise(args))
    assert "--enable-lora" in args and pairs["--max-lora-rank"] == "32" and pairs["--max-loras"] == "2"
    assert "--enable-tower-connector-lora" not in args
    assert "--enable-lora" not in server_args(ModelRef.of(base), ServeSettings(), 8000, "m")
    assert (
        vllm_environment(ModelRef.of(base), loads_adapters=True)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    )
    names = {served_name(name, path) for name, path in adapters.items()}
    digests = {adapted_digest("base", path) for path in adapters.values()}
    assert len(names) == len(digests) == 2 and "base" not in digests
    with pytest.raises(AlignError, match=r"no adapter 'smal' \(did you mean 'small'\?\)"):
        load_adapter("http://127.0.0.1:9/v1", adapters, "smal", "")
    with pytest.raises(AlignError, match="does not load the adapter 'small'"):
        load_adapter("http://127.0.0.1:9/v1", adapters, "small", "")


def test_the_facts_are_those_of_the_installed_vllm() -> None:
    """Which classes take LoRA, and the ranks, read in vLLM's source without importing it."""
    from transformers.models.auto import modeling_auto

    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    root = Path(spec.submodule_search_locations[0])
    bases: dict[str, set[str]] = {}
    for file in (root / "model_executor" / "models").glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).split(".")[-1] for base in node.bases}

    def takes_lora(name: str) -> bool:
        found = bases.get(name, set())
        return "SupportsLoRA" in found or any(takes_lora(base) for base in found - {name})

    registry = (root / "model_executor" / "models" / "registry.py").read_text()
    architectures = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES | (
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )
    for model_type, family in FAMILIES.items():
        architecture = architectures[model_type]
        entry = re.search(rf'"{architecture}":\s*\(\s*"\w+",\s*"(\w+)"', registry)
        known = entry is not None and takes_lora(entry.group(1))
        assert known == (family.serving.lora != "none"), model_type
    limits = (root / "config" / "lora.py").read_text()
    assert f"MaxLoRARanks = Literal[1, {', '.join(map(str, RANKS))}]" in limits


@pytest.mark.vllm
def test_one_server_answers_with_each_adapter_as_peft_does(base_checkpoint: Path, tmp_path: Path) -> None:
    """Two adapters and the base on one start, asked by turns and mixed, token for token."""
    from peft import PeftModel

    from align.merging.merge_checks import answer, make_probes, token_agreement
    from align.models.loading import ModelSection, load_model, load_processor
    from align.serving.client import ChatRequest, Reply, Sampling, ask
    from align.serving.server import server_pool
    from data_tools.scenes.coco_files import write_world

    write_world(tmp_path / "world", train=1, dev=6, test=1, unseen=0, seed=3)
    section = ModelSection(path=str(base_checkpoint), dtype="float32")
    processor = load_processor(section)
    probes = make_probes(tmp_path / "world" / "images" / "dev", 6, ["Describe the image."])
    adapters = {
        name: make_adapter(base_checkpoint, tmp_path / name, seed=seed, r=8)
        for name, seed in (("sft", 0), ("dpo", 1))
    }
    wanted: dict[str | None, list[list[int]]] = {}
    wanted[None] = [answer(load_model(section), processor, probe, 24) for probe in probes]
    for name, path in adapters.items():
        model = PeftModel.from_pretrained(load_model(section), str(path)).eval()
        wanted[name] = [answer(model, processor, probe, 24) for probe in probes]
    assert token_agreement(wanted["sft"], wanted["dpo"]) < 0.9
    requests = [
        (str(k), ChatRequest(probe.messages, [probe.image] if probe.image else [], Sampling(max_tokens=24)))
        for k, probe in enumerate(probes)
    ]
    settings = ServeSettings(dtype="float32", max_model_len=512, adapters=adapters, kv_cache_gb=0.5)
    servers: dict[str | None, Server] = {}

    def agreement(name: str | None) -> float:
        found: dict[str, Any] = {}
        ask(servers[name], requests, lambda key, reply: found.update({key: reply}))
        replies = [found[key] for key, _ in requests]
        assert all(isinstance(reply, Reply) for reply in replies), replies
        return token_agreement(wanted[name], [reply.choices[0].token_ids for reply in replies])

    with server_pool():
        for name in ("sft", None, "dpo", "sft"):
            with serve(base_checkpoint, settings, tmp_path / "logs", name) as server:
                servers[name] = server
                assert agreement(name) >= 0.98, name
        with ThreadPoolExecutor() as threads:
            mixed = list(threads.map(agreement, servers))
    assert min(mixed) >= 0.98, mixed
    assert len({server.process for server in servers.values()}) == 1
    assert len({server.digest for server in servers.values()}) == 3
