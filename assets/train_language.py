"""Steps 2-9 of the base: the decoder learns to match words, to list, to look, and to speak.

    python -m assets.train_language WORK_DIR

Needs ``vision.pt`` from `assets.train_vision`, or takes the tower of a finished checkpoint with
``--tower CHECKPOINT``. The stages are

1. *induction*: text only. A few slots with objects' words, then ``dog yes cat no ...``; with tied
   embeddings this teaches in minutes what captions alone never do: to look a word up.
2. *listing*: text only. Slots again, then what they hold, in the order in which captions name things.
   Without it captions repeat an object ("a vase, a vase and a vase") for a thousand steps.
3. *connector*: regression from patch features to the word embedding of each patch's label, so
   that an image looks to the decoder like the slots that it already reads.
4. *look*: dense yes/no on real features.
5. *speak*: web captions by the thousand, and existence dialogues, in chat form; dense yes/no kept in.
6. *settle*: the same at half the learning rate. 7. *clean*: the same with fewer noisy captions.
8. *ask*: how many, where and what as well, answered in phrases (``Two dogs.``, ``Left side.``), and in bare
   words where asked to be brief. To answer VQAv2's prompt as VQAv2 does (``2``, ``left``) is left to SFT.

Features are computed once (the tower is frozen). ``language.pt`` is resumed stage by stage.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from assets.build_base import build_model, build_tokenizer
from assets.dialogues import Row, RowMaker, branch_inputs
from assets.image_bank import ImageBank, build_bank, load_tower
from assets.muon import Muon
from assets.train_vision import BACKGROUND, PatchLabeller
from data_tools.scenes.categories import CATEGORIES
from data_tools.scenes.language import NOISE_SHARE, PLACES

FILLER = "."
NUM_LISTING_SLOTS = 14


@dataclass(frozen=True)
class SpeakStage:
    """A stretch of captions and dialogues: learning rate, share of noisy captions, random stream."""

    name: str
    lr: float
    noise_share: float
    stream: int
    asks: bool = False
    """Dialogues are twice as many and of every kind of question, not of existence alone."""


SPEAK_STAGES = (
    SpeakStage("speak", 1e-3, NOISE_SHARE, 5),
    SpeakStage("settle", 5e-4, NOISE_SHARE, 6),
    SpeakStage("clean", 5e-4, 0.45, 7),
    SpeakStage("ask", 7e-4, 0.45, 8, asks=True),
)


class Trainer:
    """The model, its optimisers and the log; one method a stage."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.work_dir, self.seed = work_dir, seed
        tokenizer = build_tokenizer()
        self.maker = RowMaker(tokenizer)
        self.model: LlavaForConditionalGeneration = build_model(tokenizer)
        self.done: list[str] = []
        self.path = work_dir / "language.pt"
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.done = state["done"]

    @property
    def embedding(self) -> nn.Embedding:
        """Word embeddings, tied to the output head."""
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def load_tower(self, labeller: PatchLabeller) -> None:
        """Put the trained vision tower into the VLM, frozen."""
        tower = self.model.model.vision_tower
        tower.load_state_dict(labeller.tower.state_dict())
        tower.requires_grad_(False)

    def save(self, stage: str) -> None:
        """Write the checkpoint after a finished stage, whole or not at all."""
        self.done.append(stage)
        state = {"model": self.model.state_dict(), "done": self.done}
        torch.save(state, self.path.with_suffix(".partial"))
        self.path.with_suffix(".partial").rename(self.path)

    def log(self, **entry: object) -> None:
        """Append one JSON line."""
        with (self.work_dir / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def slot_embeddings(self) -> torch.Tensor:
        """float32 [NUM_LABELS, 256]: mean of each category's token embeddings, filler last."""
        table = self.embedding.weight
        names = [f" {category.name}" for category in CATEGORIES] + [FILLER]
        return torch.stack([table[self.maker.encode(name)].mean(0) for name in names])

    def begin_with_words(self) -> None:
        """Give words at the start of an answer the embedding that they have behind a space.

        ``zebra`` and `` zebra`` are two tokens, and captions only ever teach the second.
        """
        with torch.no_grad():
            for word in [category.name.split()[0] for category in CATEGORIES] + list(PLACES):
                first, spaced = self.maker.encode(word), self.maker.encode(f" {word}")
                if len(first) == len(spaced):
                    self.embedding.weight[first] = self.embedding.weight[spaced]

    def logits(self, ids: torch.Tensor, slots: torch.Tensor, rows: list[Row]) -> torch.Tensor:
        """Logits [B, L, V]; `slots` [B * I, 256] go where `ids` has the image token."""
        embeds = self.embedding(ids)
        mask = ids.eq(self.maker.image_id).unsqueeze(-1)
        embeds = embeds.masked_scatter(mask, slots)
        shared = branch_inputs(rows, ids.shape[1]) if rows[0].branches else {}
        hidden = self.model.model.language_model(inputs_embeds=embeds, **shared).last_hidden_state
        return self.model.lm_head(hidden)

    def loss(self, rows: list[Row], slots: torch.Tensor, balance: bool) -> tuple:
        """Mean cross-entropy of the learnt tokens, and the share of them that is right.

        With `balance`, yes and no weigh the same in sum (for dense items, where no is frequent).
        """
        ids, labels = self.maker.collate(rows)
        chosen = labels[:, 1:] != -100
        logits = self.logits(ids, slots, rows)[:, :-1][chosen]  # [N, V]
        targets = labels[:, 1:][chosen]
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        right = (logits.argmax(-1) == targets).float()
        if balance:
            yes = targets == self.maker.encode(" yes")[0]
            share = yes.float().mean().clamp(0.05, 0.95)
            weights = torch.where(yes, 0.5 / share, 0.5 / (1 - share))
            return (losses * weights).mean(), (right * weights).mean().item()
        return losses.mean(), right.mean().item()

    def optimisers(self, lr: float, connector_lr: float) -> list[torch.optim.Optimizer]:
        """Muon for the decoder's matrices; AdamW for embeddings, norms and connector."""
        decoder = self.model.model.language_model
        matrices = [p for n, p in decoder.named_parameters() if ".weight" in n and "layers" in n]
        matrices = [p for p in matrices if p.ndim == 2]
        hidden = {id(p) for p in matrices}
        others = [p for p in decoder.parameters() if id(p) not in hidden]
        connector = list(self.model.model.multi_modal_projector.parameters())
        groups = [{"params": others, "lr": lr}, {"params": connector, "lr": connector_lr}]
        adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
        return [Muon(matrices, lr=lr, weight_decay=0.01), adam]

    def fit(
        self,
        stage: str,
        num_steps: int,
        lr: float,
        connector_lr: float,
        decay: bool,
        micro_batches: Callable[[int], list[tuple[list[Row], torch.Tensor, bool]]],
    ) -> None:
        """Train one stage; `micro_batches(step)` gives rows, slots and whether to balance."""
        optimisers = self.optimisers(lr, connector_lr)
        base_lrs = [[g["lr"] for g in o.param_groups] for o in optimisers]
        start, window = time.time(), []
        for step in range(num_steps):
            batches = micro_batches(step)
            for rows, slots, balance in batches:
                loss, right = self.loss(rows, slots, balance)
                (loss / len(batches)).backward()
                window.append((loss.item(), right))
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            factor = min(1.0, (step + 1) / 20)
            if decay:
                factor = min(factor, max(0.02, (num_steps - step) / (0.6 * num_steps)))
            for optimiser, lrs in zip(optimisers, base_lrs, strict=True):
                for group, base in zip(optimiser.param_groups, lrs, strict=True):
                    group["lr"] = base * factor
                optimiser.step()
                optimiser.zero_grad()
            if (step + 1) % 25 == 0 or step + 1 == num_steps:
                kinds = len(batches)
                losses = [round(float(np.mean([w[0] for w in window[k::kinds]])), 4)
                          for k in range(kinds)]  # fmt: skip
                rights = [round(float(np.mean([w[1] for w in window[k::kinds]])), 4)
                          for k in range(kinds)]  # fmt: skip
                self.log(stage=stage, step=step + 1, seconds=round(time.time() - start),
                         loss=losses, right=rights)  # fmt: skip
                window.clear()
        self.save(stage)

    def induction(self, num_steps: int, batch_size: int = 64) -> None:
        """Stage 1: slots of words instead of an image; one or two objects first, then six."""
        rng = np.random.default_rng([self.seed, 1])
        names = [category.name for category in CATEGORIES]

        def batch(step: int) -> list:
            most = 2 if step < num_steps // 4 else 6
            rows, slot_labels = [], []
            for _ in range(batch_size):
                order = rng.permutation(len(names))
                count = int(rng.integers(1, most + 1))
                labels = np.full(8, BACKGROUND)
                labels[rng.permutation(8)[:count]] = order[:count]
                slot_labels.append(labels)
                present = [names[i] for i in order[:count]]
                absent = [names[i] for i in order[count : count + 12 - count]]
                prefix = [self.maker.image_id] * 8
                rows.append(self.maker.dense(prefix, present, absent, rng))
            slots = self.slot_embeddings()[torch.from_numpy(np.concatenate(slot_labels))]
            return [(rows, slots, True)]

        self.fit("induction", num_steps, 2e-3, 1e-3, False, batch)

    def listing(self, num_steps: int, batch_size: int = 64, num_items: int = 16) -> None:
        """Stage 2: up to six objects in one or two slots each, named in the order of captions."""
        rng = np.random.default_rng([self.seed, 2])
        names = [category.name for category in CATEGORIES]
        prefix = [self.maker.image_id] * NUM_LISTING_SLOTS
        asked = [*prefix, *self.maker.encode("ASSISTANT:\n")]

        def batch(step: int) -> list:
            del step
            lists, items = [], []
            labels = []
            for number in range(batch_size + num_items):
                order = rng.permutation(len(names))
                count = int(rng.integers(1, 7))
                labels.append(spread(order[:count], rng))
                present = [names[i] for i in sorted(order[:count])]
                if number < batch_size:
                    lists.append(self.maker.listing(asked, present))
                else:
                    absent = [names[i] for i in order[count:12]]
                    items.append(self.maker.dense(prefix, present, absent, rng))
            listed = self.slot_embeddings()[torch.from_numpy(np.concatenate(labels[:batch_size]))]
            dense = self.slot_embeddings()[torch.from_numpy(np.concatenate(labels[batch_size:]))]
            return [(lists, listed, False), (items, dense, True)]

        self.fit("listing", num_steps, 2e-3, 1e-3, True, batch)

    def fit_connector(self, bank: ImageBank, num_steps: int = 600, batch_size: int = 2048) -> None:
        """Stage 3: least squares from features to slot embeddings, after whitening the input."""
        connector = self.model.model.multi_modal_projector
        flat, labels = bank.features.flatten(0, 1), bank.labels.flatten()
        sample = flat[:: max(1, len(flat) // 200_000)].float()
        mean, std = sample.mean(0), sample.std(0) + 1e-4
        with torch.no_grad():
            nn.init.normal_(connector.linear_1.weight, std=192**-0.5)
            connector.linear_1.weight /= std
            connector.linear_1.bias.copy_(-connector.linear_1.weight @ mean)
        targets = self.slot_embeddings().detach()
        scale = targets.var().item()
        optimiser = torch.optim.Adam(connector.parameters(), lr=2e-3)
        generator = torch.Generator().manual_seed(self.seed)
        start, loss = time.time(), torch.zeros(())
        for step in range(num_steps):
            pick = torch.randint(len(flat), (batch_size,), generator=generator)
            loss = (connector(flat[pick].float()) - targets[labels[pick]]).pow(2).mean() / scale
            loss.backward()
            optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / num_steps)
            optimiser.step()
            optimiser.zero_grad()
        self.log(stage="connector", step=num_steps, seconds=round(time.time() - start),
                 unexplained_variance=round(loss.item(), 4))  # fmt: skip
        self.save("connector")

    def project(self, bank: ImageBank, pick: np.ndarray) -> torch.Tensor:
        """Connector outputs float32 [B * 64, 256] of the picked images."""
        features = bank.features[torch.from_numpy(pick)].float()
        return self.model.model.multi_modal_projector(features).flatten(0, 1)

    def look(self, bank: ImageBank, num_steps: int, batch_size: int = 32) -> None:
        """Stage 4: dense yes/no on images."""
        rng = np.random.default_rng([self.seed, 3])

        def batch(step: int) -> list:
            del step
            pick = rng.integers(len(bank.contexts), size=batch_size)
            rows = [self.maker.dense_on_image(bank.contexts[i], bank.objects[i], rng) for i in pick]
            return [(rows, self.project(bank, pick), True)]

        self.fit("look", num_steps, 5e-4, 2e-3, False, batch)

    def speak(self, bank: ImageBank, stage: SpeakStage, num_steps: int) -> None:
        """Stages 5 to 8: captions, existence dialogues and dense items, one micro-batch of each.

        Captions of one image share its prefix in one row, each blind to the others, which halves the
        cost of a caption.
        """
        rng = np.random.default_rng([self.seed, stage.stream])
        maker = self.maker
        if stage.asks:
            self.begin_with_words()
        maker.noise_share = stage.noise_share

        def batch(step: int) -> list:
            del step
            captions = rng.integers(bank.num_world, size=8 if stage.asks else 12)
            asked = rng.integers(bank.num_world, size=16 if stage.asks else 8)
            dense = rng.integers(len(bank.contexts), size=4)
            caption_rows = [maker.captions(bank.contexts[i], bank.objects[i], 5, rng) for i in captions]
            dialogues = []
            for number, i in enumerate(asked):
                scene = bank.contexts[i], bank.objects[i]
                turns = maker.described(*scene, rng) if number % 4 == 0 else []
                turns += maker.asked(*scene, rng) if stage.asks else maker.exists(*scene, 5, rng)
                dialogues.append(maker.chat(turns))
            dense_rows = [maker.dense_on_image(bank.contexts[i], bank.objects[i], rng) for i in dense]
            return [
                (caption_rows, self.project(bank, captions), False),
                (dialogues, self.project(bank, asked), False),
                (dense_rows, self.project(bank, dense), True),
            ]

        self.fit(stage.name, num_steps, stage.lr, stage.lr, True, batch)


def spread(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slot labels int64 [NUM_LISTING_SLOTS]: each label in one or two random slots, fillers elsewhere."""
    slots, cells, filled = np.full(NUM_LISTING_SLOTS, BACKGROUND), rng.permutation(NUM_LISTING_SLOTS), 0
    for label in labels:
        copies = int(rng.integers(1, 3))
        slots[cells[filled : filled + copies]] = label
        filled += copies
    return slots


def main() -> None:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(description="Train the base's decoder and connector.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--num_world", type=int, default=10_000)
    parser.add_argument("--num_uniform", type=int, default=2_500)
    parser.add_argument("--induction_steps", type=int, default=200)
    parser.add_argument("--listing_steps", type=int, default=200)
    parser.add_argument("--look_steps", type=int, default=80)
    parser.add_argument("--speak_steps", type=int, default=400)
    parser.add_argument("--settle_steps", type=int, default=240)
    parser.add_argument("--clean_steps", type=int, default=100)
    parser.add_argument("--ask_steps", type=int, default=300)
    parser.add_argument("--tower", type=Path, help="take the vision tower of this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.work_dir, args.seed)
    labeller = load_tower(args.work_dir, args.tower)
    trainer.load_tower(labeller)
    if "induction" not in trainer.done:
        trainer.induction(args.induction_steps)
    if "listing" not in trainer.done:
        trainer.listing(args.listing_steps)
    start = time.time()
    bank = build_bank(labeller, args.num_world, args.num_uniform, args.seed)
    trainer.log(stage="features", images=len(bank.contexts), seconds=round(time.time() - start))
    if "connector" not in trainer.done:
        trainer.fit_connector(bank)
    if "look" not in trainer.done:
        trainer.look(bank, args.look_steps)
    for stage, num_steps in zip(
        SPEAK_STAGES, (args.speak_steps, args.settle_steps, args.clean_steps, args.ask_steps), strict=True
    ):
        if stage.name not in trainer.done:
            trainer.speak(bank, stage, num_steps)


if __name__ == "__main__":
    main()
