"""Build instruction rows and description prompts from COCO- and VQAv2-format files.

Writes `instructions.parquet` (dialogues of several short-answer questions an image, and captions, mixed
by the recipe's weights), `prompts.parquet` (description prompts for train and dev images, to sample
answers to) and `dropped.json` (what was left out, by reason). Images that occur in the `exclude`
files (evaluation data) never enter.

  align instructions recipes/quickstart/instructions.yaml mixture.captions=0.5

Next: `align sft`.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from align.coco import VqaQuestion, load_captions, load_images, load_questions
from align.config import StageRecipe, Strict
from align.digest import digest_file
from align.errors import AlignError
from align.images import image_size, resolve_image
from align.progress import say
from align.run import RunFolder
from align.schema import Message, PromptRow, SFTRow, write_rows
from data_tools.tally import Tally

SHORT_ANSWER_SUFFIX = "\nAnswer the question using a single word or phrase."
DESCRIBE_PROMPT = "Please describe this image in detail."
DESCRIBE_PROMPTS = [
    DESCRIBE_PROMPT,
    "Describe this image.",
    "What do you see in this picture?",
    "Write a caption for this image.",
]


class Images(Strict):
    """Where pictures come from."""

    annotations: Path = Field(description="COCO-format file whose `images` list names the pictures")
    prefix: str = Field(default="", description="put before each file_name to get a path under image_root")


class Questions(Strict):
    """Dialogues of short-answer questions (VQAv2 format)."""

    questions: Path = Field(description="VQAv2 questions file")
    annotations: Path = Field(description="VQAv2 annotations file")
    turns: int = Field(default=4, ge=1, description="most questions in one dialogue, all on one image")
    max_per_image: int = Field(default=8, ge=1, description="most questions of one image, over all dialogues")
    suffix: str = Field(default=SHORT_ANSWER_SUFFIX, description="asks for a short answer")
    suffix_share: float = Field(default=1.0, ge=0, le=1, description="share of dialogues that use the suffix")
    min_agreement: float = Field(
        default=0.3, ge=0, le=1, description="share of annotators who must have given the answer"
    )


class Captions(Strict):
    """Rows that ask for a description."""

    annotations: Path = Field(description="COCO captions file to learn from; may be noisy web captions")
    prompts: list[str] = Field(default=DESCRIBE_PROMPTS, min_length=1, description="one is drawn a row")
    max_per_image: int = Field(default=1, ge=1, description="most caption rows of one image")


class Mixture(Strict):
    """Shares of the two kinds of rows; they need not sum to one."""

    questions: float = Field(default=0.7, ge=0)
    captions: float = Field(default=0.3, ge=0)


class Prompts(Strict):
    """Description prompts to sample preference candidates from."""

    train: int = Field(ge=1, description="train images; their pairs train DPO")
    dev: int = Field(ge=1, description="dev images; the judge is measured on them")
    dev_images: Images = Field(description="pictures that no training uses")
    prompts: list[str] = Field(default=[DESCRIBE_PROMPT], min_length=1, description="one is drawn an image")


class Recipe(StageRecipe):
    """The recipe of `align instructions`."""

    name: str = "instructions"
    image_root: Path = Field(description="folder that all image paths are relative to")
    images: Images = Field(description="the train pictures")
    questions: Questions
    captions: Captions
    mixture: Mixture = Mixture()
    num_rows: int | None = Field(default=None, ge=1, description="rows to write; null: all that fit")
    prompts: Prompts
    exclude: list[Path] = Field(
        default=[], description="COCO-format files of evaluation images; their image ids never enter"
    )


@dataclass
class Pictures:
    """Usable pictures by id: path under the image root, and sha256 of the bytes once it was needed."""

    root: Path
    paths: dict[int, str]
    tally: Tally
    _sha256: dict[int, str | None] = field(default_factory=dict)

    def sha256(self, image_id: int) -> str | None:
        """The picture's identity; None (counted, with the reason) for one that cannot be used."""
        if image_id not in self._sha256:
            self._sha256[image_id] = self._check(image_id)
        return self._sha256[image_id]

    def _check(self, image_id: int) -> str | None:
        try:
            path = resolve_image(self.root, self.paths[image_id])
            image_size(path)
        except AlignError as error:
            self.tally.drop(error.what.split(":")[0], self.paths[image_id])
            return None
        self.tally.keep()
        return digest_file(path)


