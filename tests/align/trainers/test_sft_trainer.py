"""Shared images in SFT: the same loss and gradients as TRL's separate rows, the picture read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.align.adapter_folders import lora_targets
from tests.twins import Twins

SHARING = [
    "llava",
    "llava_next",
    "llava_onevision",
    "internvl",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_5",
    "qwen3_vl_moe",
    "qwen3_5_moe",
    "idefics3",
    "gemma3",
]
QUESTIONS = ["What is this?", "Is there a cat in the picture? Look closely.", "How many dogs do you see?"]
ANSWERS = ["A small red ball.", "No, there is no cat, and no dog either.", "Three."]


def _picture(seed: int, size: tuple[int, int] = (48, 70)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def _row(
    question: str, answer: str, pictures: Sequence[Image.Image] = (), more: bool = False
) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if more:
        turns += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes, I am."}]
    return {"images": list(pictures), "messages": turns}


def _rows() -> list[dict[str, Any]]:
    """Two pictures with three questions each, mixed, one of them over two turns; one row of words alone."""
    first, second = _picture(0), _picture(1, (64, 40))
    rows = []
    for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        rows.append(_row(question, answer, [first], more=number == 1))
        rows.append(_row(question, answer[::-1], [second]))
    return [*rows[:3], _row("Say yes.", "Yes."), *rows[3:]]


def _trainer(
    checkpoint: Path,
    out: Path,
    rows: list[dict[str, Any]] | None = None,
    kind: Any = None,
    components: Sequence[Any] = ("language",),
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    """A trainer on fp32 weights with a random adapter, the same for the same arguments."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl.trainer.sft_config import SFTConfig

    from align.trainers.sft_trainer import SharedImageSFTTrainer

    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    model.requires_grad_(False)
    target = lora_targets(model, list(components))
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 7,
        "assistant_only_loss": True,
        "max_length": None,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "router_aux_loss_coef": 0.0,
        **changes,
    }
    return (kind or SharedImageSFTTrainer)(
        model=model,
        args=SFTConfig(output_dir=str(out), **settings),
        train_dataset=Dataset.from_list(rows or _rows()),
        processing_class=AutoProcessor.from_pretrained(checkpoint),
        peft_config=LoraConfig(r=4, target_modules=target, init_lora_weights=False),
        **(options or {}),
    )


def _loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import torch

    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    items = batch["labels"][:, 1:].ne(-100).sum()
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items)
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    found = zip(trained, gradients, strict=True)
    return loss.detach(), {name: gradient for name, gradient in found if gradient is not None}


def _assert_alike(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-4) -> None:
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        size = float(gradient.norm())
        assert size > 0, name
        assert float((ours[name] - gradient).norm()) <= tolerance * size, name


@pytest.mark.parametrize("name", SHARING)
def test_loss_and_gradients_are_those_of_separate_rows(twins: Twins, name: str, tmp_path: Path) -> None:
    trainer = _trainer(twins(name), tmp_path)
    assert trainer.shares, trainer.obstacles
    examples = [trainer.train_dataset[number] for number in range(7)]
    batch = trainer.data_collator(examples)
    assert [len(span.branches) for span in batch["shared_row"].spans] == [3, 3, 1]
    separate = trainer.data_collator.separate(examples)
    assert sorted(map(tuple, separate["labels"].tolist())) == sorted(map(tuple, batch["labels"].tolist()))
    loss, gradients = _loss_and_gradients(trainer, batch)
    wanted, wanted_gradients = _loss_and_gradients(trainer, separate)
    assert abs(float(loss - wanted)) < 1e-5
    _assert_alike(gradients, wanted_gradients)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_5", "idefics3", "gemma3", "internvl"])
