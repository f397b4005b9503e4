"""Objectives in training, on the real base: each loss against one computed from plain forwards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.nn.functional import logsigmoid

from align.errors import AlignError
from align.models.loading import ModelSection, load_model, load_processor
from align.trainers.image_negatives import image_negative
from align.trainers.objective_trainer import ObjectiveDPOTrainer
from align.trainers.objectives.recipe import ObjectiveSection
from align.trainers.objectives.token_weights import pair_weights
from align.trainers.reference_store import ReferenceStore
from align.trainers.sharing import SharingConfig
from align.training.tensor_shards import TensorShards

BETA = 0.3
ANSWERS = [("A red cat on a table.", "A dog and a red cat."), ("Two cups.", "Two cups and one spoon.")]


def picture(number: int) -> Image.Image:
    noise = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (48, 48, 3), generator=noise, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def examples() -> list[dict[str, Any]]:
    return [
        {
            "id": f"row{number}",
            "images": [picture(number)],
            "rejected_images": [picture(10 + number)],
            "prompt": [{"role": "user", "content": "Describe the image."}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "spans": {"chosen": [], "rejected": []},
            "margin": 1.5 * number,
        }
        for number, (chosen, rejected) in enumerate(ANSWERS)
    ]


@pytest.fixture(scope="module")
def processor(base_checkpoint: Path) -> Any:
    return load_processor(ModelSection(path=str(base_checkpoint)))


@pytest.fixture(scope="module")
def build(
    base_checkpoint: Path, processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ObjectiveDPOTrainer]:
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig

    def make(objective: dict[str, Any], sharing: Any = "auto", **options: Any) -> ObjectiveDPOTrainer:
        settings = {"bf16": False, "use_cpu": True, "report_to": "none", "beta": BETA, **options}
        settings |= {"remove_unused_columns": False, "disable_tqdm": True}
        settings.setdefault("output_dir", str(tmp_path_factory.mktemp("out")))
        collator = settings.pop("data_collator", None)
        store = settings.pop("reference_store", None)
        return ObjectiveDPOTrainer(
            model=load_model(ModelSection(path=str(base_checkpoint), dtype="float32")),
            args=DPOConfig(**settings),
            data_collator=collator,
            train_dataset=Dataset.from_list(examples()),
            processing_class=processor,
            peft_config=LoraConfig(r=4, target_modules=r"model\.language_model.*q_proj"),
            sharing=SharingConfig(mode=sharing, self_check=False),
            reference_store=store,
            objective=ObjectiveSection.model_validate(objective),
        )

    return make


def moved(trainer: ObjectiveDPOTrainer) -> ObjectiveDPOTrainer:
    """The same trainer with an adapter that changes what the model says."""
    noise = torch.Generator().manual_seed(5)
    model: Any = trainer.model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=noise)
    return trainer


class Plain:
    """Per-token log-probs the obvious way: one sequence, one image, all logits."""

    def __init__(self, trainer: ObjectiveDPOTrainer, processor: Any) -> None:
        self.model: Any = trainer.model
        self.processor = processor

    def ids(self, side: str, index: int) -> tuple[list[int], list[int]]:
        row = examples()[index]
        turns = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}
        ]
        answer = [{"role": "assistant", "content": [{"type": "text", "text": row[side][0]["content"]}]}]
        whole = self.processor.apply_chat_template([*turns, *answer], tokenize=False)
        prompt = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert whole.startswith(prompt)
        first = self.processor(images=row["images"], text=prompt, add_special_tokens=False)["input_ids"][0]
        rest = self.processor.tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
        return list(first), list(rest)

    def logits(self, side: str, index: int, image: Image.Image, reference: bool) -> torch.Tensor:
        prompt, answer = self.ids(side, index)
        pixels = self.processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        ids = torch.tensor([prompt + answer])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
        with torch.no_grad():
            if reference:
                with self.model.disable_adapter():
                    out = self.model(**inputs).logits
            else:
                out = self.model(**inputs).logits
        return out[0, len(prompt) - 1 : -1].log_softmax(-1)

    def logps(
        self, side: str, index: int, image: Image.Image | None = None, found_in: Image.Image | None = None
    ) -> list[torch.Tensor]:
        """[policy, reference] log-probs of the answer's tokens, or of the likeliest ones in `found_in`."""
        seen = image or examples()[index]["images"][0]
        results = []
        for reference in (False, True):
            scores = self.logits(side, index, seen, reference)
            tokens = torch.tensor(self.ids(side, index)[1])
            if found_in is not None:
                tokens = self.logits(side, index, found_in, reference).argmax(-1)
            results.append(scores.gather(1, tokens[:, None])[:, 0])
        return results

    def ratio(self, *args: Any, weights: list[float] | None = None, **options: Any) -> float:
        policy, reference = self.logps(*args, **options)
        scale = torch.ones_like(policy) if weights is None else torch.tensor(weights)
        return float(((policy - reference) * scale).sum())