def run(recipe: Recipe) -> RunFolder:
    """Write the rows; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: a malformed or empty input file, or nothing left to write.
    """
    folder = RunFolder.open(recipe, _inputs(recipe))
    if folder.is_complete:
        return folder
    with folder:
        excluded = {image_id for path in recipe.exclude for image_id in load_images(path)}
        train = _pictures(recipe, recipe.images, excluded, "train images")
        dev = _pictures(recipe, recipe.prompts.dev_images, excluded, "dev images")
        _check_disjoint(train, dev)
        question_tally, caption_tally = Tally("questions"), Tally("captions")
        dialogues = _dialogues(recipe, train, question_tally)
        captions = _caption_rows(recipe, train, caption_tally)
        rows = _mix(recipe, dialogues, captions)
        prompts = _prompt_rows(recipe, train, dev)
        for tally in (train.tally, dev.tally, question_tally, caption_tally):
            tally.show()
        num_rows = write_rows(folder.work / "instructions.parquet", rows)
        write_rows(folder.work / "prompts.parquet", prompts)
        tallies = {
            tally.what: tally.to_json() for tally in (train.tally, dev.tally, question_tally, caption_tally)
        }
        (folder.work / "dropped.json").write_text(json.dumps(tallies, indent=1, sort_keys=True) + "\n")
        metrics = _metrics(rows, prompts)
        say(f"  {num_rows} rows ({metrics['dialogues']} dialogues, {metrics['captions']} captions)")
        say(f"  {metrics['prompts_train']} train and {metrics['prompts_dev']} dev prompts")
        folder.complete(metrics=metrics, next_step="align sft RECIPE")
    return folder


def _inputs(recipe: Recipe) -> dict[str, str | Path]:
    inputs: dict[str, str | Path] = {
        "images": recipe.images.annotations,
        "questions": recipe.questions.questions,
        "annotations": recipe.questions.annotations,
        "captions": recipe.captions.annotations,
        "dev_images": recipe.prompts.dev_images.annotations,
    }
    return inputs | {f"exclude_{number}": path for number, path in enumerate(recipe.exclude)}


def _pictures(recipe: Recipe, images: Images, excluded: set[int], what: str) -> Pictures:
    """The pictures of a file, without the evaluation images."""
    tally, paths = Tally(what), {}
    for image_id, name in sorted(load_images(images.annotations).items()):
        if image_id in excluded:
            tally.drop("is an evaluation image", name)
        else:
            paths[image_id] = images.prefix + name
    if not paths:
        raise AlignError(f"no {what} left", where=str(images.annotations), fix="look at `exclude`")
    return Pictures(recipe.image_root, paths, tally)


def _check_disjoint(train: Pictures, dev: Pictures) -> None:
    shared = set(train.paths) & set(dev.paths)
    if shared:
        raise AlignError(
            f"{len(shared)} image ids are both train and dev, such as {min(shared)}",
            fix="the judge must be measured on images that no training uses",
        )


def _dialogues(recipe: Recipe, train: Pictures, tally: Tally) -> list[SFTRow]:
    """Dialogues of up to `turns` questions on one image, in a seeded order within the image."""
    section = recipe.questions
    by_image: dict[int, list[VqaQuestion]] = {}
    for question in load_questions(section.questions, section.annotations):
        reason = _unusable(question, section, train)
        if reason:
            tally.drop(reason, str(question.id))
        else:
            by_image.setdefault(question.image_id, []).append(question)
    rows = []
    for image_id, questions in sorted(by_image.items()):
        rng = random.Random(f"{recipe.seed} dialogue {image_id}")
        rng.shuffle(questions)
        for extra in questions[section.max_per_image :]:
            tally.drop("more than max_per_image", str(extra.id))
        chosen = questions[: section.max_per_image]
        tally.keep(len(chosen))
        for number, start in enumerate(range(0, len(chosen), section.turns)):
            turns = chosen[start : start + section.turns]
            suffix = section.suffix if rng.random() < section.suffix_share else ""
            rows.append(_dialogue(f"vqa-{image_id}-{number}", train.paths[image_id], turns, suffix))
    return rows


def _unusable(question: VqaQuestion, section: Questions, train: Pictures) -> str:
    if question.image_id not in train.paths:
        return "image is not a train image"
    if not question.answer.strip() or not question.question.strip():
        return "empty question or answer"
    if question.agreement < section.min_agreement * question.num_answers:
        return "annotators disagree"
    return "" if train.sha256(question.image_id) else "image cannot be used"


