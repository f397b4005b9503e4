"""An adapter of a 4-bit or 8-bit training is merged into the weights that it was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest

from align import merge
from align.cli import main
from align.config.recipe import validate
from align.errors import AlignError
from align.merging.merge_checks import largest_difference, logits, make_probes
from align.models.loading import ModelSection, load_model, load_processor


@pytest.fixture(scope="module")
def qlora_adapter(sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose record says that its base was in 4 bits."""
    adapter = tmp_path_factory.mktemp("qlora") / "adapter"
    shutil.copytree(sft_run / "adapter", adapter)
    record = json.loads((adapter / "base.json").read_text())
    assert record["quantization"] == "none"
    (adapter / "base.json").write_text(json.dumps({**record, "quantization": "nf4"}))
    return adapter


def _merge(run_dir: Path, base: Path, adapter: Path, world: Path, **changes: Any) -> Any:
    values = {
        "run_dir": run_dir,
        "model": {"path": str(base)},
        "adapter": adapter,
        "verify": {"image_root": world / "images" / "dev", "num_images": 2},
        "serve_check": False,
        **changes,
    }
    return merge.run(validate(merge.Recipe, values, where="test"))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_rounded_weights_are_what_bitsandbytes_trains_on(
    base_checkpoint: Path, quantization: Literal["nf4", "int8"]
) -> None:
    import torch
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
    from peft.utils.integrations import dequantize_module_weight

    from align.merging.quantized_base import round_base

    trained: Any = load_model(ModelSection(path=str(base_checkpoint), quantization=quantization))
    rounded: Any = load_model(ModelSection(path=str(base_checkpoint), dtype="float32"))
    original = {name: weight.clone() for name, weight in rounded.state_dict().items()}
    count = round_base(rounded, quantization, torch.bfloat16)
    layers = {
        name: module
        for name, module in trained.named_modules()
        if isinstance(module, Linear4bit | Linear8bitLt)
    }
    assert count == len(layers) > 0
    for name, module in layers.items():
        found = rounded.get_submodule(name).weight
        wanted = dequantize_module_weight(module).float()
        size = wanted.abs().max()
        assert (found - wanted).abs().max() <= size * 2**-7, name  # one rounding to bfloat16
        assert (found - original[f"{name}.weight"]).abs().max() > size * 1e-3, name


def test_the_merged_model_is_the_trained_one_and_the_original_base_is_further_off(
    qlora_adapter: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folders = {
        target: _merge(tmp_path / target, base_checkpoint, qlora_adapter, tiny_world, merge_into=target)
        for target in ("auto", "original")
    }
    metrics = folders["auto"].manifest()["metrics"]
    assert metrics["merged_into"] == "nf4" and metrics["trained_top1_agreement"] >= 0.98
    assert folders["original"].manifest()["metrics"]["merged_into"] == "original"

    quantized = ModelSection(path=str(base_checkpoint), quantization="nf4")
    trained = PeftModel.from_pretrained(load_model(quantized), str(qlora_adapter)).eval()
    processor = load_processor(quantized)
    probes = make_probes(tiny_world / "images" / "test", 4, ["Describe the image."])
    wanted = logits(trained, processor, probes)
    apart = {
        target: largest_difference(
            wanted,
            logits(
                load_model(ModelSection(path=str(folder.final / "checkpoint"), dtype="float32")),
                processor,
                probes,
            ),
        )
        for target, folder in folders.items()
    }
    assert apart["auto"] < apart["original"] / 2

    words = ["merge", "--verify", str(folders["auto"].final / "checkpoint"), "--base", str(base_checkpoint)]
    words += ["--adapter", str(qlora_adapter), "--out", str(tmp_path / "changes.json")]
    assert main(words) == 0
    changes = json.loads((tmp_path / "changes.json").read_text())
    assert changes["merged_into"] == "nf4" and not changes["stray"]
    assert main([*words, "--merge-into", "original"]) == 1  # its base is not the unrounded one


def test_nothing_is_dequantised_that_was_not_quantised(
    sft_run: Path, base_checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    with pytest.raises(AlignError, match="was not trained on a quantised base"):
        _merge(tmp_path, base_checkpoint, sft_run / "adapter", tiny_world, merge_into="dequantized")
