"""Adapters on a server, unmerged: what vLLM would not serve whole."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from align.errors import AlignError
from align.families import FAMILIES
from align.merging.adapters import read_adapter
from align.merging.layer_changes import compare
from align.served_adapters import WITHOUT_LORA, check_servable, ignored_tensors
from tests.adapter_folders import make_adapter, merge_by_peft
from tests.twins import IMAGE_TWINS, TEXT_TWINS, Twins


def test_what_vllm_would_ignore_is_refused_with_the_component(twins: Twins, tmp_path: Path) -> None:
    base = twins("llava")
    text = make_adapter(base, tmp_path / "text")
    check_servable(read_adapter(text), "llava")
    tower = make_adapter(base, tmp_path / "tower", components=("language", "vision", "connector"))
    ignored = ignored_tensors(read_adapter(tower), "llava")
    assert ignored.keys() == {"vision", "connector"} and len(ignored["connector"]) == 4
    with pytest.raises(AlignError, match=r"vLLM would ignore 4 in connector, \d+ in vision") as caught:
        check_servable(read_adapter(tower), "llava")
    assert "align merge" in caught.value.fix
    changes = compare(base, merge_by_peft(base, tower, tmp_path / "merged"), read_adapter(tower))
    assert not changes.faults() and changes.why_merge == caught.value.what
    assert changes.ignored_unmerged["connector"] == 4
    assert compare(base, merge_by_peft(base, text, tmp_path / "too"), read_adapter(text)).why_merge == ""


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"modules_to_save": ["linear_1"]}, "replaces whole parameters"),
    ],
)
def test_what_vllm_does_not_load_is_refused(
    twins: Twins, config: dict[str, Any], why: str, tmp_path: Path
) -> None:
    adapter = make_adapter(twins("llava"), tmp_path / "adapter", **config)
    with pytest.raises(AlignError, match=why):
        check_servable(read_adapter(adapter), "llava")


def test_an_adapter_of_a_rounded_base_is_refused(twins: Twins, tmp_path: Path) -> None:
    adapter = make_adapter(twins("llava"), tmp_path / "adapter")
    record = {"path": "elsewhere", "digest": "0" * 64, "quantization": "nf4"}
    (adapter / "base.json").write_text(json.dumps(record))
    with pytest.raises(AlignError, match="trained on a base in nf4"):
        check_servable(read_adapter(adapter), "llava")


def test_the_facts_are_those_of_the_installed_vllm() -> None:
    """Which classes take LoRA, read in vLLM's source without importing it."""
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
    for model_type in [*IMAGE_TWINS, *TEXT_TWINS]:
        architecture = architectures[model_type]
        entry = re.search(rf'"{architecture}":\s*\(\s*"\w+",\s*"(\w+)"', registry)
        known = entry is not None and takes_lora(entry.group(1))
        assert known != (model_type in WITHOUT_LORA), model_type
    assert set(WITHOUT_LORA) <= set(FAMILIES)
