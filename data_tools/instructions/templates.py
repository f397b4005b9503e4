"""Questions and answers made of COCO instances by templates: is it there, how many, what is there.

Several phrasings a task, for questions and for answers. Half of the objects that are asked for are absent,
and half of those are what usually stands beside what is there (POPE's adversarial setting, Li et al. 2023,
arXiv 2305.10355): a model that answers by what goes together is taught that it must look.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from align.config.recipe import Strict
from align.judging.wording import fill
from align.objects.coco import load_instances, load_section
from align.objects.plurals import plural, with_article
from align.rows.schema import Message, SFTRow
from data_tools.material.co_occurrence import CoOccurrence

Task = Literal["exists", "count", "list"]
_LIKELY = 5

_EXISTS = (
    "Is there {object} in the image?",
    "Do you see {object} in this picture?",
    "Can you find {object} here?",
    "Does the picture show {object}?",
    "I am looking for {object}. Is there one?",
    "Is {object} visible?",
)
_EXISTS_YES = ("Yes.", "Yes, there is.", "Yes, the picture shows {object}.", "Yes, I can see {object}.")
_EXISTS_NO = ("No.", "No, there is not.", "No, I can't see {object}.", "No, there is no such thing in it.")
_COUNT = (
    "How many {objects} are there?",
    "Count the {objects} in the picture.",
    "How many {objects} can you see?",
    "What is the number of {objects} in this image?",
)
_COUNT_ANSWER = ("{number}.", "I count {number}.", "There are {number} of them.")
_LIST = (
    "What can be seen in this picture?",
    "Name the objects in the image.",
    "Which things does the picture show?",
    "List what you see.",
    "What objects are there?",
)
_LIST_ANSWER = ("{names}.", "I can see {names}.", "The picture shows {names}.", "There is {names}.")


class Templates(Strict):
    """Dialogues made of COCO instances."""

    kind: Literal["templates"]
    share: float = Field(default=0.2, ge=0, description="of the rows, against the other sources' shares")
    instances: Path = Field(description="COCO instances file of the train pictures")
    tasks: list[Task] = Field(
        default=["exists", "count", "list"], min_length=1, description="kinds of questions"
    )
    turns: int = Field(default=4, ge=1, description="most questions in one dialogue")
    max_per_task: int = Field(default=2, ge=1, description="most questions of one kind on one image")
    most_counted: int = Field(default=6, ge=2, description="more than so many are not asked to be counted")

    def inputs(self) -> dict[str, Path]:
        """For `run_stage`."""
        return {"instances": self.instances}


def load_counts(path: Path) -> dict[int, Counter[str]]:
    """Image id -> how many instances of each object; objects annotated as a crowd are left out."""
    names = load_instances(path).objects
    category = {row["id"]: str(row["name"]) for row in load_section(path, "categories")}
    counts: dict[int, Counter[str]] = {image_id: Counter() for image_id in names}
    crowds: dict[int, set[str]] = {image_id: set() for image_id in names}
    for row in load_section(path, "annotations"):
        name = category[row["category_id"]]
        counts[row["image_id"]][name] += 1
        if row.get("iscrowd"):
            crowds[row["image_id"]].add(name)
    for image_id, doubtful in crowds.items():
        for name in doubtful:
            del counts[image_id][name]
    return counts


def template_dialogues(
    section: Templates, paths: Mapping[int, str], present: Mapping[int, list[str]], seed: int
) -> Iterator[SFTRow]:
    """One dialogue an image that has objects, its questions drawn and ordered by seed.

    Args:
        paths: image id -> path, of the pictures to use.
        present: image id -> the objects in it, crowds included.
    """
    counts = load_counts(section.instances)
    table = CoOccurrence.of({image_id: set(names) for image_id, names in present.items()})
    for image_id in sorted(set(paths) & {image_id for image_id, names in present.items() if names}):
        rng = random.Random(f"{seed} templates {image_id}")
        turns: list[tuple[str, str, str]] = []
        for task in section.tasks:
            asked = {
                "exists": lambda: _exists(present[image_id], table, section.max_per_task, rng),  # noqa: B023
                "count": lambda: _count(counts[image_id], section, rng),  # noqa: B023
                "list": lambda: _list(present[image_id], rng),  # noqa: B023
            }[task]()
            turns += [(task, question, answer) for question, answer in asked]
        rng.shuffle(turns)
        turns = turns[: section.turns]
        if not turns:
            continue
        messages = []
        for _, question, answer in turns:
            messages += [Message(role="user", content=question), Message(role="assistant", content=answer)]
        meta = {"kind": "templates", "image_id": image_id, "tasks": [task for task, _, _ in turns]}
        yield SFTRow(id=f"template-{image_id}", images=[paths[image_id]], messages=messages, meta=meta)


def _exists(present: list[str], table: CoOccurrence, most: int, rng: random.Random) -> list[tuple[str, str]]:
    """`most` questions, alternately about what is there and what is not."""
    absent_likely = table.likeliest(present, _LIKELY)
    absent_any = sorted(set(table.images) - set(present))
    asked: list[tuple[str, str]] = []
    used: set[str] = set()
    want_present = rng.random() < 0.5
    for _ in range(most):
        pool = present if want_present else absent_likely if rng.random() < 0.5 else absent_any
        pool = [name for name in pool if name not in used]
        if pool:
            name = rng.choice(pool)
            used.add(name)
            answers = _EXISTS_YES if want_present else _EXISTS_NO
            words = {"object": with_article(name)}
            asked.append((fill(rng.choice(_EXISTS), words), fill(rng.choice(answers), words)))
        want_present = not want_present
    return asked


def _count(counts: Counter[str], section: Templates, rng: random.Random) -> list[tuple[str, str]]:
    names = sorted(name for name, number in counts.items() if 2 <= number <= section.most_counted)
    rng.shuffle(names)
    return [
        (
            fill(rng.choice(_COUNT), {"objects": plural(name)}),
            fill(rng.choice(_COUNT_ANSWER), {"number": str(counts[name])}),
        )
        for name in names[: section.max_per_task]
    ]


def _list(present: list[str], rng: random.Random) -> list[tuple[str, str]]:
    phrases = [with_article(name) for name in sorted(present)]
    names = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    answer = fill(rng.choice(_LIST_ANSWER), {"names": names})
    return [(rng.choice(_LIST), answer[:1].upper() + answer[1:])]