def loss_of(trainer: ObjectiveDPOTrainer, gradients: bool = False) -> float:
    model: Any = trainer.model
    collate: Any = trainer.data_collator
    model.train()
    loss = trainer.compute_loss(model, trainer._prepare_inputs(collate(examples())))
    if gradients:
        loss.backward()
    return loss.item()


def nls(value: float) -> float:
    return -float(logsigmoid(torch.tensor(value, dtype=torch.float64)))


def worse(settings: Any, index: int) -> Image.Image:
    row = examples()[index]
    if settings.image == "retrieved":
        return row["rejected_images"][0]
    return image_negative(settings, row["images"][0], 42, row["id"], 0)


def expected(plain: Plain, section: ObjectiveSection) -> float:
    """The objective's loss for the two pairs, one after the other."""
    chosen, rejected, total = [], [], 0.0
    cross = any(s.image == "retrieved" and s.variant == "released" for s in section.conditional)
    for index in range(2):
        weights = (None, None)
        if section.token_weights is not None:
            weights = pair_weights(
                plain.ids("chosen", index)[1], plain.ids("rejected", index)[1], section.token_weights
            )
        found_in = examples()[index]["images"][0] if cross else None
        chosen.append(plain.ratio("chosen", index, weights=weights[0]))
        rejected.append(plain.ratio("rejected", index, found_in=found_in, weights=weights[1]))
        beta = BETA
        if section.pair_beta is not None:
            beta *= 1 + section.pair_beta.w * (1 - math.exp(-section.pair_beta.k * 1.5 * index))
        total += section.preference_weight * nls(beta * (chosen[-1] - rejected[-1]))
        for settings in section.conditional:
            image = worse(settings, index)
            released = getattr(settings, "variant", "paper") == "released"
            if released and settings.image == "noisy":
                negative = plain.ratio("chosen", index, found_in=image)
            elif released and settings.image == "retrieved":
                negative = plain.ratio("chosen", index, image=image, found_in=image)
            else:
                negative = plain.ratio("chosen", index, image=image, weights=weights[0])
            total += settings.weight * nls(beta * (chosen[-1] - negative))
        if section.anchor is not None:
            total += section.anchor.weight * nls(beta * chosen[-1] - section.anchor.delta)
        if section.sft is not None:
            total -= section.sft.weight * float(plain.logps("chosen", index)[0].mean())
    if section.quality is not None:
        delta = BETA * sum(chosen + rejected) / 4
        for good, bad in zip(chosen, rejected, strict=True):
            total += section.quality.weight * (nls(BETA * good - delta) + nls(-(BETA * bad - delta)))
    return total / 2


