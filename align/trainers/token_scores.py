"""Per-token log-probs of a pair batch, `[2B, L-1]`, of the answers' own tokens or of others in their place.

The released code of two papers scores, at each position, the token that the model finds likeliest
instead of the answer's (see `RetrievedImage` and `NoisyImage`). The head then gets those tokens as its
targets; what the model reads stays the answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align.errors import AlignError
from align.trainers.objectives.objective import Scoring
from align.trainers.shared_forward import two_row_inputs
from align.trainers.shared_row import array_places

_NOT_READ = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")


def model_inputs(model: Any, batch: dict[str, Any], shares: bool) -> dict[str, Any]:
    """Keyword arguments for a fused forward over the batch: the shared row, or TRL's two rows.

    Args:
        model: the model itself, without wrappers.
        batch: as `PairCollator`'s.
        shares: whether the model has learnt to read shared rows.
    """
    inputs = {name: value for name, value in batch.items() if name not in _NOT_READ}
    if not shares:
        inputs.pop("shared_row")
        inputs = two_row_inputs(model, inputs)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return {**inputs, "use_cache": False, "labels": labels}


def with_targets(inputs: dict[str, Any], targets: Tensor) -> dict[str, Any]:
    """The same inputs with other tokens scored.

    Args:
        inputs: as `model_inputs` gives them.
        targets: `[2B, L-1]` token ids; only positions of answers are read.
    """
    labels = inputs["labels"].clone()
    answers = labels[:, 1:] != -100
    labels[:, 1:][answers] = targets[answers]
    changed = {**inputs, "labels": labels}
    row = inputs.get("shared_row")
    if row is not None:
        changed["shared_row"] = replace(row, targets=targets[array_places(row)])
    return changed


def rescored(model: Any, inputs: dict[str, Any], scoring: Scoring) -> dict[str, Any]:
    """The inputs with the answers' own tokens scored, or the likeliest ones of some or all answers."""
    if scoring == "label":
        return inputs
    targets = likeliest_tokens(model, inputs)
    if scoring == "rejected":
        half = len(targets) // 2
        targets = torch.cat([inputs["labels"][:half, 1:], targets[half:]])
    return with_targets(inputs, targets)


def scored(model: Any, inputs: dict[str, Any], scoring: Scoring, own: dict[str, Any] | None = None) -> Tensor:
    """Log-probs as `scoring` says, `[2B, L-1]` of `inputs`, or of `own` where that is given.

    Args:
        own: inputs of the same answers with the row's own images, for `crossed`.
    """
    layout = own or inputs
    width = layout["labels"].shape[1] - 1
    asked = Scored(model, scoring, inputs if own else None)
    return asked(**layout, fused_lm_head=True).log_probs[:, -width:]


class Scored:
    """A model whose fused forward scores other tokens than the answers' own.

    Args:
        scoring: which.
        worse: for `crossed`, inputs of the same answers with other images, in which the tokens are found.
    """

    def __init__(self, model: Any, scoring: Scoring, worse: dict[str, Any] | None = None) -> None:
        self._model, self._worse = model, worse
        self._scoring: Scoring = scoring

    def __call__(self, **inputs: Any) -> Any:
        """The fused forward's outputs."""
        inputs.pop("fused_lm_head", None)
        if self._worse is None:
            asked = rescored(self._model, inputs, self._scoring)
        else:
            found = likeliest_tokens(self._model, self._worse)
            asked = with_targets(inputs, realigned(found, answers_of(self._worse), answers_of(inputs)))
        return self._model(**asked, fused_lm_head=True)


def answers_of(inputs: dict[str, Any]) -> Tensor:
    """Where answers stand, `[2B, L-1]` bool."""
    return inputs["labels"][:, 1:] != -100


def realigned(values: Tensor, answers: Tensor, wanted: Tensor) -> Tensor:
    """Values at `answers`, moved to `wanted`: the same answers behind prompts of other lengths.

    Raises:
        AlignError: an answer has another length, cut off because its prompt is longer.
    """
    if not torch.equal(answers.sum(dim=1), wanted.sum(dim=1)):
        raise AlignError(
            "an answer is cut shorter with another image than with its own",
            fix="raise trainer.max_length, or use smaller rejected_images",
        )
    return values.new_zeros(wanted.shape).masked_scatter(wanted, values[answers])


@torch.no_grad()
def likeliest_tokens(model: Any, inputs: dict[str, Any]) -> Tensor:
    """The most probable token at every position, `[2B, L-1]`; takes the logits of all of them at once."""
    plain = {name: value for name, value in inputs.items() if name != "labels"}
    width = inputs["labels"].shape[1] - 1
    return model(**plain).logits[:, -width - 1 : -1].argmax(dim=-1)
