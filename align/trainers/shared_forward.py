"""The model's forward over shared rows, under TRL's fused LM head.

`accept_shared_rows(model)` teaches a model that TRL has given its fused head one more keyword:
`model(..., labels=labels, fused_lm_head=True, shared_row=row)` then returns what separate rows give,
`[S, L-1]` per field (S = 2B for pairs), from one pass over the row. Inside:

1. images are encoded once, without autograd where nothing of tower and connector trains, outside the
   checkpointed decoder; a second forward over the same row (the reference) takes the same features;
2. positions are those of the separate sequences: a branch goes on at max(prefix positions) + 1, which
   under mRoPE is not the number of prefix tokens;
3. softmax layers attend as the row says (`attention`), linear-attention layers begin each branch with the
   prefix's state (`linear_attention`);
4. the last layer is computed where it is read (`last_layer`), and the backbone gives back the hidden
   states that predict a scored token; only those meet the head.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer.utils import FusedCausalLMOutput

from align.progress import say
from align.trainers.attention import Method, use_shared_rows
from align.trainers.image_features import ImageFeatures, image_features
from align.trainers.last_layer import trim_last_layer
from align.trainers.linear_attention import share_states
from align.trainers.log_prob_head import score
from align.trainers.remembered import remembered_features
from align.trainers.shared_row import SharedRow, array_places

# Config entries by which a decoder changes its logits; TRL's head knows them, ours does not.
_LOGIT_TRANSFORMS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
# Under this name a row's memo holds the store of image features, if there is one.
FEATURE_STORE = "feature store"


def accept_shared_rows(model: PreTrainedModel, method: Method = "auto") -> None:
    """Give `model` the keyword `shared_row`; without it nothing changes.

    Args:
        model: the model itself, not its PEFT wrapper, after TRL's `add_fused_lm_head`.
        method: how attention is computed, see `align.trainers.attention`.
    """
    use_shared_rows(model, method)
    share_states(model.get_decoder())
    trim_last_layer(model.get_decoder())
    backbone, holder = cast(Any, model.base_model), cast(Any, model)
    backbone.register_forward_hook(_keep_predictors, with_kwargs=True)
    # Attributes, not a closure: a deep copy of the model then calls itself and not the original.
    holder.two_row_forward = model.forward
    holder.vision_trains = vision_trains(model)
    holder.adapter_layers = tuple(m for m in model.modules() if isinstance(m, BaseTunerLayer))[:1]

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, shared_row: SharedRow | None = None, **kwargs: Any) -> Any:
        if shared_row is None:
            return self.two_row_forward(*args, **kwargs)
        if not kwargs.get("fused_lm_head"):
            return self.two_row_forward(**two_row_inputs(self, kwargs))
        inputs = row_inputs(self, shared_row, kwargs)
        scored: Any
        if _has_own_head(self):
            scored = _score(self, shared_row, inputs)
        else:
            scored = self.two_row_forward(**inputs, shift_labels=shared_row.targets[None], fused_lm_head=True)
        count = kwargs.get("num_items_in_batch")
        scored.loss = -scored.log_probs.sum() / (max(1, len(shared_row.targets)) if count is None else count)
        return _scatter(scored, shared_row, kwargs["labels"].shape)

    holder.forward = types.MethodType(forward, model)


def vision_trains(model: PreTrainedModel) -> bool:
    """Whether anything in front of the decoder trains: tower, connector, or an adapter on them."""
    backbone: Any = model.base_model
    decoder: Any = model.get_decoder()
    decoding = {id(parameter) for parameter in decoder.parameters()}
    return any(p.requires_grad and id(p) not in decoding for p in backbone.parameters())


def row_inputs(model: Any, row: SharedRow, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for the fused forward of `model` over the row alone.

    Args:
        model: with `vision_trains` set.
        row: on the model's device.
        batch: the batch's entries; the inputs of `get_image_features` are read, once per group.
    """
    inputs: dict[str, Any] = {
        "input_ids": row.input_ids,
        # Four dimensions: models pass such a mask on as it is, and the attention over rows ignores it.
        "attention_mask": row.input_ids.new_ones(1, 1, 1, 1),
        "position_ids": positions(model, row, batch.get("image_grid_thw")),
        "use_cache": False,
        "shared_row": row,
    }
    features = _image_features(model, row, batch)
    if features is not None:
        inputs["mm_encoder_outputs"] = {"image": features}
    return inputs


