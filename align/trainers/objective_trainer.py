"""SharedPrefixDPOTrainer with an objective of several terms.

TRL's preference losses and metrics stay TRL's. They are given weighted log-probs where the objective
weighs tokens, and a beta for each pair where it has one; the other terms are added to the loss they
return. Each image negative costs one more forward of policy and reference, over the chosen answers
alone; a reference store spares the reference's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from align.errors import AlignError
from align.trainers.dpo_trainer import SharedPrefixDPOTrainer, pair_collator, unwrapped
from align.trainers.objective_collator import Extras, Negative, ObjectiveCollator
from align.trainers.objectives.objective import Objective, Scoring, negative_scoring
from align.trainers.objectives.recipe import Conditional, ObjectiveSection
from align.trainers.objectives.terms import Branch, Pair
from align.trainers.remembered import LogProbLookup, RememberedReference
from align.trainers.shared_forward import FEATURE_STORE
from align.trainers.token_scores import Scored, answers_of, model_inputs, realigned, scored

_STATE = "objective"


class ObjectiveDPOTrainer(SharedPrefixDPOTrainer):
    """DPO with an objective's terms.

    Args:
        args, kwargs: `SharedPrefixDPOTrainer`'s.
        objective: the terms; None is TRL's preference loss alone.

    Raises:
        AlignError: terms that cannot be combined with TRL's options or with the data collator.
    """

    def __init__(self, *args: Any, objective: ObjectiveSection | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        section = objective or ObjectiveSection()
        _check(section, self.loss_types, self.use_weighting)
        gather: Any = self.accelerator.gather  # its stubs know of nested batches too
        self.objective = Objective(section, gather=gather)
        self.loss_weights = [weight * section.preference_weight for weight in self.loss_weights]
        self.add_callback(_AtCheckpoints(self))
        if section.is_plain:
            return
        own: Any = self.data_collator
        model: Any = self.model
        pairs = own if self.shares else pair_collator(own, model.config, None)
        if pairs is None or getattr(self.args, "truncation_mode", "keep_start") == "keep_end":
            raise AlignError(
                "an objective needs TRL's own data collator, truncating at the end",
                fix="leave data_collator and trainer.truncation_mode alone",
            )
        self.data_collator = ObjectiveCollator(
            pairs, Objective(section), self.args.seed, self.processing_class
        )

    def _compare_paths(self) -> None:
        with_extras = self.data_collator
        self.data_collator = getattr(with_extras, "pairs", with_extras)
        try:
            super()._compare_paths()
        finally:
            self.data_collator = with_extras

    def store_counts(self) -> dict[str, dict[str, int]]:
        """Hits and misses of each store in use, by its name."""
        stores = {"reference": self._reference_store, "features": self._feature_store}
        return {name: {"hits": store.hits, "misses": store.misses} for name, store in stores.items() if store}

    def flush_stores(self) -> None:
        """Make what the stores hold durable."""
        for store in (self._reference_store, self._feature_store):
            if store is not None:
                store.flush()

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        if self.objective.section.is_plain:
            return super()._compute_loss(model, inputs, return_outputs)
        extras: Extras = inputs["extras"]
        batch = {name: value for name, value in inputs.items() if name != "extras"}
        scoring = self.objective.pair_scoring()
        asked = self._inputs(batch)
        reference = self._reference(asked, scoring)
        sums = self._sums(_weighted(reference, extras.weights), batch["completion_mask"]).chunk(2)
        policy = _Policy(model, extras.weights, scoring)
        betas = self.objective.betas(float(self.beta), extras.gaps)
        known = {"ref_chosen_logps": sums[0], "ref_rejected_logps": sums[1]}
        known["completion_mask"] = batch["completion_mask"]
        del asked["labels"]
        with self._as_precomputed(betas):
            result = super()._compute_loss(policy, {**asked, **known}, return_outputs)
        loss, rest = (result[0], result[1:]) if return_outputs else (result, ())
        mask = batch["completion_mask"][:, 1:].bool()
        loss = loss + self._terms(model, extras, policy.logps, reference, mask, betas)
        return (loss, *rest) if return_outputs else loss

    def _terms(
        self,
        model: Any,
        extras: Extras,
        policy: Tensor,
        reference: Tensor,
        mask: Tensor,
        betas: Tensor,
    ) -> Tensor:
        """The weighted sum of the objective's other terms, a scalar; logs each term's mean."""
        weights = mask.float() if extras.weights is None else extras.weights
        parts = (values.chunk(2) for values in (policy, reference, mask, weights))
        chosen, rejected = (Branch(*own) for own in zip(*parts, strict=True))
        negatives = {
            name: self._negative(model, self.objective.conditional[name], negative, chosen)
            for name, negative in extras.negatives.items()
        }
        total, means = self.objective.losses(Pair(chosen, rejected, negatives, betas))
        mode = "train" if model.training else "eval"
        gather: Any = self.accelerator.gather
        for name, mean in means.items():
            self._metrics[mode][f"terms/{name}"].append(gather(mean).mean().item())
        return total

    def _negative(self, model: Any, settings: Conditional, negative: Negative, chosen: Branch) -> Branch:
        """The chosen answers scored for worse images, under policy and reference, in `chosen`'s places."""
        scoring = negative_scoring(settings)
        worse = self._inputs(negative.worse)
        own = None if negative.own is None else self._inputs(negative.own)
        answers = answers_of(own or worse).chunk(2)[0]
        policy, reference = (
            realigned(logps.chunk(2)[0], answers, chosen.mask)
            for logps in (scored(model, worse, scoring, own), self._reference(worse, scoring, own))
        )
        return replace(chosen, policy=policy, reference=reference)

    @torch.no_grad()
    def _reference(
        self, inputs: dict[str, Any], scoring: Scoring, own: dict[str, Any] | None = None
    ) -> Tensor:
        """Log-probs of the reference, `[2B, L-1]`, from the store where it has them."""
        with self._reference_model() as model:
            asked: Any = Scored(model, scoring, inputs if own else None)
            layout = own or inputs
            row = layout.get("shared_row")
            if self._reference_store is not None and row is not None:
                asked = RememberedReference(asked, _Named(self._reference_store, scoring))
                if own is not None:
                    both = zip(row.images, inputs["shared_row"].images, strict=True)
                    layout = {**layout, "shared_row": replace(row, images=tuple(a + b for a, b in both))}
            width = layout["labels"].shape[1] - 1
            return asked(**layout, fused_lm_head=True).log_probs[:, -width:].float()

    @contextmanager
    def _reference_model(self) -> Iterator[Any]:
        """What TRL takes for the reference: a model of its own, else the policy's with its adapter off."""
        model: Any = self.model
        kwargs: Any = self.args.gradient_checkpointing_kwargs
        with disable_gradient_checkpointing(model, kwargs):
            if self.ref_model is not None:
                yield self.ref_model
                return
            adapted = self.accelerator.unwrap_model(self.model)
            with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
                yield self.model

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.shares and self._feature_store is not None:
            batch["shared_row"].memo[FEATURE_STORE] = self._feature_store
        return model_inputs(unwrapped(self.accelerator.unwrap_model(self.model)), batch, self.shares)

    def _sums(self, logps: Tensor, completion_mask: Tensor) -> Tensor:
        """Sums over tokens, `[2B]`; with `ld_alpha` as TRL's `compute_ref_log_probs` takes them."""
        if self.ld_alpha is None:
            return logps.sum(dim=1)
        mask = completion_mask[:, 1:]
        shared = torch.minimum(*mask.sum(dim=1).chunk(2)).repeat(2)
        is_tail = mask.cumsum(dim=1) > shared[:, None]
        return (logps * torch.where(is_tail, self.ld_alpha, 1.0)).sum(dim=1)

    @contextmanager
    def _as_precomputed(self, betas: Tensor) -> Iterator[None]:
        """TRL's loss takes the reference's sums from its inputs, and has a beta for each pair."""
        before = self.beta, self.precompute_ref_logps
        self.precompute_ref_logps = True
        if self.objective.section.pair_beta is not None:
            self.beta = betas
        try:
            yield
        finally:
            self.beta, self.precompute_ref_logps = before


