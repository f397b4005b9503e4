"""Combine several LoRA adapters of one base into one, each with its weight.

Writes `adapter/`, an adapter like any other (merge it, serve it, train on from it), and in it
`combination.json`: which adapters, of which digests, with which weights. PEFT's `add_weighted_adapter` does
the arithmetic, by its own names, on the base's skeleton: no weights of the base are loaded.

  align combine model=assets/base adapters.a.path=runs/a/sft/adapter adapters.b.path=runs/b/sft/adapter \\
    adapters.a.weight=0.7 adapters.b.weight=0.3 run_dir=runs/ab

With D the update of an adapter (B A, scaled) and w its weight:

  cat          the sum of w D exactly; its rank is the sum of the ranks
  svd          the same sum, cut to `svd_rank` by singular values
  linear       combines the factors, (sum of sqrt(w) B)(sum of sqrt(w) A): cheap, and not the sum of w D
  ties, dare_linear, dare_ties, magnitude_prune    on the factors, after pruning to `density`
  ties_svd, dare_linear_svd, dare_ties_svd, magnitude_prune_svd    on the updates, cut by singular values

The manifest tells how far the result is from the sum of w D, whatever was asked for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, Strict
from align.digest import digest_path
from align.errors import AlignError
from align.merging.adapter_layers import AdapterLayers, put_on
from align.models.adapter_folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_RECORD,
    Adapter,
    check_plain,
    module_of,
    read_adapter,
)
from align.models.checkpoint_weights import open_weights
from align.progress import say
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage

if TYPE_CHECKING:
    import torch

COMBINATION = "combination.json"
_COMBINED = "combined"
_CHAT_TEMPLATE = "chat_template.jinja"

Combination = Literal[
    "cat",
    "svd",
    "linear",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_ties",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
]


class WeightedAdapter(Strict):
    """One of the adapters."""

    path: Path = Field(description="the adapter's folder")
    weight: float = Field(default=1.0, description="its weight; negative takes its effect away")


class Recipe(StageRecipe):
    """The recipe of `align combine`."""

    name: str = Field(default="combine", description="folder inside run_dir")
    model: Path = Field(description="the base's checkpoint folder, the same for all adapters")
    adapters: dict[str, WeightedAdapter] = Field(
        min_length=2, description="name -> path and weight, two at least"
    )
    combination_type: Combination = Field(default="cat", description="how; `align combine --help` says what")
    svd_rank: int | None = Field(
        default=None, ge=1, description="rank of the *svd results; null: the largest of the adapters'"
    )
    density: float | None = Field(
        default=None, gt=0, le=1, description="share of entries kept by ties, dare and magnitude_prune"
    )
    majority_sign_method: Literal["total", "frequency"] = Field(
        default="total", description="how ties elect an entry's sign"
    )

    @model_validator(mode="after")
    def _keys_that_matter(self) -> Recipe:
        prunes = self.combination_type.startswith(("ties", "dare", "magnitude"))
        if prunes and self.density is None:
            raise ValueError(f"combination_type {self.combination_type} needs density, such as 0.5")
        if self.density is not None and not prunes:
            raise ValueError(f"combination_type {self.combination_type} prunes nothing: leave density out")
        if self.svd_rank is not None and not self.combination_type.endswith("svd"):
            raise ValueError(f"combination_type {self.combination_type} takes no svd_rank")
        return self


def run(recipe: Recipe) -> RunFolder:
    """Combine and save.

    Raises:
        AlignError: adapters of different bases or kinds, or a combination that PEFT refuses.
    """
    inputs: dict[str, str | Path] = {"model": recipe.model}
    inputs |= {f"adapters.{name}": item.path for name, item in recipe.adapters.items()}
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    adapters = {name: read_adapter(item.path) for name, item in recipe.adapters.items()}
    for adapter in adapters.values():
        check_plain(adapter, "combining")
    base = _one_base(recipe, adapters)
    with open_weights(recipe.model) as weights:
        layers = put_on(weights, adapters)
        _add(recipe, layers)
        distance = _distance_to_sum(recipe, layers)
        tensors = _tensors(layers)
    say(f"  {recipe.combination_type} of {len(adapters)} adapters: {distance:.2e} from the sum of w D")
    out = folder.work / ADAPTER
    shutil.rmtree(out, ignore_errors=True)
    _save(out, recipe, adapters, tensors, base)
    metrics = {"distance_to_weighted_sum": distance, "tensors": len(tensors), "adapters": len(adapters)}
    return Done(metrics, f"align merge (adapter: {folder.final / ADAPTER})")


def _one_base(recipe: Recipe, adapters: dict[str, Adapter]) -> dict[str, str]:
    """The record of the base that all of them were trained on, as far as they tell."""
    given = digest_path(recipe.model)
    for name, adapter in adapters.items():
        if adapter.base and adapter.base["digest"] != given:
            raise AlignError(
                f"adapter {name!r} was trained on another base ({adapter.base['path']})",
                where=f"model = {recipe.model}",
                fix="updates of different bases don't add up; combine adapters of one checkpoint",
            )
        if named := adapter.config.get("target_parameters"):
            raise AlignError(
                f"adapter {name!r} adapts single parameters ({', '.join(sorted(named))}), whose factors PEFT "
                "would mix across experts",
                where=str(adapter.path / ADAPTER_CONFIG),
                fix="merge it, and train the other on the merged checkpoint",
            )
        if adapter.config.get("modules_to_save") or adapter.config.get("bias", "none") != "none":
            raise AlignError(
                f"adapter {name!r} replaces whole parameters (modules_to_save, bias), which have no sum",
                where=str(adapter.path / ADAPTER_CONFIG),
                fix="merge it instead",
            )
    quantized = {adapter.quantization for adapter in adapters.values()}
    if len(quantized) > 1:
        raise AlignError(
            f"the adapters were trained on one base at different precision: {', '.join(sorted(quantized))}",
            fix="their updates belong to different weights; combine those of one quantisation",
        )
    return {"path": str(recipe.model), "digest": given, "quantization": quantized.pop()}


def _add(recipe: Recipe, layers: AdapterLayers) -> None:
    import torch

    torch.manual_seed(recipe.seed)  # dare drops entries at random
    more: dict[str, Any] = {}
    if recipe.density is not None:
        more = {"density": recipe.density, "majority_sign_method": recipe.majority_sign_method}
    try:
        layers.peft_model.add_weighted_adapter(
            adapters=list(recipe.adapters),
            weights=[item.weight for item in recipe.adapters.values()],
            adapter_name=_COMBINED,
            combination_type=recipe.combination_type,
            svd_rank=recipe.svd_rank,
            svd_full_matrices=False,
            **more,
        )
    except ValueError as error:
        raise AlignError(
            f"PEFT refuses to combine: {error}",
            where=f"combination_type = {recipe.combination_type}",
            fix="adapters of different ranks or of different modules go together by cat or svd",
        ) from error


def _distance_to_sum(recipe: Recipe, layers: AdapterLayers) -> float:
    """|result - sum of w D| / |sum of w D| over all modules, Frobenius."""
    off = size = 0.0
    layer: Any  # BaseTunerLayer knows nothing of LoRA
    for layer in layers.modules.values():
        total: Any = 0.0
        for name, item in recipe.adapters.items():
            if name in layer.scaling:
                total = total + item.weight * layer.get_delta_weight(name)
        off += float((_update(layer) - total).square().sum())
        size += float(total.square().sum())
    return (off / size) ** 0.5 if size else 0.0


def _update(layer: Any) -> torch.Tensor:
    """The combined update. PEFT keeps the first adapter's `use_rslora` and sets alpha to the rank, which
    would scale an rsLoRA's result by sqrt(rank); its factors hold all of the scaling, so it is 1."""
    layer.scaling[_COMBINED] = 1.0
    return layer.get_delta_weight(_COMBINED)


