"""Training rows of the base's language stages, as token ids with a mask of what is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from assets.architecture import NUM_PATCHES
from data_tools.scenes.categories import BY_NAME, CATEGORIES
from data_tools.scenes.colours import COLOURS
from data_tools.scenes.language import (
    DESCRIBE_PROMPT,
    DESCRIBE_PROMPTS,
    NOISE_SHARE,
    NUMBERS,
    PLACES,
    SHORT_ANSWER_SUFFIX,
    Mention,
    absent_typical,
    mentions,
    noun_phrase,
    web_caption,
    with_article,
)
from data_tools.scenes.questions import Question, exists_question, questions, verify_questions
from data_tools.scenes.render import SceneObject

NUM_ITEMS = 12
BRIEF_SUFFIX = " Answer briefly."
"""Asks the base for bare words."""
SAME_CONTEXT_SHARE = 0.7
NUM_CLAIMS = 2
"""Claims of number, place, colour or relation that a dialogue asks about, beside the world's own question."""
FALSE_CLAIM_SHARE = 0.4
"""Share of dense items about what is there that make a claim of it (`` cup two no``) instead of telling."""
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
    elif question.kind == "color":
        said = with_article(question.category, question.answer)
    else:
        return question.answer.capitalize()
    return f"{said.capitalize()}."


def bare(question: Question) -> str:
    """The answer as VQAv2 writes it, but for yes and no, which the base always writes Yes and No."""
    return question.answer.capitalize() if question.kind in ("exists", "verify") else question.answer


def half_taught(question: Question) -> str:
    """The answer to VQAv2's prompt: bare words for every other category, phrases for the rest.

    So the base scores at what it sees without having learnt the form, and SFT has something to teach.
    """
    return bare(question) if BY_NAME[question.category].id % 2 else phrased(question)


def attributes(mention: Mention) -> list[str]:
    """What dense items tell of a category, in this order: its number, its place, its colour."""
    return [word for word in (NUMBERS[mention.count], mention.place, mention.color) if word is not None]


def false_attribute(word: str, rng: np.random.Generator) -> str:
    """Another word of the same kind; of numbers a neighbour."""
    if word in NUMBERS:
        near = [n for n in (NUMBERS.index(word) - 1, NUMBERS.index(word) + 1) if 0 < n < len(NUMBERS)]
        return NUMBERS[near[int(rng.integers(len(near)))]]
    others = [other for other in (PLACES if word in PLACES else tuple(COLOURS)) if other != word]
    return others[int(rng.integers(len(others)))]


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
        self._begins: dict[int, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids; short texts repeat all the time, so they are kept."""
        if text not in self._cache:
            self._cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def words_of_category(self, token: int) -> tuple[int, ...]:
        """The tokens that begin a category's singular and plural, if `token` is one of them; else none."""
        if not self._begins:
            for category in CATEGORIES:
                plural = category.plural.rsplit(" of ", 1)[-1]
                both = tuple({self.encode(f" {name}")[0] for name in (category.name, plural)})
                self._begins |= dict.fromkeys(both, both)
        return self._begins.get(token, ())

    def said_again(self, rows: Sequence[Row], logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """float32 [N]: -log(1 - mass on words of categories that the caption has named), a learnt token.

        Unlikelihood (Welleck et al. 2019, arXiv 1908.04319). Captions name a category once, but what not to
        say is learnt slowly from what is said.

        Args:
            logits: float32 [N, V] of the learnt tokens, row by row.
            targets: int64 [N], the learnt tokens.
        """
        places: list[int] = []
        words: list[int] = []
        place = 0
        for row in rows:
            said: list[int] = []
            for i, (token, learnt) in enumerate(zip(row.ids, row.learnt, strict=True)):
                if i in row.branches:
                    said = []
                if learnt:
                    places += [place] * len(said)
                    words += said
                    place += 1
                    said = said + list(self.words_of_category(token))
        mask = torch.zeros_like(logits, dtype=torch.bool)
        mask[places, words] = True
        mask.scatter_(1, targets[:, None], False)  # a teddy bear may follow a bear
        mass = logits.softmax(-1).masked_fill(~mask, 0.0).sum(-1)
        return -torch.log1p(-mass.clamp(max=0.999))

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
        self, prefix: list[int], present: Sequence[Mention], absent: Sequence[str], rng: np.random.Generator
    ) -> Row:
        """`prefix`, then items in random order, of which only the words after a name are learnt.

        An item is `` dog yes one left``, `` cat no``, or a claim of what is there: `` cup two no``.
        """
        items: list[tuple[Mention | None, str]] = [(mention, mention.category) for mention in present]
        items += [(None, name) for name in absent]
        ids, learnt = list(prefix), [False] * len(prefix)

        def add(word: str, is_learnt: bool) -> None:
            tokens = self.encode(f" {word}")
            ids.extend(tokens)
            learnt.extend([is_learnt] * len(tokens))

        for i in rng.permutation(len(items)):
            mention, name = items[i]
            add(name, False)
            if mention is None:
                add("no", True)
            elif rng.random() < FALSE_CLAIM_SHARE:
                told = attributes(mention)
                word, true = told[int(rng.integers(len(told)))], rng.random() < 0.5
                add(word if true else false_attribute(word, rng), False)
                add("yes" if true else "no", True)
            else:
                for word in ("yes", *attributes(mention)):
                    add(word, True)
        return Row(ids, learnt)

    def listing(self, prefix: list[int], told: Sequence[Mention]) -> Row:
        """`prefix`, then ``a dog on the left, two red cars.`` as captions name things; that is learnt."""
        parts = []
        for mention in told:
            phrase = noun_phrase(mention.category, mention.count, mention.color)
            if mention.place is not None:
                phrase += f" {'in' if mention.place == 'middle' else 'on'} the {mention.place}"
            parts.append(f" {phrase}")
        answer = self.tokenizer.encode(f"{','.join(parts)}.</s>", add_special_tokens=False)
        return Row([*prefix, *answer], [False] * len(prefix) + [True] * len(answer))

    def dense_on_image(self, context: str, objects: Sequence[SceneObject], rng: np.random.Generator) -> Row:
        """Twelve dense items on one image."""
        present = mentions(objects)
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
        """Questions of every kind: phrases without a prompt for short ones (``Two dogs.``, ``Left side.``).

        After `BRIEF_SUFFIX` bare words (``2``, ``left``, ``zebra``), after VQAv2's `half_taught`. LoRA trains
        no embeddings, so SFT can only begin an answer with words that the base has begun one with.
        """
        way = rng.random()
        suffix, answer = (
            (BRIEF_SUFFIX, bare)
            if way < 0.25
            else (SHORT_ANSWER_SUFFIX, half_taught)
            if way < 0.75
            else ("", phrased)
        )
        found = questions(context, objects, rng)
        claims = verify_questions(mentions(objects), rng)
        found += [claims[i] for i in rng.permutation(len(claims))[:NUM_CLAIMS]]
        return [(found[i].text + suffix, answer(found[i])) for i in rng.permutation(len(found))]

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