def _dialogue(row_id: str, image: str, questions: list[VqaQuestion], suffix: str) -> SFTRow:
    messages = []
    for question in questions:
        messages.append(Message(role="user", content=question.question + suffix))
        messages.append(Message(role="assistant", content=written_answer(question.answer)))
    meta = {"kind": "questions", "image_id": questions[0].image_id, "questions": [q.id for q in questions]}
    return SFTRow(id=row_id, images=[image], messages=messages, meta=meta)


def written_answer(answer: str) -> str:
    """An annotator's answer as an assistant writes it: `Yes`, `No`; the rest stays as it is."""
    return answer.strip().capitalize() if answer.strip().lower() in ("yes", "no") else answer.strip()


def _caption_rows(recipe: Recipe, train: Pictures, tally: Tally) -> list[SFTRow]:
    section = recipe.captions
    rows = []
    for image_id, captions in sorted(load_captions(section.annotations).items()):
        usable = image_id in train.paths and train.sha256(image_id)
        rng = random.Random(f"{recipe.seed} caption {image_id}")
        order = list(range(len(captions)))
        rng.shuffle(order)
        for number, index in enumerate(order):
            if not usable or not captions[index] or number >= section.max_per_image:
                reason = "image is not a usable train image" if not usable else "more than max_per_image"
                tally.drop(reason if captions[index] else "empty caption", f"{image_id}[{index}]")
                continue
            tally.keep()
            turns = [
                Message(role="user", content=rng.choice(section.prompts)),
                Message(role="assistant", content=captions[index]),
            ]
            meta = {"kind": "captions", "image_id": image_id}
            row_id = f"caption-{image_id}-{index}"
            rows.append(SFTRow(id=row_id, images=[train.paths[image_id]], messages=turns, meta=meta))
    return rows


def _mix(recipe: Recipe, dialogues: list[SFTRow], captions: list[SFTRow]) -> list[SFTRow]:
    """Rows in the mixture's shares, as many as `num_rows` and the scarcer kind allow, shuffled.

    Raises:
        AlignError: a kind with a weight above zero has no rows.
    """
    weights = {"questions": recipe.mixture.questions, "captions": recipe.mixture.captions}
    available = {"questions": dialogues, "captions": captions}
    total = sum(weights.values())
    if total == 0:
        raise AlignError("both mixture weights are 0", where="mixture")
    limits = [float(recipe.num_rows or "inf")]
    for kind, weight in weights.items():
        if weight and not available[kind]:
            raise AlignError(f"no rows of kind {kind}", where=f"mixture.{kind}", fix="see the dropped table")
        limits += [len(available[kind]) * total / weight] if weight else []
    rows = []
    for kind, weight in weights.items():
        pool = sorted(available[kind], key=lambda row: _order(recipe.seed, row.id))
        rows += pool[: round(min(limits) * weight / total)]
    return sorted(rows, key=lambda row: _order(recipe.seed + 1, row.id))


def _order(seed: int, row_id: str) -> str:
    """A seeded random place in a list that does not depend on the other rows."""
    return hashlib.sha256(f"{seed}:{row_id}".encode()).hexdigest()


def _prompt_rows(recipe: Recipe, train: Pictures, dev: Pictures) -> list[PromptRow]:
    rows = []
    for split, pictures, wanted in (("train", train, recipe.prompts.train), ("dev", dev, recipe.prompts.dev)):
        order = sorted(pictures.paths, key=lambda image_id: _order(recipe.seed, f"{split} {image_id}"))
        found = 0
        for image_id in order:
            sha256 = pictures.sha256(image_id) if found < wanted else None
            if sha256 is None:
                continue
            found += 1
            text = random.Random(f"{recipe.seed} prompt {image_id}").choice(recipe.prompts.prompts)
            meta = {"split": split, "image_id": image_id, "image_sha256": sha256}
            prompt = [Message(role="user", content=text)]
            row_id = f"{split}-{image_id}"
            rows.append(PromptRow(id=row_id, images=[pictures.paths[image_id]], prompt=prompt, meta=meta))
        if found < wanted:
            say(f"  only {found} of {wanted} {split} prompts: no more images")
    return sorted(rows, key=lambda row: row.id)


def _metrics(rows: list[SFTRow], prompts: list[PromptRow]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "dialogues": sum(row.meta["kind"] == "questions" for row in rows),
        "captions": sum(row.meta["kind"] == "captions" for row in rows),
        "images": len({image for row in rows for image in row.images}),
        "prompts_train": sum(row.meta["split"] == "train" for row in prompts),
        "prompts_dev": sum(row.meta["split"] == "dev" for row in prompts),
    }
