"""TRL's SFTTrainer over shared rows: `[prefix | row | row ...]`, one picture and its questions in a row.

    trainer = SharedImageSFTTrainer(model=model, args=SFTConfig(assistant_only_loss=True, ...),
                                    train_dataset=rows, processing_class=processor, peft_config=lora,
                                    image_keys=[path of each row's picture])

Visual instruction data asks many questions about one picture (VQAv2: five and more), and TRL preprocesses
it, encodes it and reads it through the decoder once a question. Here a batch does so once a picture: its
rows see one prefix, and only hidden states that predict a token of an answer meet the LM head. Rows a
step, the loss (a mean over answer tokens), metrics and checkpoints are TRL's own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from accelerate.utils import DistributedType, send_to_device
from transformers import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling, SFTTrainer

from align.errors import AlignError
from align.inputs.trained_text import renders_apart
from align.progress import say
from align.trainers.answer_labels import AnswerCollator, answer_collator
from align.trainers.image_sampler import SharedImageSampler
from align.trainers.linear_attention import keeps_a_state
from align.trainers.parameter_rates import ParameterRates
from align.trainers.self_check import check_alike
from align.trainers.sft_collator import SharedImageCollator
from align.trainers.shared_forward import accept_shared_rows
from align.trainers.sharing import SharingConfig, obstacles

_CHECKED_ROWS = 6


class SharedImageSFTTrainer(ParameterRates, SFTTrainer):
    """TRL's SFTTrainer, same arguments, `learning_rate_of`, `sharing` and `image_keys`.

    Where a condition of `align.trainers.sharing` fails, or the loss is not on answers alone, it says
    which one and trains as TRL does.

    Args:
        args, kwargs: TRL's.
        sharing: how prefixes are shared.
        image_keys: per row of the training set, what tells its images (their paths, say), None for a
            row without; rows of one key are then read into the same batch. Without it rows come in
            TRL's order and share what they happen to.

    Attributes:
        obstacles: why nothing is shared, in words; empty where it is, or where it is switched off.
        shares: whether prefixes are shared.

    Raises:
        AlignError: rows in one sequence, in a model that keeps a state.
    """

    def __init__(
        self,
        *args: Any,
        sharing: SharingConfig | None = None,
        image_keys: Sequence[Hashable | None] | None = None,
        **kwargs: Any,
    ) -> None:
        with _labelled_here(kwargs.get("processing_class"), kwargs.get("args")) as changed:
            super().__init__(*args, **kwargs)
        self.sharing = sharing or SharingConfig()
        self.image_keys = image_keys
        self.obstacles: list[str] = []
        self.shares = False
        _refuse_one_sequence(self)
        self.data_collator = answer_collator(self.data_collator, **changed)
        if self.sharing.mode == "off":
            return
        self.obstacles = [*obstacles(self.model, self.args), *_sft_obstacles(self)]
        if self.obstacles:
            say("  one row a question, nothing shared: " + "; ".join(self.obstacles))
            return
        self.shares = True
        self.data_collator = SharedImageCollator(self.data_collator)
        accept_shared_rows(_model_of(self), self.sharing.attention)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, after a comparison of both paths on the first rows."""
        if self.shares and self.sharing.self_check:
            self._compare_paths()
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = self._image_sampler()
        if sampler is None:
            return super()._get_train_sampler(train_dataset)
        self.add_callback(_EpochOnResume(sampler))
        return sampler

    def _image_sampler(self) -> SharedImageSampler | None:
        if not self.shares or self.image_keys is None or self.args.train_sampling_strategy != "random":
            return None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return SharedImageSampler(self.image_keys, self._train_batch_size, seed)

    def _compare_paths(self) -> None:
        if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            say("  shared rows are not compared with separate ones: the weights are sharded")
            return
        dataset: Any = self.train_dataset
        model = _model_of(self)
        order = self._image_sampler() or range(len(dataset))
        examples = [dataset[number] for number in islice(order, _CHECKED_ROWS)]
        shared, separate = (
            send_to_device(collate(examples), model.device)
            for collate in (self.data_collator, self.data_collator.in_group_order)
        )
        check_alike(model, shared, separate, lambda log_probs: -log_probs.sum())


@contextmanager
def _labelled_here(processor: Any, args: Any) -> Iterator[dict[str, Any]]:
    """While TRL sets up: it asks for generation markers in the template, which are not needed where the
    template knows thoughts. Gives the collator's fields that this changes."""
    if args is None or not args.assistant_only_loss or not renders_apart(processor):
        yield {}
        return
    args.assistant_only_loss = False
    try:
        yield {"assistant_only_loss": True}
    finally:
        args.assistant_only_loss = True


class _EpochOnResume(TrainerCallback):
    """accelerate tells the sampler each new epoch, but not, with several processes, the one resumed in."""

    def __init__(self, sampler: SharedImageSampler) -> None:
        self._sampler = sampler

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


def _model_of(trainer: Any) -> Any:
    """The model itself, without its PEFT wrapper."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _refuse_one_sequence(trainer: Any) -> None:
    """Rows end by their positions alone there, which softmax attention reads and a state does not.

    Raises:
        AlignError: the model keeps a state, and its rows would stand in one sequence.
    """
    if trainer.padding_free and keeps_a_state(_model_of(trainer)):
        raise AlignError(
            "rows in one sequence: a state that the model keeps would run from one row into the next",
            where="trainer.packing, trainer.padding_free",
            fix="leave both out",
        )


def _sft_obstacles(trainer: SFTTrainer) -> list[str]:
    args: Any = trainer.args
    found = []
    if not trainer._is_vision_dataset:
        found.append("the rows have no images")
    elif type(trainer.data_collator) not in (DataCollatorForVisionLanguageModeling, AnswerCollator):
        found.append("the data collator is not TRL's own")
    if not args.assistant_only_loss:
        found.append("assistant_only_loss is off: the loss is on the shared tokens too")
    if args.label_smoothing_factor or trainer.compute_loss_func or trainer.compute_metrics:
        found.append("label smoothing, compute_loss_func and compute_metrics read the logits of all tokens")
    return found
