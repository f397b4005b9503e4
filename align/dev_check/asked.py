"""What a dev check asks: descriptions of dev pictures, questions with answers, the user's own questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from align.claims import PictureTruth, load_picture_truth
from align.dev_check.recipe import DevQuestions, DevSection, OwnQuestions
from align.errors import AlignError
from align.inputs.chat import render, sees_images
from align.inputs.images import resolve_image
from align.objects.coco import load_images, read_json
from align.rows.schema import Message, PromptRow, read_rows


@dataclass(frozen=True)
class Asked:
    """One question to the policy.

    Attributes:
        kind: what is measured of the answer: a description's claims, or whether it is right.
        images: paths relative to the dev pictures' root.
        cluster: the unit that intervals resample, the picture.
        truth: what is in the picture, where it is known.
        answers: of the annotators (`vqa`), or those that are right (`own`).
        is_judged: whether the judge at an endpoint says what the answer is worth.
    """

    id: str
    kind: Literal["description", "vqa", "own"]
    images: tuple[str, ...]
    messages: tuple[Message, ...]
    max_new_tokens: int
    cluster: str
    truth: PictureTruth | None = None
    answers: tuple[str, ...] = ()
    is_judged: bool = False


class _Clustered(Protocol):
    @property
    def cluster(self) -> str: ...


def read_asked(section: DevSection, root: Path | None, processor: Any) -> list[Asked]:
    """All that a check asks, in an order that only the files decide.

    Args:
        root: folder of the pictures; None for a text-only model.
        processor: renders each question, and says whether the model sees pictures.

    Raises:
        AlignError: a missing file or picture, rows of another kind, a template that refuses a question, or
            nothing to ask.
    """
    asked: list[Asked] = []
    rating = section.judge is not None and section.judge.ask == "rating"
    if section.prompts is not None or section.instances is not None:
        asked += _descriptions(section)
    if section.questions is not None:
        asked += _questions(section.questions)
    if section.own is not None:
        asked += _own(section.own, rating)
    if section.asks:
        _check(asked, root, processor)
    if section.judge is None:
        return asked
    kinds = ("description", "own") if rating else ("description",)
    return [replace(item, is_judged=item.kind in kinds) for item in asked]


def first_half(asked: Iterable[_Clustered]) -> frozenset[str]:
    """The clusters that choose; the other half confirms. Drawn by the clusters' names alone, so that the
    halves are the same in every run over the same pictures."""
    names = sorted({item.cluster for item in asked}, key=_drawn)
    return frozenset(names[: (len(names) + 1) // 2])


def _drawn(name: str) -> str:
    return hashlib.sha256(f"dev half {name}".encode()).hexdigest()


def _descriptions(section: DevSection) -> list[Asked]:
    rows = _prompt_rows(section, section.prompts) if section.prompts else _all_pictures(section)
    rows.sort(key=lambda row: _drawn(row.id))  # a prefix of this order is no style's and no scene's
    truths = {} if section.instances is None else load_picture_truth(section.instances, section.captions)
    found = []
    for row in rows[: section.num_pictures]:
        truth = None
        if section.instances is not None:
            truth = truths.get(row.meta.get("image_id", -1))
            if truth is None:
                raise AlignError(
                    f"dev.instances say nothing of its picture ({row.meta.get('image_id')!r})",
                    where=f"{section.prompts} {row.id}",
                    fix="rows need meta.image_id, and annotations of that image",
                )
        found.append(_asked(row, "description", section.max_new_tokens, truth=truth))
    return found


def _prompt_rows(section: DevSection, path: Path) -> list[PromptRow]:
    split = section.split
    rows = [row for row in read_rows(PromptRow, path) if row.meta.get("split", split) == split]
    if not rows:
        raise AlignError(f"no prompt row of split {split!r}", where=str(path), fix="check dev.split")
    return rows


def _all_pictures(section: DevSection) -> list[PromptRow]:
    assert section.instances is not None
    prompt = [Message(role="user", content=section.prompt)]
    return [
        PromptRow(id=f"dev-{key}", images=[section.prefix + name], prompt=prompt, meta={"image_id": key})
        for key, name in load_images(section.instances).items()
    ]


def _questions(section: DevQuestions) -> list[Asked]:
    where = str(section.annotations)
    try:
        known = {item["question_id"]: item for item in read_json(section.annotations)["annotations"]}
        questions = sorted(
            read_json(section.questions)["questions"], key=lambda item: _drawn(str(item["question_id"]))
        )
        found = []
        for item in questions[: section.num_questions]:
            answers = tuple(str(one["answer"]) for one in known[item["question_id"]]["answers"])
            image = section.file_name.format(image_id=int(item["image_id"]))
            text = section.prompt.replace("{question}", str(item["question"]))
            message = Message(role="user", content=text)
            name = f"vqa {item['question_id']}"
            found.append(
                Asked(name, "vqa", (image,), (message,), section.max_new_tokens, image, answers=answers)
            )
    except (KeyError, TypeError, ValueError) as error:
        raise AlignError(f"not VQAv2's format, or an unknown question: {error}", where=where) from error
    return found


def _own(section: OwnQuestions, rated: bool) -> list[Asked]:
    found = []
    for row in read_rows(PromptRow, section.path):
        answers = row.meta.get("answers")
        if answers is None and rated:
            answers = []
        elif not isinstance(answers, list) or not answers:
            raise AlignError(
                "meta.answers is not a list of right answers",
                where=f"{section.path} {row.id}",
                fix='write meta: {"answers": ["two", "2"]}, or have them rated: dev.judge with ask: rating',
            )
        found.append(_asked(row, "own", section.max_new_tokens, answers=tuple(map(str, answers))))
    return found


def _asked(row: PromptRow, kind: Literal["description", "own"], longest: int, **known: Any) -> Asked:
    images = tuple(row.images)
    cluster = images[0] if images else row.id
    return Asked(row.id, kind, images, tuple(row.prompt), longest, cluster, **known)


def _check(asked: Sequence[Asked], root: Path | None, processor: Any) -> None:
    if not asked:
        raise AlignError("the dev check has nothing to ask", where="dev")
    ids = [item.id for item in asked]
    if len(set(ids)) < len(ids):
        raise AlignError("two questions of the dev check have one id", where="dev", fix="ids must differ")
    for item in asked:
        if item.images and not sees_images(processor):
            raise AlignError("the model reads text only", where=f"dev: {item.id} has a picture")
        for name in item.images:
            if root is None:
                raise AlignError("no folder of the dev pictures", where="dev.image_root", fix="name it")
            resolve_image(root, name)
        render(processor, list(item.messages), len(item.images), add_generation_prompt=True)


def check_not_trained_on(asked: Sequence[Asked], root: Path | None, trained: Iterable[Path]) -> None:
    """Refuse dev pictures that the run trains on: what they show would be memory.

    Args:
        trained: the files of the training rows' pictures.

    Raises:
        AlignError: the first such picture, and how many there are.
    """
    if root is None:
        return
    own = {resolve_image(root, name): name for item in asked for name in item.images}
    both = sorted(own[path] for path in own.keys() & set(trained))
    if both:
        raise AlignError(
            f"{len(both)} dev pictures are trained on, {both[0]} first",
            where="dev",
            fix="take pictures that no training row has",
        )
