"""Vision features kept between checks, and questions of alike length together: same answers, less work."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from align.dev_check.answering import Answerer
from align.dev_check.asked import read_asked
from align.dev_check.cost import Cost, plan_in_words, question_lengths
from align.dev_check.kept_features import KeptFeatures, Room
from align.dev_check.recipe import DevSection
from align.models.loading import ModelSection, load_model, load_processor
from align.rows.schema import Message
from tests.twins import IMAGE_TWINS, Twins


class Alone:
    """One process without autocast."""

    num_processes, process_index = 1, 0

    def autocast(self) -> Any:
        return nullcontext()


def answerer(world: Path, folder: Path, batch_size: int = 3) -> tuple[Answerer, Any]:
    base = ModelSection(path=str(folder), dtype="float32")
    processor = load_processor(base)
    instances = world / "annotations" / "instances_dev.json"
    section = DevSection(instances=instances, prefix="dev/", max_new_tokens=5, num_pictures=5)
    asked = read_asked(section, world / "images", processor)
    longer = Message(role="user", content="Describe the image, and all that is to be seen in it.")
    asked = [replace(item, messages=(longer,)) if n % 2 else item for n, item in enumerate(asked)]
    lengths = question_lengths(asked, processor, world / "images")
    model: Any = load_model(base)
    return Answerer(asked, processor, world / "images", lengths, batch_size), model.requires_grad_(False)


@pytest.mark.parametrize("family", IMAGE_TWINS)
def test_kept_features_give_the_same_tokens(twins: Twins, tiny_world: Path, family: str) -> None:
    """BLIP-2 generates by a path of its own, where nothing is kept: as exact, and no faster."""
    ours, model = answerer(tiny_world, twins(family))
    assert len(ours.batches) == 2
    first = ours.answers(model, Alone())
    features = ours.features
    encoded = 0 if family == "blip-2" else 2
    assert features is not None and features.encoded == encoded
    assert ours.answers(model, Alone()) == first
    assert features.encoded == encoded
    ours.features = None
    assert ours.answers(model, Alone()) == first


def test_a_tower_that_trains_is_asked_at_each_check(twins: Twins, tiny_world: Path) -> None:
    ours, model = answerer(tiny_world, twins("llava"))
    before = ours.answers(model, Alone())
    assert ours.features is not None
    kept = ours.features.encoded
    parameter = next(model.model.multi_modal_projector.parameters())
    parameter.requires_grad_(True)
    with torch.no_grad():
        for weight in model.model.multi_modal_projector.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    after = ours.answers(model, Alone())
    assert ours.features.encoded == kept and after != before
    assert "get_image_features" not in vars(model.model)


def test_without_room_nothing_is_kept(twins: Twins, tiny_world: Path) -> None:
    ours, model = answerer(tiny_world, twins("llava"))
    ours.features = KeptFeatures(Room(0))
    first = ours.answers(model, Alone())
    assert ours.answers(model, Alone()) == first
    assert ours.features.encoded == 4


def test_questions_of_alike_length_are_answered_together(twins: Twins, tiny_world: Path) -> None:
    ours, _ = answerer(tiny_world, twins("llava"), batch_size=2)
    assert sorted(place for batch in ours.batches for place in batch) == list(range(5))
    assert [[place % 2 for place in batch] for batch in ours.batches] == [[0, 0], [0, 1], [1]]


def test_what_checks_cost_is_said_beforehand() -> None:
    section = DevSection(instances=Path("x.json"))
    cheap, dear, dearest = Cost(1.0, 1.0), Cost(1.0, 40.0), Cost(1.0, 500.0)
    assert plan_in_words(section, cheap, 100, 10) == "8 checks, by an estimate 1% of the run"
    room = "A larger share, fewer questions, shorter answers or a longer run allow more"
    assert plan_in_words(section, dear, 100, 10) == (
        f"4 checks, by an estimate 14% of the run; of 8 asked for dev.share_of_time = 15% pays for 4. {room}"
    )
    assert plan_in_words(section, dearest, 100, 10) == (
        "3 checks, by an estimate 60% of the run; of 8 asked for dev.share_of_time = 15% pays for 0, and "
        f"fewer than 3 are never made. {room}"
    )
    by_hand = section.model_copy(update={"every": 50})
    assert plan_in_words(by_hand, dearest, 100, 10) == "3 checks, by an estimate 60% of the run"
    assert plan_in_words(section, cheap, 3, 100) == "4 checks, by an estimate 1% of the run"
