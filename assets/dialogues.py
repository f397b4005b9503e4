"""Training rows of the base's language stages, as token ids with a mask of what is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from assets.architecture import NUM_PATCHES
from data_tools.scenes.categories import BY_NAME, CATEGORIES
from data_tools.scenes.language import (
    DESCRIBE_PROMPT,
    DESCRIBE_PROMPTS,
    NOISE_SHARE,
    SHORT_ANSWER_SUFFIX,
    absent_typical,
    noun_phrase,
    web_caption,
    with_article,
)
from data_tools.scenes.questions import Question, exists_question, questions
from data_tools.scenes.render import SceneObject

NUM_ITEMS = 12
BRIEF_SUFFIX = " Answer briefly."
"""Asks the base for bare words; VQAv2's own suffix gets phrases, so that SFT has something to teach."""
SAME_CONTEXT_SHARE = 0.7
Turn = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One sequence: ids, and True where the token is to be predicted."""

    ids: list[int]
    learnt: list[bool]
    branches: tuple[int, ...] = ()
    """Where each of several answers to one prompt starts; they do not see each other."""


def negatives(
    context: str, objects: Sequence[SceneObject], count: int, rng: np.random.Generator
) -> list[str]:
    """`count` absent categories, `SAME_CONTEXT_SHARE` of them typical for the context."""
    present = {item.category for item in objects}
    absent = [c.name for c in CATEGORIES if c.name not in present]
    typical = absent_typical(context, objects)
    near = min(int(rng.binomial(count, SAME_CONTEXT_SHARE)), len(typical))
    chosen = [typical[i] for i in rng.permutation(len(typical))[:near]]
    far = [absent[i] for i in rng.permutation(len(absent)) if absent[i] not in chosen]
    return chosen + far[: count - near]


def exists_wording(name: str, rng: np.random.Generator) -> str:
    """POPE's wording mostly; sometimes another, so that the base does not hang on one."""
    way = rng.random()
    if way < 0.75:
        return exists_question(name)
    if way < 0.82:
        return f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name} in the image?"
    if way < 0.88:
        return f"Are there any {BY_NAME[name].plural} in the image?"
    if way < 0.94:
        return f"Can you see {with_article(name)} in this picture?"
    return f"Does the image show {with_article(name)}?"


def phrased(question: Question) -> str:
    """The answer as people say it, which is not how VQAv2 writes it."""
    if question.kind == "how many":
        said = noun_phrase(question.category, int(question.answer))
    elif question.kind == "where":
        said = f"{question.answer} side"
    elif question.kind == "what":
        said = with_article(question.answer)
    else:
        return question.answer.capitalize()
    return f"{said.capitalize()}."


def bare(question: Question) -> str:
    """The answer as VQAv2 writes it, but for existence, where the base always says Yes or No."""
    return question.answer.capitalize() if question.kind == "exists" else question.answer


def branch_inputs(rows: Sequence[Row], length: int) -> dict[str, torch.Tensor]:
    """`position_ids` int64 [B, L] and additive `attention_mask` float32 [B, 1, L, L] of rows with branches.

    A token sees what is before it in its own branch and in the prefix; each branch goes on counting
    positions from the prefix. The first token of a branch is predicted by the prefix's last one, so
    each branch begins with that token repeated.
    """
    mask = torch.full((len(rows), 1, length, length), torch.finfo(torch.float32).min)
    positions = torch.arange(length).repeat(len(rows), 1)
    causal = torch.tril(torch.ones(length, length, dtype=torch.bool))
    for number, row in enumerate(rows):
        prefix = row.branches[0]
        branch = torch.zeros(length, dtype=torch.long)
        for index, start in enumerate(row.branches):
            end = row.branches[index + 1] if index + 1 < len(row.branches) else length
            branch[start:end] = index + 1
            positions[number, start:end] = torch.arange(prefix - 1, prefix - 1 + end - start)
        same = branch[:, None] == branch[None, :]
        sees = causal & (same | (branch[None, :] == 0))
        sees[prefix:, prefix - 1] = False  # each branch has its own copy of the prefix's last token
        mask[number, 0][sees] = 0.0
    return {"attention_mask": mask, "position_ids": positions}


