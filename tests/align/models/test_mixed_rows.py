"""Rows with and without pictures in one batch: each is learnt as it is alone, in every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align import sft
from align.config.recipe import validate
from align.errors import AlignError
from align.models.loading import ModelSection, load_processor
from align.rows.schema import Message, SFTRow, write_rows
from align.show.tokens import row_tokens
from tests.align.models.test_families_matrix import Rows, pictured
from tests.twins import IMAGE_TWINS, LEAVE_OUT, Twins

__all__ = ["pictured"]
# Its image stands before all text, and its forward wants one.
NEVER_WITHOUT = ("blip-2",)


def row(row_id: str, images: list[str], question: str, answer: str) -> SFTRow:
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return SFTRow(id=row_id, images=images, messages=turns)


SEEN = row("seen", ["00.png"], "What is this?", "A small red ball.")
READ = row("read", [], "Say hello to the people.", "Hello, all of you people there on the grass.")


def first_loss(name: str, model: Path, rows: list[SFTRow], images: Path, run_dir: Path) -> float:
    write_rows(run_dir.with_suffix(".jsonl"), rows)
    values = {
        "run_dir": run_dir,
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": run_dir.with_suffix(".jsonl"), "image_root": images, "strict": True},
        "lora": {"r": 2, "leave_out": LEAVE_OUT.get(name, [])},
        "trainer": {
            "max_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-4,
            "bf16": False,
            "gradient_checkpointing": False,
        },
    }
    folder = sft.run(validate(sft.Recipe, values, where="test"))
    return json.loads((folder.final / "train_log.jsonl").read_text().splitlines()[0])["loss"]


@pytest.mark.parametrize("name", [name for name in IMAGE_TWINS if name not in NEVER_WITHOUT])
def test_a_batch_is_the_mean_of_its_rows(name: str, twins: Twins, pictured: Rows, tmp_path: Path) -> None:
    """Over learnt tokens, of which the text-only row has more."""
    assert pictured.images is not None
    model, images = twins(name), pictured.images
    processor = load_processor(ModelSection(path=str(model)))
    counts = [
        sum(token.count for token in row_tokens(one, processor, images)[0][1] if token.learnt)
        for one in (SEEN, READ)
    ]
    assert 4 < counts[0] < counts[1]
    losses = [first_loss(name, model, [one], images, tmp_path / one.id) for one in (SEEN, READ)]
    wanted = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert abs(losses[0] - losses[1]) > 1e-3
    assert first_loss(name, model, [SEEN, READ], images, tmp_path / "both") == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", NEVER_WITHOUT)
def test_a_family_that_needs_its_picture_says_so(
    name: str, twins: Twins, pictured: Rows, tmp_path: Path
) -> None:
    assert pictured.images is not None
    with pytest.raises(AlignError, match=r"no image: this family reads its image before all text"):
        first_loss(name, twins(name), [READ], pictured.images, tmp_path / "read")