OBJECTIVES: dict[str, dict[str, Any]] = {
    "mdpo": {"conditional": [{"image": "cropped"}], "anchor": {"delta": 0.1}},
    "mdpo released": {"conditional": [{"image": "cropped", "variant": "released", "weight": 0.5}]},
    "mpo": {"preference_weight": 0.8, "quality": {"weight": 0.2}, "sft": {}},
    "dense, masked": {"token_weights": {"gamma": 3}, "conditional": [{"image": "masked"}], "anchor": {}},
    "dense released": {"token_weights": {"variant": "released"}},
    "beta by gap": {"pair_beta": {"w": 0.7}, "anchor": {}},
    "povid": {
        "preference_weight": 0.5,
        "conditional": [{"image": "noisy", "variant": "released", "weight": 0.5}],
    },
    "rdpo": {"conditional": [{"image": "retrieved"}]},
    "rdpo released": {"conditional": [{"image": "retrieved", "variant": "released"}]},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_the_formula_over_plain_forwards(build: Any, processor: Any, name: str) -> None:
    trainer = moved(build(OBJECTIVES[name]))
    assert trainer.shares
    wanted = expected(Plain(trainer, processor), trainer.objective.section)
    assert loss_of(trainer) == pytest.approx(wanted, abs=2e-4)


def test_two_rows_give_the_same_loss_and_gradients(build: Any) -> None:
    objective = {**OBJECTIVES["dense, masked"], "quality": {}, "sft": {"variant": "released"}}
    objective["conditional"] = [{"image": "retrieved"}, {"image": "noisy", "variant": "released"}]
    losses, gradients = [], []
    for sharing in ("auto", "off"):
        trainer = moved(build(objective, sharing))
        assert trainer.shares == (sharing == "auto")
        losses.append(loss_of(trainer, gradients=True))
        model: Any = trainer.model
        own = [p.grad for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in own]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-4


def test_spans_weigh_the_words_that_they_name(build: Any, processor: Any) -> None:
    trainer = build({"token_weights": {"variant": "released"}})
    rows = examples()
    begin = ANSWERS[0][0].index("red cat")
    rows[0]["spans"]["chosen"] = [{"start": begin, "end": begin + len("red cat"), "weight": 4.0}]
    batch = trainer.data_collator(rows)
    weights = batch["extras"].weights[0]
    heavy = processor.tokenizer.decode(batch["input_ids"][0, 1:][weights == 4.0])
    assert heavy.strip() == "red cat"
    assert set(weights.tolist()) == {0.0, 1.0, 4.0}
    others = batch["extras"].weights[1]
    assert set(others.tolist()) == {0.0, 1.0, 5.0}, "a row without spans is compared with its other side"


def test_an_answer_that_goes_on_has_no_end(build: Any, processor: Any) -> None:
    """C-DPO: what both begin with and the end of turn are left out, with spans and without."""
    trainer = build({"token_weights": {"variant": "released", "gamma": 1, "end": 0}})
    rows = examples()
    begin = ANSWERS[0][0].index("red cat")
    rows[0]["spans"] = {
        side: [{"start": 0, "end": begin - 1, "weight": 0.0}] for side in ("chosen", "rejected")
    }
    batch = trainer.data_collator(rows)
    left = [
        processor.tokenizer.decode(ids[1:][own == 1.0]).strip()
        for ids, own in zip(batch["input_ids"], batch["extras"].weights, strict=True)
    ]
    assert left[0] == ANSWERS[0][0][begin:]
    assert left[1] == ANSWERS[1][0], "a row without spans keeps all of its words"


def test_a_resumed_run_has_the_running_mean_of_an_uninterrupted_one(build: Any, tmp_path: Path) -> None:
    options = {"max_steps": 4, "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-2}
    options |= {"per_device_train_batch_size": 1, "save_strategy": "steps"}
    objective = {"quality": {}, "conditional": [{"image": "cropped"}]}
    whole = build(objective, output_dir=str(tmp_path / "whole"), **options)
    whole.train()
    saved = json.loads((tmp_path / "whole" / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["objective"]["count"] == 2
    resumed = build(objective, output_dir=str(tmp_path / "resumed"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.objective.state() == whole.objective.state()
    logs = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, resumed)]
    assert logs[0] == logs[1]
    assert "terms/cropped" in whole.state.log_history[0]


def test_a_store_keeps_the_reference_of_worse_images_too(build: Any, tmp_path: Path) -> None:
    options = {"num_train_epochs": 2, "logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "no"}
    objective = {"conditional": [{"image": "cropped"}, {"image": "retrieved", "variant": "released"}]}
    store = ReferenceStore(TensorShards(tmp_path / "store"), {})
    with_store, without = build(objective, reference_store=store, **options), build(objective, **options)
    logs = []
    for trainer in (with_store, without):
        trainer.train()
        logs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(logs[0]) == 2 and logs[0] == pytest.approx(logs[1], abs=1e-6)
    assert with_store.store_counts() == {"reference": {"hits": 6, "misses": 6}}, "2 pairs, each three times"


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        ({"pair_beta": {}}, {"loss_type": ["aot"]}, "sorts the pairs"),
        ({"token_weights": {}}, {"loss_type": ["sigmoid", "sft"]}, "use objective.sft"),
        ({"token_weights": {}}, {"use_weighting": True}, "plain log-probs"),
        ({"anchor": {}}, {"data_collator": lambda rows: rows}, "TRL's own data collator"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    build: Any, objective: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AlignError, match=words):
        build(objective, **options)
