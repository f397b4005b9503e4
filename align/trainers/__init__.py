"""Trainers that compute what TRL's do, with less work.

Nothing here knows of files: stages read rows and write folders, trainers train. The names below are
imported when they are asked for, since they bring torch along.

dpo_trainer.py        `SharedPrefixDPOTrainer`: `[prompt | chosen | rejected]`
sft_trainer.py        `SharedImageSFTTrainer`: one picture and its questions in a row
objective_trainer.py  DPO with an objective of several terms
objectives/           the terms
shared_row.py         the layout: segments, positions, masks
shared_forward.py     the model's forward over it
sharing.py            when sequences may share their prefix, in words
self_check.py         the shared row against two rows, on a real batch
pair_collator.py      preference pairs -> batches
answer_labels.py      the loss where a processor does not tell where images grew
token_scores.py       per-token log-probs of answers
image_negatives.py    worse versions of a row's image
image_features.py     what a vision encoder gives, by image
feature_store.py      frozen features, once an image
reference_store.py    the reference's log-probs, once a pair
content.py            digests of what such a number depends on

Inside:

sft_collator.py       SFT rows -> batches
objective_collator.py a pair batch with what the terms need
image_sampler.py      rows of one picture land in one batch
attention.py          shared rows behind transformers' attention interface
flex.py               the same by FlexAttention
last_layer.py         the last layer, only where it is read
linear_attention.py   branches that begin with the state of their prefix
log_prob_head.py      log-probs without logits of all tokens
parameter_rates.py    learning rates for parts of a model
remembered.py         stores in the trainer's way
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
    from align.trainers.sft_trainer import SharedImageSFTTrainer
    from align.trainers.sharing import SharingConfig

__all__ = ["SharedImageSFTTrainer", "SharedPrefixDPOTrainer", "SharingConfig"]

_MODULES = {
    "SharedImageSFTTrainer": "align.trainers.sft_trainer",
    "SharedPrefixDPOTrainer": "align.trainers.dpo_trainer",
    "SharingConfig": "align.trainers.sharing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
