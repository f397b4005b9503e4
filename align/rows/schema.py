"""The rows that stages exchange, checked at every border, and how they are read and written.

Instruction and preference rows use TRL's conversational vision format; `align.rows.messages` says where in
the text their pictures stand. Images are paths relative to an image root that the reading recipe names, so a
row can never reach outside it. Candidates, verdicts, predictions and scores are append-only JSONL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from align.config.recipe import nearest
from align.errors import AlignError
from align.rows.columns import plain_rows
from align.rows.lines import open_lines, parsed
from align.rows.messages import BaseRow, Message, settled
from align.rows.parts import Part
from align.rows.thoughts import set_apart

Row = TypeVar("Row", bound=BaseRow)


class SFTRow(BaseRow):
    """An instruction row: turns that end with the assistant's, at least one of which is learnt."""

    id: str = Field(min_length=1)
    images: list[str] = []
    messages: list[Message] = Field(min_length=2)
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _last_is_assistant(self) -> SFTRow:
        if self.messages[-1].role != "assistant" or not self.messages[-1].text.strip():
            raise ValueError("the last message must be a non-empty assistant turn")
        if not any(message.loss for message in self.messages if message.role == "assistant"):
            raise ValueError("every assistant turn has loss: false; nothing of the row would be learnt")
        return self

    @model_validator(mode="after")
    def _settled(self) -> SFTRow:
        self.messages = settled(self.messages, len(self.images))
        return self


class PromptRow(BaseRow):
    """A question to sample answers to; `meta` has `split` (train or dev), `image_id`, `image_sha256`."""

    id: str = Field(min_length=1)
    images: list[str] = []
    prompt: list[Message] = Field(min_length=1)
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _settled(self) -> PromptRow:
        self.prompt = settled(self.prompt, len(self.images))
        return self


class Span(BaseRow):
    """Characters `start` to `end` (exclusive) of an answer, whose tokens have `weight`; all others have 1."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)
    weight: float = Field(ge=0)


class Spans(BaseRow):
    """Weighted spans of both answers' last turns."""

    chosen: list[Span] = []
    rejected: list[Span] = []


class PreferenceRow(BaseRow):
    """A preference pair: one prompt, a chosen and a rejected answer (one assistant turn each).

    `rejected_images`, as many as `images`, are worse ones for the same prompt and chosen answer; `spans`
    say which characters weigh more; `meta.margin` is the gap between the answers' scores.
    """

    id: str = Field(min_length=1)
    images: list[str] = []
    rejected_images: list[str] = []
    prompt: list[Message] = Field(min_length=1)
    chosen: list[Message] = Field(min_length=1)
    rejected: list[Message] = Field(min_length=1)
    spans: Spans = Field(default_factory=Spans)
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _answers_differ(self) -> PreferenceRow:
        for side in (self.chosen, self.rejected):
            if side[-1].role != "assistant" or not side[-1].text.strip():
                raise ValueError("chosen and rejected must end with a non-empty assistant turn")
            if any(message.num_images for message in side):
                raise ValueError("an image part in chosen or rejected; pictures belong to the prompt")
            if not all(message.loss for message in side):
                raise ValueError("loss: false in chosen or rejected; it belongs to instruction rows")
        if self.chosen[-1].text.split() == self.rejected[-1].text.split():
            raise ValueError("chosen and rejected are the same text")
        return self

    @model_validator(mode="after")
    def _settled(self) -> PreferenceRow:
        self.prompt = settled(self.prompt, len(self.images))
        return self

    @model_validator(mode="after")
    def _extras_fit(self) -> PreferenceRow:
        if self.rejected_images and len(self.rejected_images) != len(self.images):
            raise ValueError("rejected_images must be as many as images")
        for side, spans in ((self.chosen, self.spans.chosen), (self.rejected, self.spans.rejected)):
            if any(span.start >= span.end or span.end > len(side[-1].text) for span in spans):
                raise ValueError("a span is empty or reaches beyond its answer")
        return self


