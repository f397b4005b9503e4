"""Steps 2-9 of the base: the decoder learns to match words, to list, to look, and to speak.

    python -m assets.train_language WORK_DIR

Needs ``vision.pt`` from `assets.train_vision`, or takes the tower of a finished checkpoint with
``--tower CHECKPOINT``. The stages are

1. *induction*: text only. A few slots with objects' words, then ``dog yes one left cat no ...``; with tied
   embeddings this teaches in minutes what captions alone never do: to look a word up. A slot is the sum of
   the words for a category, its number, its place and its colour.
2. *listing*: text only. Slots again, then what they hold, in the order in which captions name things.
   Without it captions repeat an object ("a vase, a vase and a vase") for a thousand steps.
3. *connector*: regression from patch features to the slot that says each patch's labels, so that an
   image looks to the decoder like the slots that it already reads.
4. *look*: dense items on real features.
5. *speak*: web captions by the thousand, and existence dialogues, in chat form; dense items kept in.
6. *ask*: questions of every kind, answered in phrases (``Two dogs.``, ``Left side.``) or in bare words; to
   answer VQAv2's prompt as VQAv2 does (``2``, ``left``) throughout is left to SFT.
7. *settle*: more captions, fewer of them noisy. 8. *once*: the same, with more weight against naming a
   category again.

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
from assets.image_bank import ImageBank, build_bank, trained_labeller
from assets.imagined import NUM_SLOTS, imagine, spread
from assets.muon import Muon
from assets.train_vision import COLOUR_NAMES, MANY, UNKNOWN, PatchLabeller
from data_tools.scenes.categories import CATEGORIES
from data_tools.scenes.language import NOISE_SHARE, NUMBERS, PLACES

FILLER = "."
ATTRIBUTE_WEIGHT = 0.7
"""Weight of the words for number, place and colour in a slot, against the category's 1."""


@dataclass(frozen=True)
class SpeakStage:
    """A stretch of captions and dialogues: learning rate, share of noisy captions, random stream."""

    name: str
    lr: float
    noise_share: float
    stream: int
    asks: bool = False
    """Dialogues hold every kind of question, not existence alone."""
    num_images: tuple[int, int, int] = (12, 8, 4)
    """Images a step for captions, for dialogues and for dense items."""
    again_weight: float = 0.0
    """Weight of the unlikelihood of naming a category again, against a token's cross-entropy."""


SPEAK_STAGES = (
    SpeakStage("speak", 1e-3, NOISE_SHARE, 5, num_images=(12, 8, 8)),
    SpeakStage("ask", 1e-3, 0.5, 6, asks=True, again_weight=2.0),
    SpeakStage("settle", 8e-4, 0.3, 7, asks=True, num_images=(16, 6, 2), again_weight=6.0),
    SpeakStage("once", 5e-4, 0.3, 8, asks=True, num_images=(16, 6, 2), again_weight=25.0),
)


