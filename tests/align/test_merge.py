"""Merge: what is saved is what was trained, and everything else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from align import merge
from align.config.recipe import validate
from align.errors import AlignError
from align.merging.merge_checks import check_changed, token_agreement, weight_shapes


def _run(run_dir: Path, base: Path, adapter: Path, world: Path, **changes: Any) -> Any:
    values = {
        "run_dir": run_dir,
        "model": {"path": str(base)},
        "adapter": adapter,
        "verify": {"image_root": world / "images" / "dev", "num_images": 4},
        "serve_check": False,
        **changes,
    }
    return merge.run(validate(merge.Recipe, values, where="test"))


def _adapter(sft_run: Path, to: Path) -> Path:
    shutil.copytree(sft_run / "adapter", to)
    return to


def test_saved_checkpoint_is_the_trained_model(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel

    from align.merging.merge_checks import Probe, largest_difference, logits
    from align.models.loading import ModelSection, load_model, load_processor

    folder = _run(tmp_path, base_checkpoint, sft_run / "adapter", tiny_world, dtype="float32")
    checkpoint = folder.final / "checkpoint"
    section = ModelSection(path=str(base_checkpoint), dtype="float32")
    processor = load_processor(section)
    image = next((tiny_world / "images" / "test").iterdir())
    probes = [Probe(image, "What is this?", "a cat and a dog")]
    adapter_on = PeftModel.from_pretrained(load_model(section), str(sft_run / "adapter")).eval()
    on = logits(adapter_on, processor, probes)
    merged = logits(load_model(ModelSection(path=str(checkpoint))), processor, probes)
    with adapter_on.disable_adapter():
        off = logits(adapter_on, processor, probes)
    assert largest_difference(on, merged) < 1e-4
    assert largest_difference(on, off) > 1e-2  # the adapter does something, so the line above says something
    assert merged[0].dtype == torch.float32
    metrics = folder.manifest()["metrics"]
    assert metrics["lora_modules"] == metrics["weights_changed"] > 0
    layers = json.loads((folder.final / "layer_changes.json").read_text())["layers"]
    assert len(layers) == metrics["lora_modules"] and all(item["status"] == "merged" for item in layers)
    assert metrics["served_check"] == "left out by the recipe"


def test_key_form_and_companions_are_the_bases(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    folder = _run(tmp_path, base_checkpoint, sft_run / "adapter", tiny_world)
    checkpoint = folder.final / "checkpoint"
    assert weight_shapes(checkpoint) == weight_shapes(base_checkpoint)
    dtypes = {tensor.dtype for tensor in load_file(checkpoint / "model.safetensors").values()}
    assert dtypes == {tensor.dtype for tensor in load_file(base_checkpoint / "model.safetensors").values()}
    for name in ("chat_template.jinja", "tokenizer.json", "generation_config.json", "processor_config.json"):
        assert (checkpoint / name).is_file(), name
    template = (checkpoint / "chat_template.jinja").read_text()
    assert template == (base_checkpoint / "chat_template.jinja").read_text()
    assert not list(checkpoint.glob("*.bin"))


@pytest.mark.parametrize("change", ["renamed", "removed"])
def test_a_tensor_that_is_not_applied_fails(
    change: str, sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    adapter = _adapter(sft_run, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "layers.1.self_attn.q_proj.lora_B" in name)
    tensor = tensors.pop(name)
    if change == "renamed":
        tensors[name.replace("layers.1.", "layers.99.")] = tensor
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(AlignError, match=r"adapter tensors fit no module|adapter lacks 1 tensors"):
        _run(tmp_path, base_checkpoint, adapter, tiny_world)
    assert not (tmp_path / "merge").exists()


def test_another_base_is_refused(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    adapter = _adapter(sft_run, tmp_path / "adapter")
    record = json.loads((adapter / "base.json").read_text())
    (adapter / "base.json").write_text(json.dumps({**record, "digest": "0" * 64}))
    with pytest.raises(AlignError, match="trained on another base"):
        _run(tmp_path, base_checkpoint, adapter, tiny_world)


def test_never_into_a_quantised_copy(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    model = {"path": str(base_checkpoint), "quantization": "nf4"}
    with pytest.raises(AlignError, match="never into a 4-bit copy"):
        _run(tmp_path, base_checkpoint, sft_run / "adapter", tiny_world, model=model)


def test_check_changed_by_hand() -> None:
    before = {"a.weight": "1", "b.weight": "1", "c.weight": "1"}
    assert check_changed(before, {**before, "a.weight": "2"}, ["a"], []) == 1
    with pytest.raises(AlignError, match="1 adapted modules did not change"):
        check_changed(before, before, ["a"], [])
    with pytest.raises(AlignError, match="1 modules changed without an adapter"):
        check_changed(before, {**before, "a.weight": "2", "c.weight": "2"}, ["a"], [])


def test_token_agreement_by_hand() -> None:
    assert token_agreement([[1, 2, 3]], [[1, 2, 3]]) == 1.0
    assert token_agreement([[1, 2, 3, 4]], [[1, 9, 3]]) == 0.5  # two of four, the missing one counts
    assert token_agreement([[], [1]], [[], [1]]) == 1.0


@pytest.mark.vllm
def test_the_server_answers_as_transformers_does(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    check = {"serve": {"dtype": "float32", "max_model_len": 512}, "min_agreement": 0.98}
    folder = _run(
        tmp_path, base_checkpoint, sft_run / "adapter", tiny_world, dtype="float32", serve_check=check
    )
    assert folder.manifest()["metrics"]["served_token_agreement"] >= 0.98