def _tensors(layers: AdapterLayers) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(layers.peft_model, adapter_name=_COMBINED, save_embedding_layers=False)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _save(
    out: Path,
    recipe: Recipe,
    adapters: dict[str, Adapter],
    tensors: dict[str, torch.Tensor],
    base: dict[str, str],
) -> None:
    from safetensors.torch import save_file

    out.mkdir(parents=True)
    save_file(tensors, out / ADAPTER_WEIGHTS, {"format": "pt"})
    # The ranks as they are, module by module: where components have ranks of their own, PEFT's config of a
    # combination would be wrong for all but the largest.
    ranks = {
        module_of(name): tensor.shape[0]
        for name, tensor in tensors.items()
        if name.endswith(("lora_A.weight", "lora_embedding_A"))
    }
    rank = max(ranks.values())
    other = {module.replace(".", r"\."): value for module, value in sorted(ranks.items()) if value != rank}
    first = next(iter(adapters.values())).config
    config = {
        **first,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted(ranks),
    }
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (out / BASE_RECORD).write_text(json.dumps(base, indent=1) + "\n", encoding="utf-8")
    provenance = {
        "combination_type": recipe.combination_type,
        "svd_rank": recipe.svd_rank,
        "density": recipe.density,
        "majority_sign_method": recipe.majority_sign_method,
        "seed": recipe.seed,
        "adapters": {
            name: {
                "path": str(adapter.path),
                "digest": digest_path(adapter.path),
                "weight": recipe.adapters[name].weight,
            }
            for name, adapter in adapters.items()
        },
    }
    (out / COMBINATION).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    _keep_template(out, adapters)


def _keep_template(out: Path, adapters: dict[str, Adapter]) -> None:
    """The chat template that the adapters were trained with, which must be one."""
    given = {
        name: (adapter.path / _CHAT_TEMPLATE).read_text(encoding="utf-8")
        for name, adapter in adapters.items()
        if (adapter.path / _CHAT_TEMPLATE).is_file()
    }
    if len(set(given.values())) > 1 or 0 < len(given) < len(adapters):
        raise AlignError(
            f"the adapters were trained with different chat templates ({', '.join(given)} brought one)",
            fix="combine adapters of one template",
        )
    for text in list(given.values())[:1]:
        (out / _CHAT_TEMPLATE).write_text(text, encoding="utf-8")
