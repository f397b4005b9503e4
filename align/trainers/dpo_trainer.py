"""TRL's DPOTrainer over shared rows: `[prompt | chosen | rejected]`, vision once, head where it counts.

    trainer = SharedPrefixDPOTrainer(model=model, args=DPOConfig(...), train_dataset=pairs,
                                     processing_class=processor, peft_config=lora)

TRL computes policy and reference over `[prompt chosen]` and `[prompt rejected]`: each image is
preprocessed twice and encoded four times, each prompt read four times. Here both models read one row a
pair and one encoding serves both. Losses, metrics, callbacks and checkpoints are TRL's own; only what
`model(..., fused_lm_head=True)` does is replaced (`align.trainers.shared_forward`). DPO: Rafailov et
al., 2023. The shared prefix for preference pairs: Wang and Hegde, 2024, "Accelerating Direct Preference
Optimization with Prefix Sharing".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from accelerate.utils import DistributedType, send_to_device
from trl.trainer.dpo_trainer import (
    DataCollatorForPreference,
    DataCollatorForVisionPreference,
    DPOTrainer,
)

from align.inputs.trained_text import renders_apart
from align.progress import say
from align.trainers.content import pixels_digest
from align.trainers.pair_collator import PairCollator, ServedPairs
from align.trainers.parameter_rates import ParameterRates
from align.trainers.remembered import ImageStore, LogProbStore, RememberedReference
from align.trainers.self_check import check_against_two_rows
from align.trainers.shared_forward import FEATURE_STORE, accept_shared_rows
from align.trainers.shared_row import SharedRow
from align.trainers.sharing import SharingConfig, obstacles

_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
_CHECKED_PAIRS = 2


class SharedPrefixDPOTrainer(ParameterRates, DPOTrainer):
    """TRL's DPOTrainer, same arguments, `learning_rate_of` and `sharing`.

    Where a condition of `align.trainers.sharing` fails, or the data collator is not TRL's own, it says
    which one and trains on TRL's two rows.

    Args:
        args, kwargs: TRL's.
        sharing: how prefixes are shared.
        reference_store: keeps the reference's log-probs of each pair; unused where nothing is shared, and
            where weights are sharded over processes.
        feature_store: keeps the vision features of each image; unused where nothing is shared, and
            where something of tower or connector trains.
        image_digest: of an image's pixels, for the stores' keys.

    Attributes:
        obstacles: why nothing is shared, in words; empty where it is, or where it is switched off.
        shares: whether prefixes are shared.

    Raises:
        AlignError: in `train`, before anything is trained: the two paths differ.
    """

    def __init__(
        self,
        *args: Any,
        sharing: SharingConfig | None = None,
        reference_store: LogProbStore | None = None,
        feature_store: ImageStore | None = None,
        image_digest: Callable[[Any], str] = pixels_digest,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sharing = sharing or SharingConfig()
        self.obstacles: list[str] = []
        self._reference_store, self._feature_store = reference_store, feature_store
        digest = image_digest if reference_store or feature_store else None
        self.shares = self.sharing.mode != "off" and self._share(digest)
        collator: Any = self.data_collator
        if type(collator) is DataCollatorForVisionPreference and renders_apart(collator.processor):
            self.data_collator = ServedPairs(**vars(collator))
        if not self.shares and (reference_store or feature_store):
            say("  without shared prefixes nothing is stored: every step computes the reference")
            self._reference_store = self._feature_store = None
        if self._reference_store and self.accelerator.distributed_type in _SHARDED:
            # one process finds its pairs where another must compute, and their forwards are one
            say("  the reference store is not used: the weights are sharded")
            self._reference_store = None

    def _share(self, image_digest: Callable[[Any], str] | None) -> bool:
        """Put the shared rows in place, or say why not."""
        self.obstacles = obstacles(self.model, self.args)
        trained: Any = self.model
        collator = pair_collator(self.data_collator, trained.config, image_digest)
        if collator is None:
            self.obstacles.append("the data collator is not TRL's own")
        if self.obstacles:
            say("  two rows a pair, nothing shared: " + "; ".join(self.obstacles))
            return False
        self.data_collator = collator
        for model in (self.model, self.ref_model):
            if model is not None:
                accept_shared_rows(unwrapped(self.accelerator.unwrap_model(model)), self.sharing.attention)
        return True

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's, which tokenizes, unless the dataset holds token ids already."""
        if "prompt_ids" in (getattr(dataset, "column_names", None) or ()):
            return dataset
        return super()._prepare_dataset(dataset, *args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, after a comparison of both paths on the first pairs."""
        if self.shares and self.sharing.self_check:
            self._compare_paths()
        return super().train(*args, **kwargs)

    def _prepare_input(self, data: Any) -> Any:
        """The trainer's, which moves tensors only, and the row."""
        if isinstance(data, SharedRow) and data.input_ids.device != self.args.device:
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        if not self.shares:
            return super()._compute_loss(model, inputs, return_outputs)
        if self._feature_store is not None:
            inputs["shared_row"].memo[FEATURE_STORE] = self._feature_store
        if self._reference_store is None or self.precompute_ref_logps:
            return super()._compute_loss(model, inputs, return_outputs)
        reference = RememberedReference(self.ref_model or self.model, self._reference_store)
        chosen, rejected = self.compute_ref_log_probs(reference, inputs)
        self.precompute_ref_logps = True  # TRL then reads the batch's own
        try:
            known = {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            return super()._compute_loss(model, known, return_outputs)
        finally:
            self.precompute_ref_logps = False

    def _compare_paths(self) -> None:
        """Stop where shared rows and separate ones differ on the first two pairs."""
        if self.accelerator.distributed_type in _SHARDED:
            say("  shared rows are not compared with separate ones: the weights are sharded")
            return
        collate: Any = self.data_collator
        batch = collate(list(islice(iter(self.train_dataset), _CHECKED_PAIRS)))
        model = unwrapped(self.accelerator.unwrap_model(self.model))
        check_against_two_rows(model, send_to_device(batch, model.device))


def unwrapped(model: Any) -> Any:
    """The model itself, without its PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def pair_collator(collator: Any, config: Any, digest: Callable[[Any], str] | None) -> PairCollator | None:
    """Ours with the settings of TRL's own; None for any other."""
    if type(collator) is DataCollatorForPreference:
        return PairCollator(collator)
    if type(collator) is not DataCollatorForVisionPreference:
        return None
    tokenizer: Any = getattr(collator.processor, "tokenizer", None)
    two_rows = DataCollatorForPreference(
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        max_length=collator.max_length,
        pad_to_multiple_of=collator.pad_to_multiple_of,
    )
    return PairCollator(two_rows, collator.processor, getattr(config, "image_token_id", None), digest)