def two_row_inputs(model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch as TRL would have made it: images repeated, for the chosen and for the rejected rows."""
    repeated = {
        name: torch.cat([batch[name]] * 2, dim=_image_dimension(name, batch))
        for name in _image_inputs(model)
        if name in batch
    }
    return {**batch, **repeated}


def _image_dimension(name: str, batch: Mapping[str, Any]) -> int:
    """Along which images follow one another: the first, but MiniCPM-V writes all patches into one row."""
    return -1 if name == "pixel_values" and "target_sizes" in batch else 0


def positions(model: Any, row: SharedRow, image_grid_thw: Tensor | None) -> Tensor:
    """Position ids of the row: `[1, N]`, or `[3, 1, N]` for mRoPE with images in the row.

    Under mRoPE an image of h x w tokens advances the positions by max(h, w) only, so a branch starts
    at the largest position of its prefix plus one, on all three axes.
    """
    backbone = model.base_model
    if row.modality is None or image_grid_thw is None or not hasattr(backbone, "get_rope_index"):
        return row.index
    prefixes = [slice(span.start, span.start + span.prefix) for span in row.spans]
    ids, kinds, mask = (
        pad_sequence([source[prefix] for prefix in prefixes], batch_first=True)
        for source in (row.input_ids[0], row.modality, torch.ones_like(row.modality))
    )
    found, _ = backbone.get_rope_index(
        ids, mm_token_type_ids=kinds, image_grid_thw=image_grid_thw, attention_mask=mask
    )
    placed = row.index.expand(3, 1, -1).clone()
    for number, span in enumerate(row.spans):
        own = found[:, number, : span.prefix]
        start = span.start + span.prefix
        placed[:, 0, span.start : start] = own
        if span.prefix:
            placed[:, 0, start : span.stop] += own.max() + 1 - span.prefix
    return placed


def _image_features(model: Any, row: SharedRow, batch: Mapping[str, Any]) -> Any:
    """What the vision encoder makes of the batch's images; once per row unless it trains."""
    if batch.get("pixel_values") is None:
        return None
    memo = ("image features", id(model))
    if memo in row.memo:
        return row.memo[memo]
    inputs = {name: batch[name] for name in _image_inputs(model) if name in batch}

    @functools.cache
    def encode() -> ImageFeatures:
        with torch.set_grad_enabled(torch.is_grad_enabled() and model.vision_trains):
            return image_features(model.base_model.get_image_features(**inputs, return_dict=True))

    if model.vision_trains:
        return encode()
    row.memo[memo] = _remembered(row, encode, batch["pixel_values"]) or encode()
    return row.memo[memo]


def _remembered(row: SharedRow, encode: Callable[[], ImageFeatures], pixels: Tensor) -> ImageFeatures | None:
    """Features from the row's store; None without one, or where features cannot be kept by image."""
    store = row.memo.get(FEATURE_STORE)
    if store is None or row.images is None:
        return None
    images = [image for own in row.images for image in own]
    kept = remembered_features(store, images, encode, pixels)
    if kept is None:
        _say_once("  the feature store is not used: this family's features cannot be taken apart by image")
    return kept


@functools.cache
def _say_once(words: str) -> None:
    say(words)


@functools.cache
def _image_inputs_of(kind: type) -> tuple[str, ...]:
    function = getattr(kind, "get_image_features", None)
    if function is None:
        return ()
    return tuple(name for name in inspect.signature(function).parameters if name not in ("self", "kwargs"))


def _image_inputs(model: Any) -> tuple[str, ...]:
    """The batch's entries that the family's vision encoder reads, first dimension images or patches."""
    return _image_inputs_of(type(model.base_model))


def _has_own_head(model: Any) -> bool:
    """Whether `log_prob_head` serves: a plain frozen head where TRL's has no kernel of its own."""
    head, text = model.get_output_embeddings(), model.config.get_text_config()
    kinds = (nn.Parameter, FakeTensor)  # neither quantised nor sharded; fake ones predict memory
    plain = type(head) is nn.Linear and type(head.weight) in kinds and not head.weight.requires_grad
    plain = plain and not hasattr(head.weight, "ds_id")  # sharded by DeepSpeed
    is_scaled = any(getattr(text, name, None) for name in _LOGIT_TRANSFORMS)
    return plain and not is_scaled and not _use_triton(head.weight.device)


def _score(model: Any, row: SharedRow, inputs: dict[str, Any]) -> FusedCausalLMOutput:
    """TRL's fused forward with our head; the reference's statistics are not computed, nobody reads them."""
    hidden = model.base_model(**inputs).last_hidden_state[0]
    head = model.get_output_embeddings()
    is_reference = any(layer.disable_adapters for layer in model.adapter_layers)
    scores = score(hidden, head.weight, head.bias, row.targets, with_statistics=not is_reference)
    fields = {name: value[None] for name, value in scores._asdict().items() if value is not None}
    return FusedCausalLMOutput(**fields, label_mask=torch.ones_like(row.targets[None], dtype=torch.bool))


def _keep_predictors(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook: of `[1, N, H]` hidden states only the `[1, T, H]` that predict a scored token."""
    row = kwargs.get("shared_row")
    if row is not None:
        output.last_hidden_state = output.last_hidden_state[:, row.predictors]
    return output


def _scatter(scored: Any, row: SharedRow, shape: torch.Size) -> Any:
    """`[1, T]` fields to the `[S, L-1]` of the batch's rows."""
    places = tuple(place.to(scored.log_probs.device) for place in array_places(row))
    fields = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")
    for name in fields:
        value = getattr(scored, name)
        if value is not None:
            setattr(scored, name, value.new_zeros(shape[0], shape[1] - 1).index_put(places, value[0]))
    return scored
