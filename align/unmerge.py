"""Take a LoRA adapter out of a merged checkpoint again: merged - adapter = base.

For whoever has only the merged checkpoint and the adapter, or wants to put another adapter on what is below.
Writes `checkpoint/` in the merged one's key form. Weights are subtracted in float32, one tensor at a time,
without loading a model, and checked: merging them again gives the merged checkpoint, and, where `base` names
the original, they are the original within the rounding that merging cost.

A checkpoint in 16 bits has lost the base's last bit where the adapter changed it: the manifest says how many
weights came back exactly. What cannot be subtracted is refused: DoRA (it rescaled by norms of the base),
`modules_to_save` (the original is gone), and initialisations that took a part out of the base, such as PiSSA.

  align unmerge checkpoint=MERGED/checkpoint adapter=runs/x/sft/adapter base=assets/base run_dir=runs/x
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from align.config.recipe import StageRecipe
from align.errors import AlignError
from align.merging.adapter_layers import AdapterLayers, put_on
from align.merging.layer_changes import ROUNDING, by_module, join
from align.models.adapter_folder import ADAPTER_CONFIG, Adapter, check_plain, read_adapter
from align.models.checkpoint_weights import CheckpointWeights, open_weights
from align.progress import say
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint"


class Recipe(StageRecipe):
    """The recipe of `align unmerge`."""

    name: str = Field(default="unmerge", description="folder inside run_dir")
    checkpoint: Path = Field(description="the merged checkpoint folder")
    adapter: Path = Field(description="the adapter that is in it")
    base: Path | None = Field(
        default=None, description="the original checkpoint, to compare with; null leaves that out"
    )
    tolerance: float = Field(
        default=1e-5,
        gt=0,
        description="largest difference from the base beyond rounding, as a share of a largest entry",
    )


def run(recipe: Recipe) -> RunFolder:
    """Subtract, check, save.

    Raises:
        AlignError: an adapter that cannot be subtracted or does not fit, weights that are not the base's.
    """
    inputs: dict[str, str | Path] = {"checkpoint": recipe.checkpoint, "adapter": recipe.adapter}
    if recipe.base is not None:
        inputs["base"] = recipe.base
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    adapter = read_adapter(recipe.adapter)
    check_plain(adapter, "unmerging")
    _check_nothing_replaced(adapter)
    if adapter.quantization != "none":
        say(f"  the adapter was trained on {adapter.quantization} weights: those are what comes back")
    path = folder.work / CHECKPOINT
    shutil.rmtree(path, ignore_errors=True)
    with open_weights(recipe.checkpoint) as merged:
        layers = put_on(merged, {"default": adapter})
        _write(merged, layers, path)
        with open_weights(path) as found:
            metrics = _check(recipe, merged, layers, found)
    say(f"  {metrics['weights']} weights without the adapter")
    return Done(metrics, f"align merge (model.path={folder.final / CHECKPOINT})")


def _check_nothing_replaced(adapter: Adapter) -> None:
    if adapter.config.get("modules_to_save") or adapter.config.get("bias", "none") != "none":
        raise AlignError(
            "the adapter replaced whole parameters (modules_to_save, bias): the originals are not in the "
            "merged checkpoint",
            where=str(adapter.path / ADAPTER_CONFIG),
            fix="start from the original base",
        )


def _write(merged: CheckpointWeights, layers: AdapterLayers, path: Path) -> None:
    """The same files with the same tensor names; adapted tensors are changed, all others copied."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    ignore = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(merged.folder, path, ignore=ignore)
    owners = {key: join(*place) for place in _adapted(merged, layers) for key in merged.keys[join(*place)]}
    changed: dict[str, torch.Tensor] = {}
    for file in sorted(merged.folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        for key in sorted(tensors.keys() & owners.keys()):
            if key not in changed:
                changed |= _unmerged(merged, layers, merged.together(owners[key]))
            tensors[key] = changed.pop(key)
        save_file(tensors, path / file.name, {"format": "pt"})


def _unmerged(
    merged: CheckpointWeights, layers: AdapterLayers, parameters: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The tensors of the files that these parameters stand in, without the adapter."""
    values = {}
    for name in parameters:
        module, _, leaf = name.rpartition(".")
        value = merged.tensor(name)
        if layers.adapted(module, [leaf]):
            value = layers.unmerged(module, {leaf: value})[leaf].to(value.dtype)
        values[name] = value
    return {key: tensor.contiguous() for key, tensor in merged.in_files(values).items()}


def _adapted(merged: CheckpointWeights, layers: AdapterLayers) -> list[tuple[str, str]]:
    """(module, leaf) of each parameter that the adapter adds to."""
    found = []
    for module, leaves in by_module(merged.keys):
        found += [(module, leaf) for leaf in layers.adapted(module, leaves)]
    return found


@dataclass
class _Worst:
    """The largest difference beyond rounding, as a share of the tensor's largest entry, and where it is."""

    excess: float = 0.0
    parameter: str = ""

    def see(self, parameter: str, excess: float) -> None:
        if excess > self.excess:
            self.excess, self.parameter = excess, parameter


def _check(
    recipe: Recipe, merged: CheckpointWeights, layers: AdapterLayers, found: CheckpointWeights
) -> dict[str, float | int | None]:
    """Merged again it is the merged one; and it is the base, where one is given."""
    again, from_base = _Worst(), _Worst()
    exact = total = 0
    adapted = _adapted(merged, layers)
    for module, leaf in adapted:
        name = join(module, leaf)
        value, target = found.tensor(name), merged.tensor(name)
        remerged = layers.merged(module, {leaf: value})[leaf]
        again.see(name, _excess(remerged, target, value))
    if again.excess > recipe.tolerance:
        raise AlignError(f"{again.parameter} does not merge back ({again.excess:.1e} off)")
    if recipe.base is not None:
        with open_weights(recipe.base) as base:
            for name in sorted(set(base.keys) & set(found.keys)):
                original, value = base.tensor(name), found.tensor(name)
                from_base.see(name, _excess(value.float(), original, merged.tensor(name)))
                exact += int((original.to(value.dtype) == value).sum())
                total += value.numel()
        if from_base.excess > recipe.tolerance:
            raise AlignError(
                f"merged - adapter is not the base: {from_base.parameter} is {from_base.excess:.1e} of its "
                "largest entry off, beyond rounding",
                where=f"base = {recipe.base}",
                fix="another adapter was merged, or into another base, or it was merged twice: "
                "`align merge --verify` tells",
            )
        say(f"  the base came back: {exact / total:.2%} of the weights bit for bit, the rest nearly")
    return {
        "weights": len(adapted),
        "remerged_excess": again.excess,
        "base_excess": from_base.excess if recipe.base is not None else None,
        "exact_share": exact / total if total else None,
    }


def _excess(value: torch.Tensor, wanted: torch.Tensor, other: torch.Tensor) -> float:
    """How far `value` is from `wanted` beyond one rounding of each of `wanted` and `other`, as a share of the
    largest entry."""
    unit = ROUNDING[str(other.dtype)]
    allowed = unit * (wanted.float().abs() + other.float().abs()) * 1.001
    beyond = (value.float() - wanted.float()).abs() - allowed
    return max(0.0, float(beyond.max())) / max(float(wanted.float().abs().max()), 1e-30)