class Candidate(BaseRow):
    """One sampled answer. `id` is `<prompt_id>#<i>`; `finish_reason` is the server's, or `length` for
    thoughts that do not end. `reasoning` are the thoughts before it, which neither `text` holds nor
    `num_tokens` counts; `unclosed`: they do not end, and there is no answer.
    """

    id: str
    prompt_id: str
    images: list[str] = []
    prompt: list[Message]
    text: str
    finish_reason: str
    num_tokens: int
    reasoning: str = Field(default="", exclude_if=operator.not_)
    unclosed: bool = Field(default=False, exclude_if=operator.not_)
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _settled(self) -> Candidate:
        self.prompt = settled(self.prompt, len(self.images))
        set_apart(self)
        return self


ClaimKind = Literal[
    "presence", "number", "place", "colour", "relation", "attribute", "text", "action", "other"
]
"""The last four are of claims that a model has split, which are about no category of COCO's."""


class Claim(BaseRow):
    """One thing that an answer says of a picture, and what the judge makes of it.

    `p_yes` and `p_no` are first-token probabilities (0 to 1) that the claim is right and that it is wrong,
    summed over spellings; unscored claims have None. `category` is the object it is about and `value` what is
    said of it (`2`, `left`, `red`, `left of:dog`; empty for presence). Rows written before claims had kinds
    are claims of presence. `by_text`: the judge was read by its words, and the probabilities are 1 and 0.
    """

    text: str
    question: str
    p_yes: float | None = None
    p_no: float | None = None
    kind: ClaimKind = "presence"
    category: str = ""
    value: str = ""
    by_text: bool = Field(default=False, exclude_if=lambda by_text: not by_text)

    @model_validator(mode="after")
    def _names_its_object(self) -> Claim:
        if not self.category and self.kind == "presence":
            self.category = self.text
        return self

    @property
    def supported(self) -> bool | None:
        """True when the judge finds the claim in the picture, None when it could not be scored."""
        if self.p_yes is None or self.p_no is None:
            return None
        return self.p_yes >= self.p_no


class ClaimCount(BaseRow):
    """How many claims of one kind an answer makes: `true` and `false` by the judge; not counted in the score
    are `void` ones (said of an object that is denied), `unscored` and `left_out` ones (the judge is near
    chance at this kind)."""

    kind: ClaimKind
    true: int = 0
    false: int = 0
    void: int = 0
    unscored: int = 0
    left_out: int = 0


class Verdict(BaseRow):
    """A judge's score of one candidate; `score` None means unscored, with the reason.

    `counts` are the answer's claims by kind, and `repeated` the objects that it names again as if they were
    further ones; judges that ask no claims leave both empty.
    """

    candidate_id: str
    prompt_id: str
    judge: str
    prompt_sha256: str
    score: float | None
    unscored_reason: str = ""
    claims: list[Claim] = []
    counts: list[ClaimCount] = []
    repeated: list[str] = []
    meta: dict[str, Any] = {}


class Comparison(BaseRow):
    """A judge's choice between two answers to one prompt, asked in both orders.

    `winner` is None where a reply is none of the verdicts, with the reason; `meta` has the `letters` and the
    `replies` of both orders, the first one with `first_id` in the first place.
    """

    prompt_id: str
    first_id: str
    second_id: str
    judge: str
    prompt_sha256: str
    winner: Literal["first", "second", "tie"] | None
    unscored_reason: str = ""
    meta: dict[str, Any] = {}


class Prediction(BaseRow):
    """A model's answer to one evaluation sample. Exactly one of `text` and `error` is set.

    `key` is the content key: sha256 over model digest, rendered messages, image sha256 and sampling
    settings; samples of several tasks that ask the same thing share it. `reasoning` are the thoughts before
    the answer, told from it whoever wrote the row (`align.rows.thoughts`); `unclosed` ones do not end, and
    leave an empty `text` and the `finish_reason` length.
    """

    key: str
    task: str
    sample_id: str
    text: str | None = None
    error: str | None = None
    finish_reason: str = ""
    num_tokens: int = 0
    reasoning: str = Field(default="", exclude_if=operator.not_)
    unclosed: bool = Field(default=False, exclude_if=operator.not_)

    @model_validator(mode="after")
    def _answer_alone(self) -> Prediction:
        set_apart(self)
        return self