def test_pictures_inside_the_text_and_after_an_answer(twins: Twins, name: str, tmp_path: Path) -> None:
    """Rows whose pictures stand in the text, in a later turn, and beside a turn that is not learnt."""
    one, other = {"type": "image"}, _picture(2, (40, 56))
    first = _picture(0)
    inside = [{"type": "text", "text": "Is "}, one, {"type": "text", "text": " older than "}, one]
    later = [{"type": "text", "text": "And this? "}, one]
    rows: list[dict[str, Any]] = [_row("", answer, [first, other]) for answer in ANSWERS[:2]]
    for row in rows:
        row["messages"][0]["content"] = inside
    for answer in ANSWERS[1:]:
        row = _row("What is this?", "A ball.", [first, other], more=True)
        row["messages"][0]["content"] = [one, {"type": "text", "text": "What is this?"}]
        row["messages"][2]["content"] = later
        row["messages"][3]["content"] = answer
        rows.append(row)
    rows.append(_row("What is this?", "A ball.", [first], more=True))
    rows[-1]["messages"][1]["loss"] = False
    trainer = _trainer(twins(name), tmp_path, [_as_text(row) for row in rows])
    assert trainer.shares, trainer.obstacles
    batch = trainer.data_collator(rows)
    assert [len(span.branches) for span in batch["shared_row"].spans] == [2, 1, 1, 1]
    separate = trainer.data_collator.in_group_order(rows)
    assert batch["labels"].tolist() == separate["labels"].tolist()
    loss, gradients = _loss_and_gradients(trainer, batch)
    wanted, wanted_gradients = _loss_and_gradients(trainer, separate)
    assert abs(float(loss - wanted)) < 1e-5
    _assert_alike(gradients, wanted_gradients)


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with plain turns: TRL looks at the first one, Arrow knows no list of texts and parts."""
    return {**row, "messages": [{"role": turn["role"], "content": "-"} for turn in row["messages"]]}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_5"])
def test_gradients_reach_a_tower_and_connector_that_train(twins: Twins, name: str, tmp_path: Path) -> None:
    trainer = _trainer(twins(name), tmp_path, components=("vision", "connector", "language"))
    examples = [trainer.train_dataset[number] for number in range(7)]
    _, gradients = _loss_and_gradients(trainer, trainer.data_collator(examples))
    _, wanted = _loss_and_gradients(trainer, trainer.data_collator.separate(examples))
    _assert_alike(gradients, wanted)
    assert any("vision" in key or "visual" in key for key in gradients)


@pytest.mark.parametrize("name", ["base", "qwen2_5_vl", "gemma3"])
def test_each_step_of_three_epochs_is_trls(
    base_checkpoint: Path, twins: Twins, name: str, tmp_path: Path
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    from align.trainers.image_sampler import SharedImageSampler

    rows = [row for seed in range(3) for row in _rows_of_one_picture(seed)] + [_row("Say yes.", "Yes.")]
    keys = [*(seed for seed in range(3) for _ in QUESTIONS), None]

    class InOurOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SharedImageSampler(keys, 4, seed=self.args.seed)

    checkpoint = base_checkpoint if name == "base" else twins(name)
    # Adam would blow up the rounding of near-zero gradients
    settings: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.05, "max_steps": -1, "num_train_epochs": 3}
    settings["per_device_train_batch_size"] = 4
    logs = []
    for kind, options in (("ours", {"image_keys": keys}), ("trl", None)):
        chosen = InOurOrder if kind == "trl" else None
        trainer = _trainer(checkpoint, tmp_path / kind, rows, chosen, options=options, **settings)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
    ours, theirs = logs
    assert len(ours) == len(theirs) == 9
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
        assert mine["num_tokens"] == wanted["num_tokens"]
        assert mine["entropy"] == pytest.approx(wanted["entropy"], abs=1e-4)
        assert mine["mean_token_accuracy"] == pytest.approx(wanted["mean_token_accuracy"], abs=1e-6)
    assert sum(entry["loss"] for entry in theirs[-3:]) < sum(entry["loss"] for entry in theirs[:3])


def _rows_of_one_picture(seed: int) -> list[dict[str, Any]]:
    picture = _picture(seed)
    return [_row(*words, [picture]) for words in zip(QUESTIONS, ANSWERS, strict=True)]


def test_the_tower_reads_a_picture_once_a_step_even_with_checkpointing(twins: Twins, tmp_path: Path) -> None:
    read: list[tuple[int, bool]] = []

    def note(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        pixels = kwargs.get("pixel_values", args[0] if args else None)
        read.append((len(pixels), output.last_hidden_state.requires_grad))

    trainer = _trainer(twins("llava"), tmp_path, gradient_checkpointing=True, max_steps=2)
    trainer.sharing = type(trainer.sharing)(self_check=False)
    trainer.model.get_base_model().model.vision_tower.register_forward_hook(note, with_kwargs=True)
    trainer.train()
    assert read == [(2, False), (2, False)]  # two pictures, seven rows, a step each


def test_a_run_resumed_within_an_epoch_is_the_undisturbed_one(twins: Twins, tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model_state_dict

    rows = [row for seed in range(4) for row in _rows_of_one_picture(seed)]
    options = {"image_keys": [seed for seed in range(4) for _ in QUESTIONS]}
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 3,
        "max_steps": 7,
        "save_strategy": "steps",
        "save_steps": 6,
    }
    found = []
    for start in (None, str(tmp_path / "checkpoint-6")):  # four steps an epoch: 6 is in the second
        trainer = _trainer(twins("qwen2_vl"), tmp_path, rows, options=options, **settings)
        trainer.train(resume_from_checkpoint=start)
        found.append((get_peft_model_state_dict(trainer.model), trainer.state.log_history))
    for name, weight in found[0][0].items():
        assert torch.equal(weight, found[1][0][name]), name
    losses = [[entry["loss"] for entry in history if "loss" in entry] for _, history in found]
    assert losses[0] == losses[1]


def test_where_nothing_can_be_shared_it_says_why_and_trains(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from align.trainers.sharing import SharingConfig

    trainer = _trainer(twins("llava"), tmp_path, assistant_only_loss=False, max_steps=1)
    assert not trainer.shares
    assert "assistant_only_loss is off" in capsys.readouterr().out
    assert isinstance(trainer.data_collator, DataCollatorForVisionLanguageModeling)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0
    capsys.readouterr()
    off = _trainer(twins("llava"), tmp_path, options={"sharing": SharingConfig(mode="off")})
    assert not off.shares
    assert not off.obstacles
    assert capsys.readouterr().out == ""


def test_a_broken_mask_stops_training_before_the_first_step(
    twins: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.errors import AlignError
    from align.trainers.shared_row import SharedRow

    monkeypatch.setattr(
        SharedRow, "_mask", lambda self, span, window: _causal_only(self, span)
    )  # branches see each other
    trainer = _trainer(twins("llava"), tmp_path)
    with pytest.raises(AlignError, match="shared rows differ from separate ones"):
        trainer.train()
    assert trainer.state.global_step == 0


def _causal_only(row: Any, span: Any) -> Any:
    import torch

    return torch.ones(span.length, span.length, dtype=torch.bool).tril()