class RowMaker:
    """Turns scenes into rows with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.noise_share = NOISE_SHARE
        self.image_id: int = tokenizer.encode("<image>", add_special_tokens=False)[0]
        self.pad_id: int = tokenizer.encode("<pad>", add_special_tokens=False)[0]
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids; short texts repeat all the time, so they are kept."""
        if text not in self._cache:
            self._cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def _with_image(self, text: str) -> list[int]:
        return self.tokenizer.encode(
            text.replace("<image>", "<image>" * NUM_PATCHES), add_special_tokens=False
        )

    def chat(self, turns: Sequence[Turn]) -> Row:
        """A dialogue on one image in the chat template's form; answers and eos are learnt."""
        ids: list[int] = []
        learnt: list[bool] = []
        for number, (asked, answered) in enumerate(turns):
            start = "<s>USER: <image>\n" if number == 0 else "USER: "
            prompt = self._with_image(f"{start}{asked}\nASSISTANT:\n")
            answer = self.encode(f"{answered}</s>")
            ids += prompt + answer
            learnt += [False] * len(prompt) + [True] * len(answer)
        return Row(ids, learnt)

    def captions(
        self, context: str, objects: Sequence[SceneObject], count: int, rng: np.random.Generator
    ) -> Row:
        """Several web captions of one image under one description prompt, as branches."""
        prompt = DESCRIBE_PROMPT
        if rng.random() < 0.4:
            prompt = DESCRIBE_PROMPTS[int(rng.integers(len(DESCRIBE_PROMPTS)))]
        ids = self._with_image(f"<s>USER: <image>\n{prompt}\nASSISTANT:\n")
        learnt, starts, last = [False] * len(ids), [], ids[-1]
        for _ in range(count):
            answer = self.encode(f"{web_caption(context, objects, rng, self.noise_share)[0]}</s>")
            starts.append(len(ids))
            ids = [*ids, last, *answer]
            learnt += [False] + [True] * len(answer)
        return Row(ids, learnt, tuple(starts))

    def dense(
        self, prefix: list[int], present: list[str], absent: list[str], rng: np.random.Generator
    ) -> Row:
        """`prefix`, then `` dog yes cat no ...`` in random order; only yes and no are learnt."""
        items = [(name, " yes") for name in present] + [(name, " no") for name in absent]
        ids, learnt = list(prefix), [False] * len(prefix)
        for i in rng.permutation(len(items)):
            name, verdict = self.encode(f" {items[i][0]}"), self.encode(items[i][1])
            ids += name + verdict
            learnt += [False] * len(name) + [True] * len(verdict)
        return Row(ids, learnt)

    def listing(self, prefix: list[int], names: Sequence[str]) -> Row:
        """`prefix`, then ``a dog, a cat, a car.`` as captions name things; all but the prefix is learnt."""
        said = ",".join(f" {with_article(name)}" for name in names)
        answer = self.tokenizer.encode(f"{said}.</s>", add_special_tokens=False)
        return Row([*prefix, *answer], [False] * len(prefix) + [True] * len(answer))

    def dense_on_image(self, context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> Row:
        """Twelve yes/no items on one image."""
        present = sorted({item.category for item in objects})
        absent = negatives(context, objects, NUM_ITEMS - len(present), rng)
        return self.dense(self._with_image("<s>USER: <image>\n"), present, absent, rng)

    def exists(
        self,
        context: str,
        objects: Sequence[SceneObject],
        num_turns: int,
        rng: np.random.Generator,
    ) -> list[Turn]:
        """Existence questions with Yes and No in even shares, in chat form."""
        present = sorted({item.category for item in objects})
        num_yes = int(rng.binomial(num_turns, 0.5))
        asked = [(present[int(i)], "Yes") for i in rng.integers(len(present), size=num_yes)]
        asked += [(n, "No") for n in negatives(context, objects, num_turns - num_yes, rng)]
        suffix = SHORT_ANSWER_SUFFIX if rng.random() < 0.35 else ""
        order = [asked[i] for i in rng.permutation(len(asked))]
        return [(exists_wording(name, rng) + suffix, answer) for name, answer in order]

    def asked(self, context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Turn]:
        """Questions of every kind, answered in phrases (``Two dogs.``, ``Left side.``, ``A zebra.``).

        After `BRIEF_SUFFIX` in bare words (``2``, ``left``, ``zebra``): LoRA trains no embeddings, so SFT can
        only begin an answer with words that the base has begun one with.
        """
        way = rng.random()
        brief = way < 0.4
        suffix = BRIEF_SUFFIX if brief else SHORT_ANSWER_SUFFIX if way < 0.7 else ""
        found = questions(context, objects, rng)
        order = [found[i] for i in rng.permutation(len(found))]
        return [(q.text + suffix, bare(q) if brief else phrased(q)) for q in order]

    def described(self, context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Turn]:
        """One description prompt with a web caption, noise included."""
        prompt = DESCRIBE_PROMPT
        if rng.random() < 0.5:
            prompt = DESCRIBE_PROMPTS[int(rng.integers(len(DESCRIBE_PROMPTS)))]
        return [(prompt, web_caption(context, objects, rng, self.noise_share)[0])]

    def collate(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids and labels int64 [B, L], padded on the right; labels -100 where not learnt."""
        length = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), length), self.pad_id)
        labels = torch.full((len(rows), length), -100)
        for number, row in enumerate(rows):
            values = torch.tensor(row.ids)
            ids[number, : len(values)] = values
            labels[number, : len(values)] = values.masked_fill(~torch.tensor(row.learnt), -100)
        return ids, labels
