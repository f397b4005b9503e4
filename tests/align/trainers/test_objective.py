"""A section becomes the weighted sum of its terms, names its negatives, and survives a checkpoint."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from align.trainers.objectives.objective import Objective, negative_scoring
from align.trainers.objectives.recipe import ObjectiveSection
from align.trainers.objectives.terms import Branch, Pair


def objective(**section: Any) -> Objective:
    return Objective(ObjectiveSection.model_validate(section))


def branch(logratio: float) -> Branch:
    """One token whose log-ratio is this; its log-prob under the policy is -1."""
    return Branch(torch.tensor([[-1.0]]), torch.tensor([[-1.0 - logratio]]), torch.tensor([[True]]))


def pair(**negatives: float) -> Pair:
    named = {name: branch(value) for name, value in negatives.items()}
    return Pair(branch(2.0), branch(-1.0), named, torch.tensor([0.5]))


def nls(value: float) -> float:
    """-log sigmoid."""
    return math.log(1 + math.exp(-value))


def test_mdpo_adds_the_image_and_the_anchor() -> None:
    total, means = objective(conditional=[{"image": "cropped"}], anchor={}).losses(pair(cropped=1.0))
    assert total.item() == pytest.approx(nls(0.5 * (2 - 1)) + nls(0.5 * 2))
    assert {name: value.item() for name, value in means.items()} == pytest.approx(
        {"cropped": nls(0.5), "anchor": nls(1.0)}
    )


def test_mpo_weighs_quality_and_likelihood() -> None:
    mpo = objective(preference_weight=0.8, quality={"weight": 0.2}, sft={"weight": 1.0})
    total, means = mpo.losses(pair())
    delta = (0.5 * 2 + 0.5 * -1) / 2
    quality = nls(1.0 - delta) + nls(-(-0.5 - delta))
    assert means["quality"].item() == pytest.approx(quality)
    assert total.item() == pytest.approx(0.2 * quality + 1.0 * 1.0)


def test_two_negatives_of_one_kind_are_two_terms() -> None:
    both = objective(conditional=[{"image": "noisy", "step": 500}, {"image": "noisy", "step": 800}])
    assert list(both.conditional) == ["noisy", "noisy_2"]
    total, _ = both.losses(pair(noisy=0.0, noisy_2=1.0))
    assert total.item() == pytest.approx(nls(1.0) + nls(0.5))


@pytest.mark.parametrize(
    ("settings", "negative", "pair_scoring"),
    [
        ({"image": "cropped"}, "label", "label"),
        ({"image": "cropped", "variant": "released"}, "label", "label"),
        ({"image": "masked"}, "label", "label"),
        ({"image": "noisy"}, "label", "label"),
        ({"image": "noisy", "variant": "released"}, "crossed", "label"),
        ({"image": "retrieved"}, "label", "label"),
        ({"image": "retrieved", "variant": "released"}, "argmax", "rejected"),
    ],
)
def test_released_code_scores_other_tokens(
    settings: dict[str, Any], negative: str, pair_scoring: str
) -> None:
    built = objective(conditional=[settings])
    assert [negative_scoring(kind) for kind in built.conditional.values()] == [negative]
    assert built.pair_scoring() == pair_scoring


def test_betas_without_and_with_gaps() -> None:
    gaps = torch.tensor([0.0, 2.0])
    assert objective().betas(0.1, gaps).tolist() == pytest.approx([0.1, 0.1])
    released = objective(pair_beta={"w": 0.5, "variant": "released"})
    assert released.betas(0.1, gaps).tolist() == pytest.approx([0.1, 0.2])


def test_the_running_mean_goes_through_a_checkpoint_exactly() -> None:
    first = objective(quality={})
    first.losses(pair())
    resumed = objective(quality={})
    resumed.restore(json.loads(json.dumps(first.state())))
    assert resumed.losses(pair())[0].item() == first.losses(pair())[0].item()
    assert resumed.state() == first.state() == {"mean": pytest.approx(0.25), "count": 2}