class _Policy:
    """The policy as TRL's loss calls it: keeps its log-probs, and gives back the weighted ones."""

    def __init__(self, model: Any, weights: Tensor | None, scoring: Scoring) -> None:
        self._model, self._weights = model, weights
        self._scored = Scored(model, scoring)
        self.logps = torch.empty(0)

    def __call__(self, **inputs: Any) -> Any:
        if not inputs.get("fused_lm_head"):
            return self._model(**inputs)
        outputs = self._scored(**inputs)
        self.logps = outputs.log_probs[:, 1 - inputs["labels"].shape[1] :]
        outputs.log_probs = _weighted(self.logps, self._weights)
        return outputs


class _Named:
    """A reference store whose keys also say what is scored."""

    def __init__(self, store: LogProbLookup, scoring: Scoring) -> None:
        self.get, self.put = store.get, store.put
        self._key, self._scoring = store.key, scoring

    def key(
        self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], images: Sequence[str]
    ) -> str:
        """The store's own key of the answers' own tokens, another one for others."""
        marks = () if self._scoring == "label" else (f"scored: {self._scoring}",)
        return self._key(prompt_ids, completions, (*images, *marks))


class _AtCheckpoints(TrainerCallback):
    """Before a checkpoint: its state gets the objective's running mean, and the stores become durable.

    A resumed run then finds everything that the steps before its checkpoint have computed, as an
    uninterrupted one does.
    """

    def __init__(self, trainer: ObjectiveDPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the checkpoint's mean, if there is one."""
        saved = state.stateful_callbacks.get(_STATE)
        if saved:
            self._trainer.objective.restore(saved)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint, if this step has one, is written after this."""
        state.stateful_callbacks[_STATE] = self._trainer.objective.state()
        if control.should_save:
            self._trainer.flush_stores()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """For the runs to come."""
        self._trainer.flush_stores()


def _check(section: ObjectiveSection, loss_types: list[str], use_weighting: bool) -> None:
    """Refuse what cannot be combined.

    Raises:
        AlignError: names both.
    """
    sorting = {"aot", "aot_unpaired"} & set(loss_types)
    if section.pair_beta is not None and sorting:
        raise AlignError(
            f"objective.pair_beta with trainer.loss_type {sorted(sorting)[0]}: it sorts the pairs of a batch",
            fix="take one of the two out",
        )
    if section.token_weights is not None and "sft" in loss_types:
        raise AlignError(
            "objective.token_weights with trainer.loss_type sft: TRL would weigh the likelihood's tokens too",
            fix="use objective.sft instead, which does not",
        )
    if section.token_weights is not None and use_weighting:
        raise AlignError(
            "objective.token_weights with trainer.use_weighting: its weights need the plain log-probs",
            fix="take one of the two out",
        )


def _weighted(logps: Tensor, weights: Tensor | None) -> Tensor:
    return logps if weights is None else logps * weights