class Trainer:
    """The model, its optimisers and the log; one method a stage."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.work_dir, self.seed = work_dir, seed
        tokenizer = build_tokenizer()
        self.maker = RowMaker(tokenizer)
        self.model: LlavaForConditionalGeneration = build_model(tokenizer)
        self.again_weight = 0.0
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

    def slot_embeddings(self, labels: torch.Tensor) -> torch.Tensor:
        """float32 [N, 256]: what slots hold, in words; `labels` int64 [N, 4 or more] as of `patch_targets`.

        The mean of a category's token embeddings (the filler's for background), plus the embeddings of
        its number, place and colour.
        """
        table = self.embedding.weight
        groups = ([f" {category.name}" for category in CATEGORIES] + [FILLER],
                  [f" {word}" for word in NUMBERS[1 : MANY + 1]],
                  [f" {word}" for word in PLACES], [f" {word}" for word in COLOUR_NAMES])  # fmt: skip
        total = torch.zeros(len(labels), table.shape[1])
        for kind, words in enumerate(groups):
            rows = torch.stack([table[self.maker.encode(word)].mean(0) for word in words])
            rows = torch.cat([rows, torch.zeros(1, rows.shape[1])])  # the last one stands for UNKNOWN
            picked = labels[:, kind].masked_fill(labels[:, kind] == UNKNOWN, len(words))
            total = total + (ATTRIBUTE_WEIGHT if kind else 1.0) * rows[picked]
        return total

    def begin_with_words(self) -> None:
        """Give words at the start of an answer the embedding that they have behind a space.

        ``zebra`` and `` zebra`` are two tokens, and captions only ever teach the second. A digit begins as
        its word, and a capital as its small letter.
        """
        words = [category.name.split()[0] for category in CATEGORIES] + list(PLACES) + list(COLOUR_NAMES)
        pairs = [(word, f" {word}") for word in words]
        pairs += [(str(n), f" {word}") for n, word in enumerate(NUMBERS) if n]
        pairs += [(word.capitalize(), f" {word}") for word in (*NUMBERS[1:], *PLACES)]
        with torch.no_grad():
            for start, spaced in pairs:
                first, known = self.maker.encode(start), self.maker.encode(spaced)
                if len(first) == len(known):
                    self.embedding.weight[first] = self.embedding.weight[known]

    def logits(self, ids: torch.Tensor, slots: torch.Tensor, rows: list[Row]) -> torch.Tensor:
        """Logits [B, L, V]; `slots` [B * I, 256] go where `ids` has the image token."""
        embeds = self.embedding(ids)
        mask = ids.eq(self.maker.image_id).unsqueeze(-1)
        embeds = embeds.masked_scatter(mask, slots)
        shared = branch_inputs(rows, ids.shape[1]) if rows[0].branches else {}
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model.model.language_model(inputs_embeds=embeds, **shared).last_hidden_state
            return self.model.lm_head(hidden)

    def loss(self, rows: list[Row], slots: torch.Tensor, balance: bool) -> tuple:
        """Mean cross-entropy of the learnt tokens, and the share of them that is right.

        With `balance`, yes and no weigh the same in sum (for dense items, where no is frequent); what
        is told of number, place and colour keeps its weight.
        """
        ids, labels = self.maker.collate(rows)
        chosen = labels[:, 1:] != -100
        logits = self.logits(ids, slots, rows)[:, :-1][chosen].float()  # [N, V]
        targets = labels[:, 1:][chosen]
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        right = (logits.argmax(-1) == targets).float()
        if rows[0].branches and self.again_weight:
            losses = losses + self.again_weight * self.maker.said_again(rows, logits, targets)
        if balance:
            yes, no = (targets == self.maker.encode(f" {word}")[0] for word in ("yes", "no"))
            half = (yes | no).sum() / 2
            weights = torch.ones(len(targets))
            for verdict in (yes, no):
                weights[verdict] = half / verdict.sum().clamp(min=1)
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
        prefix = [self.maker.image_id] * NUM_SLOTS

        def batch(step: int) -> list:
            rows, labels = [], []
            for _ in range(batch_size):
                scene = imagine(2 if step < num_steps // 4 else 6, rng)
                labels.append(spread(scene.objects, rng))
                rows.append(self.maker.dense(prefix, scene.told, scene.absent, rng))
            return [(rows, self.slot_embeddings(torch.from_numpy(np.concatenate(labels))), True)]

        self.fit("induction", num_steps, 2e-3, 1e-3, False, batch)

    def listing(self, num_steps: int, batch_size: int = 64, num_items: int = 24) -> None:
        """Stage 2: what the slots hold, in the order of captions."""
        rng = np.random.default_rng([self.seed, 2])
        prefix = [self.maker.image_id] * NUM_SLOTS
        asked = [*prefix, *self.maker.encode("ASSISTANT:\n")]

        def batch(step: int) -> list:
            del step
            scenes = [imagine(6, rng) for _ in range(batch_size + num_items)]
            labels = [torch.from_numpy(spread(scene.objects, rng)) for scene in scenes]
            lists = [self.maker.listing(asked, scene.told) for scene in scenes[:batch_size]]
            items = [self.maker.dense(prefix, scene.told, scene.absent, rng) for scene in scenes[batch_size:]]
            listed = self.slot_embeddings(torch.cat(labels[:batch_size]))
            dense = self.slot_embeddings(torch.cat(labels[batch_size:]))
            return [(lists, listed, False), (items, dense, True)]

        self.fit("listing", num_steps, 2e-3, 1e-3, True, batch)

    def fit_connector(self, bank: ImageBank, num_steps: int = 600, batch_size: int = 2048) -> None:
        """Stage 3: least squares from features to slot embeddings, after whitening the input."""
        connector = self.model.model.multi_modal_projector
        flat, labels = bank.features.flatten(0, 1), bank.labels.flatten(0, 1)
        sample = flat[:: max(1, len(flat) // 200_000)].float()
        mean, std = sample.mean(0), sample.std(0) + 1e-4
        with torch.no_grad():
            nn.init.normal_(connector.linear_1.weight, std=192**-0.5)
            connector.linear_1.weight /= std
            connector.linear_1.bias.copy_(-connector.linear_1.weight @ mean)
        scale = self.slot_embeddings(labels[:50_000]).var().item()
        optimiser = torch.optim.Adam(connector.parameters(), lr=2e-3)
        generator = torch.Generator().manual_seed(self.seed)
        start, loss = time.time(), torch.zeros(())
        for step in range(num_steps):
            pick = torch.randint(len(flat), (batch_size,), generator=generator)
            target = self.slot_embeddings(labels[pick]).detach()
            loss = (connector(flat[pick].float()) - target).pow(2).mean() / scale
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
        if stage.name == "ask":
            self.begin_with_words()
        maker.noise_share, self.again_weight = stage.noise_share, stage.again_weight

        def batch(step: int) -> list:
            del step
            num_captions, num_asked, num_dense = stage.num_images
            captions = rng.integers(bank.num_world, size=num_captions)
            asked = rng.integers(bank.num_world, size=num_asked)
            dense = rng.integers(len(bank.contexts), size=num_dense)
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


def main() -> None:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(description="Train the base's decoder and connector.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--num_world", type=int, default=10_000)
    parser.add_argument("--num_uniform", type=int, default=2_500)
    parser.add_argument("--induction_steps", type=int, default=200)
    parser.add_argument("--listing_steps", type=int, default=200)
    parser.add_argument("--look_steps", type=int, default=80)
    parser.add_argument("--speak_steps", type=int, default=300)
    parser.add_argument("--ask_steps", type=int, default=330)
    parser.add_argument("--settle_steps", type=int, default=340)
    parser.add_argument("--once_steps", type=int, default=120)
    parser.add_argument("--tower", type=Path, help="take the vision tower of this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.work_dir, args.seed)
    labeller = trained_labeller(args.work_dir, args.tower)
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
        SPEAK_STAGES, (args.speak_steps, args.ask_steps, args.settle_steps, args.once_steps), strict=True
    ):
        if stage.name not in trainer.done:
            trainer.speak(bank, stage, num_steps)


if __name__ == "__main__":
    main()