class Score(BaseRow):
    """One scored sample: `values` are per-sample numerators and denominators of the task's metrics,
    `cluster` is the unit that is resampled (the image), `parsed` is what the scorer understood."""

    task: str
    sample_id: str
    cluster: str
    parsed: Any = None
    values: dict[str, float]
    meta: dict[str, Any] = {}


def check_row(cls: type[Row], values: Any, where: str) -> Row:
    """Validate one row.

    Raises:
        AlignError: names the row (`where`), the field and the fault.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(cls, item) for item in error.errors()[:3])
        raise AlignError(f"bad {cls.__name__}: {faults}", where=where) from error


def _fault(cls: type[BaseRow], item: Any) -> str:
    place = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"unknown field {place!r}{nearest(place, cls.model_fields) if '.' not in place else ''}"
    if item["type"] == "missing":
        return f"missing field {place!r}"
    words = item["msg"].removeprefix("Value error, ")
    return f"{place}: {words}" if place else words


def read_rows(
    cls: type[Row],
    path: str | Path,
    quarantine: Callable[[str, str, Any], None] | None = None,
    part: Part | None = None,
) -> Iterator[Row]:
    """Stream rows from `.jsonl` or `.parquet`, each validated; `meta` may be stored as a JSON string.

    Args:
        quarantine: called as `quarantine(where, reason, raw)` for each bad row instead of raising.
        part: only these rows of the file.

    Raises:
        AlignError: missing or unreadable file, unknown format, or (without `quarantine`) a bad row.
    """
    path = Path(path)
    for where, raw in raw_rows(path, part):
        if isinstance(raw, AlignError):
            if quarantine is None:
                raise raw
            quarantine(where, raw.what, None)
            continue
        try:
            yield check_row(cls, raw, where)
        except AlignError as error:
            if quarantine is None:
                raise
            quarantine(where, error.what, raw)


def raw_rows(path: Path, part: Part | None = None) -> Iterator[tuple[str, Any]]:
    """(place, row or the error that it is) of each row of a file, or of a part of it, unvalidated.

    Raises:
        AlignError: missing or unreadable file, or an unknown format.
    """
    if path.is_dir():
        raise AlignError(f"a folder, not a file of rows: {path}", fix="name a .jsonl or .parquet file in it")
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    if path.suffix == ".jsonl":
        with open_lines(path, part) as lines:
            for number, line in enumerate(lines, part.first if part else 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                yield where, parsed(line, where)
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            groups = range(part.start, part.stop) if part else None
            number = part.first if part else 0
            # read by the page, not by the row group, which may be the whole file
            file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            for batch in file.iter_batches(batch_size=1024, row_groups=groups):
                for raw in plain_rows(batch):
                    where = f"{path} row {number}"
                    number += 1
                    if isinstance(raw, dict) and isinstance(raw.get("meta"), str):
                        raw["meta"] = parsed(raw["meta"], where)
                        if isinstance(raw["meta"], AlignError):
                            raw = AlignError(f"meta: {raw['meta'].what}", where=where)
                    yield where, raw
        except (ArrowException, OSError) as error:
            raise AlignError(f"not a readable Parquet file: {error}", where=str(path)) from error
    else:
        raise AlignError(f"unknown row format {path.suffix!r}", where=str(path), fix="use .jsonl or .parquet")


def write_rows(path: Path, rows: Iterable[BaseRow]) -> int:
    """Write rows of one class to `.jsonl` or `.parquet` (byte-deterministic for the same rows); the count.

    Raises:
        AlignError: no rows, for Parquet, which could not tell their columns.
    """
    from align.rows.writing import RowWriter

    stream = iter(rows)
    first = next(stream, None)
    if first is None and path.suffix == ".parquet":
        raise AlignError("no rows to write", where=str(path), fix="see the table of dropped rows above")
    with RowWriter(type(first) if first else BaseRow, path) as out:
        for row in chain([first] if first else [], stream):
            out.write(row)
    return out.count
