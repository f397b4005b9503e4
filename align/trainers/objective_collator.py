"""Batches for `ObjectiveDPOTrainer`: a pair batch, and beside it what an objective's terms need.

    batch = {..., "extras": Extras}      # ... as PairCollator's

Everything that is made of a row's text and pictures is made here, in the loader's processes: token
weights, score gaps, and the image negatives with their own `[prompt' | chosen]` rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from align.errors import AlignError
from align.inputs.chat import tokenizer_of
from align.trainers.image_negatives import image_negative
from align.trainers.objectives.objective import Objective, negative_scoring
from align.trainers.objectives.recipe import Conditional, TokenWeights
from align.trainers.objectives.token_weights import pair_weights, span_weights
from align.trainers.pair_collator import PairCollator, pictures_of, texts_of

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Negative:
    """The chosen answers with worse images, each batch as `PairCollator.chosen_alone` makes it.

    Attributes:
        worse: with the negative images.
        own: with the row's own, where tokens found with the worse ones are scored with these.
    """

    worse: dict[str, Any]
    own: dict[str, Any] | None


@dataclass(frozen=True)
class Extras:
    """What a batch of B pairs carries for the objective.

    Attributes:
        gaps: between the scores of chosen and rejected, `[B]`; 0 where the row has none.
        weights: of the tokens, `[2B, L-1]`, 0 outside the answers; None is 1 for all.
        negatives: by term name.
    """

    gaps: Tensor
    weights: Tensor | None
    negatives: dict[str, Negative]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Extras:
        """On another device; `accelerate` calls this for what a batch holds."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: moved(item) for key, item in value.items()}
            return value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value

        negatives = {
            name: Negative(moved(negative.worse), moved(negative.own))
            for name, negative in self.negatives.items()
        }
        return replace(self, gaps=moved(self.gaps), weights=moved(self.weights), negatives=negatives)


class ObjectiveCollator:
    """Collates examples with `id`, `spans`, `margin` and `rejected_images` where the objective uses them.

    Args:
        pairs: the collator of the pairs themselves.
        objective: whose negatives and token weights are made.
        seed: of the negatives; with a row's id it fixes them.
        processor: renders and tokenizes the answers; the tokenizer of a text-only model.
    """

    def __init__(self, pairs: PairCollator, objective: Objective, seed: int, processor: Any) -> None:
        self.pairs = pairs
        self.processor = processor
        self.objective = objective
        self.seed = seed

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch.

        Raises:
            AlignError: spans that cannot be found in the rendered answer; a retrieved negative without
                `rejected_images`.
        """
        batch = self.pairs(examples)
        batch["extras"] = Extras(
            gaps=torch.tensor([float(example.get("margin") or 0.0) for example in examples]),
            weights=self._weights(examples, batch),
            negatives={
                name: self._negative(examples, settings)
                for name, settings in self.objective.conditional.items()
            },
        )
        return batch

    def _weights(self, examples: list[dict[str, Any]], batch: dict[str, Any]) -> Tensor | None:
        settings = self.objective.section.token_weights
        if settings is None:
            return None
        pairs = [
            self._pair_weights(example, chosen, rejected, settings)
            for example, chosen, rejected in zip(examples, *answer_ids(batch), strict=True)
        ]
        mask = batch["completion_mask"]
        weights = torch.zeros(mask.shape[0], mask.shape[1] - 1)
        answers = [pair[side] for side in range(2) for pair in pairs]
        for row, (own, values) in enumerate(zip(mask[:, 1:].bool(), answers, strict=True)):
            weights[row, own] = torch.tensor(values)
        return weights

    def _pair_weights(
        self, example: dict[str, Any], chosen: list[int], rejected: list[int], settings: TokenWeights
    ) -> tuple[list[float], list[float]]:
        spans = example.get("spans") or {}
        is_marked = any(spans.get(side) for side in SIDES)
        if not is_marked and settings.end == 1:
            return pair_weights(chosen, rejected, settings)
        texts = texts_of(self.processor, example, pictures_of(example))
        places = [
            self._offsets(example, side, texts[side], ids)
            for side, ids in zip(SIDES, (chosen, rejected), strict=True)
        ]
        counts = [_num_words(example, side, found) for side, found in zip(SIDES, places, strict=True)]
        if not is_marked:
            return pair_weights(chosen, rejected, settings, (counts[0], counts[1]))
        first, second = (
            span_weights(found, _spans(spans, side), settings.variant, count, settings.end)
            for side, found, count in zip(SIDES, places, counts, strict=True)
        )
        return first, second

    def _offsets(
        self, example: dict[str, Any], side: str, text: str, ids: list[int]
    ) -> list[tuple[int, int]]:
        """Where each token stands in the answer's own words; the template's tokens lie outside of them."""
        start = text.find(_words(example, side))
        tokenizer = tokenizer_of(self.processor)
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if start < 0 or found["input_ids"][: len(ids)] != ids:
            raise AlignError(
                f"cannot place the spans of the {side} answer: the chat template changes its words",
                where=f"row {example.get('id')}",
                fix="take the row's spans out; its answers are then compared with each other",
            )
        return [(first - start, last - start) for first, last in found["offset_mapping"][: len(ids)]]

    def _negative(self, examples: list[dict[str, Any]], settings: Conditional) -> Negative:
        worse = self.pairs.chosen_alone(examples, [self._worse(example, settings) for example in examples])
        if negative_scoring(settings) != "crossed":
            return Negative(worse, None)
        return Negative(worse, self.pairs.chosen_alone(examples, list(map(pictures_of, examples))))

    def _worse(self, example: dict[str, Any], settings: Conditional) -> list[Any]:
        pictures = pictures_of(example)
        if settings.image != "retrieved":
            name = example["id"]
            return [
                image_negative(settings, picture, self.seed, name, index)
                for index, picture in enumerate(pictures)
            ]
        retrieved = list(example.get("rejected_images") or [])
        if len(retrieved) != len(pictures):
            raise AlignError(
                f"{len(retrieved)} rejected_images for {len(pictures)} images",
                where=f"row {example.get('id')}",
                fix="objective.conditional with image: retrieved needs one for each",
            )
        return retrieved


def answer_ids(batch: dict[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the chosen and of the rejected answers, as the batch has them."""
    rows = zip(batch["input_ids"], batch["completion_mask"], strict=True)
    answers = [ids[mask == 1].tolist() for ids, mask in rows]
    half = len(answers) // 2
    return answers[:half], answers[half:]


def _words(example: dict[str, Any], side: str) -> str:
    content = example[side][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _num_words(example: dict[str, Any], side: str, offsets: list[tuple[int, int]]) -> int:
    """How many of the answer's tokens stand before its words are over."""
    end = len(_words(example, side).rstrip())
    return sum(first < end for first, _ in offsets)


def _spans(spans: dict[str, Any], side: str) -> list[tuple[int, int, float]]:
    return [(span["start"], span["end"], span["weight"]) for span in spans.get(side) or []]
