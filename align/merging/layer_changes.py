"""What a merge changed, layer by layer: each tensor of a merged checkpoint against base + adapter.

For an adapted weight W, its merged form M and PEFT's update D, with Frobenius norms:

    relative_change   |M - W| / |W|
    expected_change   |D| / |W|
    applied           <M - W, D> / <D, D>   1 when the adapter is in once, 0 when it is not, 2 when twice
    rounding          |M - W - D| / |D|     what storing M in 16 bits cost of the update

M may differ from W + D by the rounding of its dtype, entry by entry, and by `tolerance` of the largest entry;
everything that no adapter touches must be the base's, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from align.errors import AlignError
from align.merging.adapter_layers import AdapterLayers, put_on
from align.merging.quantized_base import as_trained, quantized_weights
from align.models.adapter_folder import Adapter
from align.models.checkpoint_weights import CheckpointWeights, open_weights
from align.models.families import known_modules
from align.models.family import Modules
from align.progress import say
from align.serving.adapters import ignored_tensors, why_merge

if TYPE_CHECKING:
    import torch

LAYER_CHANGES = "layer_changes.json"
# Half a unit in the last place, relative: 2^-p for p bits of significand.
ROUNDING = {"torch.float32": 2.0**-24, "torch.float16": 2.0**-11, "torch.bfloat16": 2.0**-8}

Status = Literal["merged", "zero", "rounded away", "not merged", "differs"]


@dataclass(frozen=True)
class LayerChange:
    """One adapted parameter; the numbers are those above.

    Attributes:
        status: `zero` is an adapter that changes nothing; `rounded away` one whose every change is smaller
            than the dtype can hold; `not merged` has the base's weights although the adapter changes
            them; `differs` is neither base nor base + adapter.
        unchanged_entries: share of the entries that are the base's, bit for bit.
    """

    parameter: str
    component: str
    status: Status
    relative_change: float
    expected_change: float
    applied: float
    rounding: float
    unchanged_entries: float


@dataclass
class LayerChanges:
    """All of a checkpoint.

    Attributes:
        layers: every adapted parameter.
        replaced: parameters that the adapter replaces as a whole, and that hold its values.
        stray: parameters that differ from the base's though no adapter touches them.
        untouched: how many are the base's, bit for bit.
        merged_into: `original`, or the quantisation whose rounded weights the adapter was merged into.
        ignored_unmerged: component -> how many of the adapter's tensors vLLM would ignore there, were it
            served unmerged.
        why_merge: why vLLM would not serve the adapter unmerged and whole; empty when it would.
    """

    dtype: str
    merged_into: str
    layers: list[LayerChange] = field(default_factory=list[LayerChange])
    replaced: list[str] = field(default_factory=list[str])
    stray: list[str] = field(default_factory=list[str])
    untouched: int = 0
    ignored_unmerged: dict[str, int] = field(default_factory=dict[str, int])
    why_merge: str = ""

    def faults(self) -> list[str]:
        """What does not hold, in words; empty when the checkpoint is base + adapter."""
        found = []
        missing = [layer.parameter for layer in self.layers if layer.status == "not merged"]
        if missing:
            found.append(
                f"{len(missing)} of {len(self.layers)} adapted weights are the base's: {missing[:2]}"
            )
        for layer in [layer for layer in self.layers if layer.status == "differs"][:3]:
            found.append(f"{layer.parameter} is not base + adapter (applied {layer.applied:.3f} times)")
        if self.stray:
            found.append(f"{len(self.stray)} weights without an adapter changed: {self.stray[:2]}")
        return found

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        """A line for each kind of layer, and the layers that changed most."""
        kinds: dict[str, list[LayerChange]] = {}
        for layer in self.layers:
            leaf = layer.parameter.removesuffix(".weight").rsplit(".", 1)[-1]
            kinds.setdefault(f"{layer.component}: {leaf}", []).append(layer)
        say(f"  {'weights':<28} {'count':>5} {'change':>9} {'applied':>8} {'rounding':>9}  not changed")
        for kind, layers in sorted(kinds.items()):
            change, applied, lost = (
                _mean([getattr(layer, name) for layer in layers])
                for name in ("relative_change", "applied", "rounding")
            )
            still = sum(layer.unchanged_entries == 1.0 for layer in layers)
            say(f"  {kind:<28} {len(layers):>5} {change:>9.2e} {applied:>8.3f} {lost:>9.2e}  {still or ''}")
        most = sorted(self.layers, key=lambda layer: -layer.relative_change)[:3]
        say("  most changed: " + ", ".join(f"{item.parameter} {item.relative_change:.2e}" for item in most))
        say(f"  {self.untouched} other weights are the base's bit for bit; stored as {self.dtype}")
        if self.why_merge:
            say(f"  serve it merged: {self.why_merge}")


def compare(
    base: Path, merged: Path, adapter: Adapter, merged_into: str = "original", tolerance: float = 1e-5
) -> LayerChanges:
    """Every tensor of `merged` against `base` + `adapter`, one at a time, without loading a model.

    Args:
        merged_into: `original`, or `nf4` or `int8`: the base's weights rounded as in training.
        tolerance: largest difference beyond rounding, as a share of the tensor's largest entry.

    Raises:
        AlignError: not checkpoints of one model, tensors that only one of them has, an adapter of
            another model or of a method that cannot be merged.
    """
    with open_weights(base) as before, open_weights(merged) as after:
        _check_same_names(before, after)
        rounded = quantized_weights(before.model, "none" if merged_into == "original" else merged_into)
        layers = put_on(before, {"default": adapter})
        names = sorted(set(before.keys) & set(after.keys))
        changes = LayerChanges(str(after.tensor(names[0]).dtype).removeprefix("torch."), merged_into)
        ignored = ignored_tensors(adapter, before.model.config.model_type)
        changes.why_merge = why_merge(adapter, before.model.config.model_type)
        changes.ignored_unmerged = {part: len(tensors) for part, tensors in ignored.items()}
        for module, leaves in by_module(names):
            for group in layers.apart(module, leaves):
                tensors = {leaf: before.tensor(join(module, leaf)) for leaf in group}
                for leaf in group:
                    if (transposed := rounded.get(join(module, leaf))) is not None:
                        tensors[leaf] = as_trained(tensors[leaf], merged_into, transposed)
                _compare_module(changes, layers, module, tensors, after, tolerance)
    return changes


def _compare_module(
    changes: LayerChanges,
    layers: AdapterLayers,
    module: str,
    tensors: dict[str, torch.Tensor],
    after: CheckpointWeights,
    tolerance: float,
) -> None:
    import torch

    exact = layers.merged(module, tensors) if module in layers.modules else {}
    adapted = layers.adapted(module, tensors)
    modules = known_modules(after.model.config.model_type)
    for leaf, tensor in tensors.items():
        name = join(module, leaf)
        found = after.tensor(name)
        if name in layers.whole:
            kept = torch.equal(layers.whole[name].to(found.dtype), found)
            (changes.replaced if kept else changes.stray).append(name)
        elif leaf in exact and (leaf in adapted or not torch.equal(exact[leaf], tensor.float())):
            change = _layer_change(name, modules, tensor.float(), exact[leaf], found, tolerance)
            changes.layers.append(change)
        elif torch.equal(tensor.to(found.dtype), found):
            changes.untouched += 1
        else:
            changes.stray.append(name)


def _layer_change(
    name: str,
    modules: Modules | None,
    base: torch.Tensor,
    exact: torch.Tensor,
    found: torch.Tensor,
    tolerance: float,
) -> LayerChange:
    stored = found.float()
    update, change = exact - base, stored - base
    size = float(update.norm())
    unit = ROUNDING.get(str(found.dtype), 0.0)
    # One rounding of the sum, and one of the update: PEFT adds them in the base's dtype.
    allowed = unit * (exact.abs() + update.abs()) * 1.001 + tolerance * float(exact.abs().max())
    fits = bool(((stored - exact).abs() <= allowed).all())
    same = float((base.to(found.dtype) == found).float().mean())
    status: Status
    if fits:
        status = "zero" if size == 0.0 else ("rounded away" if same == 1.0 else "merged")
    else:
        status = "not merged" if same == 1.0 else "differs"
    norm = max(float(base.norm()), 1e-30)
    return LayerChange(
        parameter=name,
        component=(modules.component_of(name) if modules else None) or "model",
        status=status,
        relative_change=float(change.norm()) / norm,
        expected_change=size / norm,
        applied=float((change * update).sum()) / size**2 if size else 0.0,
        rounding=float((stored - exact).norm()) / size if size else 0.0,
        unchanged_entries=same,
    )


def _check_same_names(before: CheckpointWeights, after: CheckpointWeights) -> None:
    differing = before.names() ^ after.names()
    config = before.model.config
    if any(getattr(part, "tie_word_embeddings", False) for part in (config, config.get_text_config())):
        differing = {key for key in differing if not key.endswith("lm_head.weight")}
    if differing:
        raise AlignError(
            f"{len(differing)} tensors are in one of the checkpoints alone: {sorted(differing)[:3]}",
            where=f"{before.folder} and {after.folder}",
            fix="name two checkpoints of one model, in the same form",
        )


def by_module(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Parameter names as (module, its leaves), in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        found.setdefault(module, []).append(leaf)
    return sorted(found.items())


def join(module: str, leaf: str) -> str:
    """`module.leaf`."""
    return f"{module}.{leaf}" if module else leaf


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
