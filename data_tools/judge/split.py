"""Claims of any kind: a model splits an answer into atomic claims, each with the question that checks it.

After RLAIF-V's divide and conquer (Yu et al. 2024, arXiv 2405.17220, section 3.2), where a language model
splits an answer and turns each claim into a yes/no question; here in one reply, a line a claim. The reply is
read strictly: one line of another form, and the answer has no claims at all, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import Field, field_validator

from align.claims import PictureTruth, StatedClaim, check, claims_of
from align.config.recipe import Strict
from align.judging.endpoint import Endpoint
from align.judging.replies import Read, json_values, settled
from align.judging.wording import places
from align.rows.schema import ClaimKind
from data_tools.material.claims import split_objects

SPLIT_PROMPT = """\
Here is a question about a picture, and an answer to it. Split the answer into atomic claims about the \
picture. Each says one thing, can be understood without the others, and adds nothing to the answer. Leave \
out opinions, and whatever is not about the picture.

Question: {question}

Answer: {answer}

Write one line a claim and nothing else, in this form:
KIND | CLAIM | QUESTION
KIND is one of object (something is there), number, attribute (colour, material, state), place (where in \
the picture), relation (between two things), text (what is written there), action, other. QUESTION asks \
about the picture and is answered by yes if the claim is true. For example:
object | There is a lighthouse. | Is there a lighthouse in the picture?
attribute | The lighthouse is red. | Is the lighthouse red?
relation | The lighthouse stands left of the sailboats. | Does the lighthouse stand left of the sailboats?
If the answer claims nothing about the picture, write NONE."""

ASK = "{question}\nAnswer yes or no."

SPLIT_KINDS: Mapping[str, ClaimKind] = {
    "object": "presence",
    "presence": "presence",
    "existence": "presence",
    "number": "number",
    "count": "number",
    "attribute": "attribute",
    "colour": "attribute",
    "color": "attribute",
    "place": "place",
    "position": "place",
    "relation": "relation",
    "text": "text",
    "action": "action",
    "other": "other",
}
"""What a line may call a kind of claim -> the kind."""

_MARK = re.compile(r"^\s*(?:[-*•]\s+|\(?\d{1,3}[.):]\s+)")
_PLAIN = re.compile(r"there (?:is|are) (?:an? |some )?\w+(?: \w+)?(?: in the \w+)?\W*", re.I)
_LEAD = re.compile(r"^[^|]*:\s*$")


class Split(Strict):
    """How answers are split with `splitter: model`. One text request an answer, then one question a claim."""

    by: Endpoint | None = Field(
        default=None, description="the model that splits; it needs no pictures; null: the judge itself"
    )
    prompt: str = Field(
        default=SPLIT_PROMPT, description="has {question} and {answer}; see its form of a line"
    )
    ask: str = Field(default=ASK, description="how the judge is asked; {question} is the claim's question")
    max_tokens: int = Field(default=1024, ge=1, description="longest reply of the splitter, in tokens")

    @field_validator("prompt")
    @classmethod
    def _has_the_answer(cls, prompt: str) -> str:
        if "answer" not in places(prompt):
            raise ValueError("must contain {answer}")
        return prompt

    @field_validator("ask")
    @classmethod
    def _has_the_question(cls, ask: str) -> str:
        if "question" not in places(ask):
            raise ValueError("must contain {question}")
        return ask


@dataclass(frozen=True)
class SplitClaim:
    """One atomic claim, and the yes/no question that checks it."""

    kind: ClaimKind
    text: str
    question: str


def read_split(reply: str) -> Read[list[SplitClaim]]:
    """The claims of a splitter's reply, each once; an empty list for NONE.

    >>> read_split("object | There is a dog. | Is there a dog?").verdict
    [SplitClaim(kind='presence', text='There is a dog.', question='Is there a dog?')]
    >>> read_split("object | There is a dog. | Is there a dog?\\nIt barks.").reason
    "the splitter's reply has a line that is no claim: 'It barks.'"
    """
    behind = settled(reply)
    if behind.verdict is None:
        return Read(None, behind.reason)
    text = re.sub(r"^```\w*\s*$", "", behind.verdict, flags=re.M).strip()
    if re.fullmatch(r"\W*none\W*", text, re.I):
        return Read([])
    listed = [value for value in json_values(text) if isinstance(value, list)]
    rows = [_of_json(item) for item in listed[-1]] if listed and text.startswith("[") else _lines(text)
    found: dict[str, SplitClaim] = {}
    for row in rows:
        claim = _claim(row)
        if claim is None:
            return Read(None, f"the splitter's reply has a line that is no claim: {' | '.join(row)[:80]!r}")
        found.setdefault(claim.text.lower(), claim)
    return Read(list(found.values())) if found else Read(None, "the splitter's reply has no claim")


def _lines(text: str) -> list[list[str]]:
    rows = []
    for number, line in enumerate(filter(str.strip, text.splitlines())):
        cells = [cell.strip(" *`") for cell in _MARK.sub("", line).strip().strip("|").split("|")]
        is_head = cells[0].lower() == "kind" or not re.search(r"\w", line)
        if is_head or (number == 0 and _LEAD.match(line)):
            continue
        rows.append(cells)
    return rows


def _of_json(item: object) -> list[str]:
    if not isinstance(item, dict):
        return [str(item)]
    lowered = {str(key).lower(): str(value).strip() for key, value in item.items()}
    return [lowered.get(key, "") for key in ("kind", "claim", "question")]


def _claim(cells: list[str]) -> SplitClaim | None:
    if len(cells) != 3 or not all(cells):
        return None
    kind = SPLIT_KINDS.get(cells[0].lower())
    return None if kind is None or not cells[2].endswith("?") else SplitClaim(kind, cells[1], cells[2])


def split_truth(
    kind: ClaimKind, text: str, objects: Collection[str], picture: PictureTruth | None
) -> bool | None:
    """Whether a split claim is true of an annotated picture; None where the annotations don't say.

    Only claims that are about COCO's objects and say nothing else can be decided: `There is a dog.` by the
    objects, `The dog is brown.` by what `align.claims` reads of it.
    """
    if kind == "presence":
        plain = re.fullmatch(
            r"there (?:is|are) (?:an? |some |the )?\w+(?: \w+)?(?: in the \w+)?\W*", text.lower()
        )
        names = split_objects(text, "strict")
        return names[0] in objects if plain and len(names) == 1 else None
    wanted = "colour" if kind == "attribute" else kind
    stated: list[StatedClaim] = [claim for claim in claims_of(text) if claim.kind != "presence"]
    if picture is None or len(stated) != 1 or stated[0].kind != wanted:
        return None
    return check(stated[0], picture)
