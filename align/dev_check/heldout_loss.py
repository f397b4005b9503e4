"""The loss on held-out rows in the middle of a training.

Instruction rows: minus log p of the answers' tokens, summed a row; `heldout_loss` is the mean a token. Pairs:
DPO's sigmoid loss -log s(d), d = beta ((log p_w - log p_w') - (log p_l - log p_l')) (Rafailov et al., 2023,
equation 7), whatever `trainer.loss_type` trains with; accuracy is the share of d > 0, a tie is half of one;
the margin is d. The reference p' is the policy at step 0, which in DPO here are one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from align.dev_check.answering import gathered, own_share, undisturbed
from align.dev_check.heldout import Heldout
from align.dev_check.kept_features import KeptFeatures
from align.errors import AlignError
from align.inputs.chat import sees_images
from align.inputs.training_data import lazy_dataset
from align.rows.schema import PreferenceRow
from align.trainers.dpo_trainer import unwrapped
from align.trainers.token_scores import model_inputs


class HeldoutLoss:
    """Scores the same rows at every check.

    Args:
        heldout: the rows.
        trainer: whose collator, arithmetic and beta are used.
        batch_size: rows at a time.
        features: kept from check to check; None encodes pictures each time.

    Raises:
        AlignError: a trainer that packs rows.
    """

    def __init__(
        self, heldout: Heldout[Any], trainer: Any, batch_size: int, features: KeptFeatures | None
    ) -> None:
        if getattr(trainer.args, "packing", False) or getattr(trainer.args, "padding_free", False):
            raise AlignError(
                "rows that are packed into one cannot be scored one by one",
                where="dev.heldout",
                fix="leave trainer.packing and trainer.padding_free out, or dev.heldout",
            )
        self._trainer, self._features = trainer, features
        self._are_pairs = isinstance(heldout.rows[0], PreferenceRow)
        order = sorted(range(len(heldout.rows)), key=lambda place: heldout.lengths[place])
        self._batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        processor = trainer.processing_class
        self._dataset: Any = lazy_dataset(heldout.rows, heldout.data, processor)
        if not self._are_pairs and not sees_images(processor):
            self._dataset = trainer._prepare_dataset(
                self._dataset, processor, trainer.args, False, None, "heldout"
            )

    def sums(self) -> list[dict[str, float]]:
        """Per row, in order: `logp` and `tokens` of the answer, or `chosen_logp` and `rejected_logp`.

        Each process scores its share of the batches and is given the others' sums; all must call.
        """
        accelerator = self._trainer.accelerator
        model = unwrapped(accelerator.unwrap_model(self._trainer.model))
        found: dict[int, dict[str, float]] = {}
        with undisturbed(model), torch.no_grad(), accelerator.autocast():
            for number in own_share(len(self._batches), accelerator):
                places = self._batches[number]
                if self._features is None:
                    rows = self._scored(model, places)
                else:
                    with self._features.used(model, ("heldout", number)):
                        rows = self._scored(model, places)
                found |= dict(zip(places, rows, strict=True))
        found = gathered(found, accelerator)
        return [found[place] for place in range(len(self._dataset))]

    def _scored(self, model: Any, places: Sequence[int]) -> list[dict[str, float]]:
        batch = self._collate([self._dataset[place] for place in places])
        inputs = send_to_device(self._inputs(model, batch), model.device)
        log_probs: Tensor = model(**inputs, fused_lm_head=True).log_probs.float()
        answers = inputs["labels"][:, 1:] != -100
        log_probs = log_probs[:, -answers.shape[1] :]  # without a soft prompt's virtual tokens
        sums = (log_probs * answers).sum(dim=1).tolist()
        if self._are_pairs:
            half = len(sums) // 2
            both = zip(sums[:half], sums[half:], strict=True)
            return [{"chosen_logp": chosen, "rejected_logp": rejected} for chosen, rejected in both]
        counts = answers.sum(dim=1).tolist()
        return [{"logp": own, "tokens": float(n)} for own, n in zip(sums, counts, strict=True)]

    def _collate(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        collator = self._trainer.data_collator
        if self._are_pairs:
            return dict(getattr(collator, "pairs", collator)(examples))
        return dict(getattr(collator, "separate", collator)(examples))

    def _inputs(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        if not self._are_pairs:
            return {**batch, "use_cache": False}
        if "shared_row" in batch:
            return model_inputs(model, batch, self._trainer.shares)
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        return {**batch, "use_cache": False, "labels": labels}
