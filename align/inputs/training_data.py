"""Rows for training, checked at the border and decoded lazily.

Everything that can be wrong with a row is found before the model is loaded: images are opened,
lengths counted, templates rendered. A bad row goes to `quarantine.jsonl` with its reason; an image
is decoded for training only when its batch is built.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import check_text, image_tokens, keeps_places, render, sees_images
from align.inputs.image_tokens import has_rule
from align.inputs.images import image_size, open_image, resolve_image
from align.inputs.text_rows import text_dataset
from align.models.families import processor_facts
from align.progress import Bar, say
from align.rows.foreign import MARKER
from align.rows.schema import Message, PreferenceRow, SFTRow, check_row, raw_rows
from align.run.folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

T = TypeVar("T", SFTRow, PreferenceRow)

QUARANTINE = "quarantine.jsonl"
_LOST = ("missing image", "image path leaves", "no data.image_root")
_NEARLY_ALL = 0.9
_TURNS = {"messages", "prompt", "chosen", "rejected"}


class DataSection(Strict):
    """Which rows, and where their images are."""

    path: Path = Field(description="rows, .parquet or .jsonl")
    image_root: Path | None = Field(
        default=None, description="folder that the rows' image paths are relative to; null: no row has images"
    )
    strict: bool = Field(default=False, description="a bad row stops the stage instead of being quarantined")
    max_pixels: int = Field(default=50_000_000, gt=0, description="images larger than this are bad rows")

    def inputs(self) -> dict[str, Path]:
        """For `RunFolder.open(inputs=...)`."""
        return {"data": self.path} | ({} if self.image_root is None else {"images": self.image_root})


@dataclass
class CheckedRows(Generic[T]):
    """Rows that can be trained on, in the file's order, and the reasons of those that cannot.

    Attributes:
        lengths: tokens of each row's longest sequence, image tokens included; empty where they are not known,
            which only a recipe without `trainer.max_length` allows.
        dropped: reason kind -> number of quarantined rows.
        first_bad: place and reason of the first of them, for a file without one good row.
    """

    rows: list[T] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""


class _Quarantine:
    """Collects bad rows; in strict mode the first one is an error."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.lines: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()

    def add(self, where: str, row_id: str, kind: str, reason: str) -> None:
        if self.strict:
            place = f"{where} {row_id}".strip()
            what = reason if reason.startswith("bad ") else f"bad row: {reason}"
            raise AlignError(what, where=place, fix="mend it, or data.strict: false")
        self.lines.append({"where": where, "id": row_id, "reason": reason})
        self.counts[kind] += 1

    def write(self, path: Path) -> None:
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")


def check_rows(
    cls: type[T],
    section: DataSection,
    processor: Any,
    max_length: int | None,
    folder: RunFolder,
    lacks: Callable[[T], str] = lambda row: "",
    quarantine_name: str = QUARANTINE,
) -> CheckedRows[T]:
    """Read and check all rows; writes `quarantine.jsonl` to the stage's folder.

    Args:
        max_length: longer rows are bad; None takes every row, also of a processor whose image tokens are not
            counted.
        lacks: what the stage needs and a row has not, in words; empty for a row that has all.
        quarantine_name: of the file in the stage's folder, for rows that are not the stage's main ones.

    Raises:
        AlignError: missing files, no row left, no rule for the processor's images with a `max_length`, or
            (strict) the first bad row.
    """
    if section.image_root is not None and not section.image_root.is_dir():
        raise AlignError(
            f"no such folder: {section.image_root}", where="data.image_root", fix="check the path"
        )
    quarantine = _Quarantine(section.strict)
    numbered = list(_without_repeated_ids(_read(cls, section.path, quarantine), quarantine))
    bad_images, sizes = _check_images([row for _, row in numbered], section)
    checked: CheckedRows[T] = CheckedRows()
    tokens = image_tokens(processor)
    kept: list[tuple[str, T, list[tuple[str, ...]]]] = []
    for where, row in numbered:
        broken = next((bad_images[name] for name in _image_names(row) if name in bad_images), None)
        if _image_names(row) and not sees_images(processor):
            broken = "the row has images, and the model reads text only"
        if broken:
            quarantine.add(where, row.id, "image", broken)
            continue
        missing = lacks(row) or _untrainable(row, processor)
        if missing:
            quarantine.add(where, row.id, "lacks", missing)
            continue
        try:
            check_text([message.text for message in _messages(row)], tokens)
            _check_markers(row)
            kept.append((where, row, row_texts(processor, row)))
        except AlignError as error:
            quarantine.add(where, row.id, "text", error.what)
    if max_length is None and sees_images(processor) and not has_rule(processor):
        say("  rows are not counted: it is not known how many tokens an image takes in this processor")
        checked.rows = [row for _, row, _ in kept]
    else:
        lengths = _lengths(processor, kept, sizes)
        for (where, row, _), (length, longest) in zip(kept, lengths, strict=True):
            if max_length is not None and longest > max_length:
                reason = f"{longest} tokens, more than trainer.max_length = {max_length}"
                quarantine.add(where, row.id, "too long", reason)
                continue
            checked.rows.append(row)
            checked.lengths.append(length)
    placed = any(message.num_images for row in checked.rows for message in _messages(row))
    if placed and not keeps_places(processor):
        say("  this model's chat template writes a turn's pictures before its text, wherever the rows say")
    checked.dropped = quarantine.counts
    checked.first_bad = next((f"{line['where']}: {line['reason']}" for line in quarantine.lines), "")
    if folder.is_main:
        quarantine.write(folder.work / quarantine_name)
    _report(checked, section.path, folder, quarantine_name)
    _check_root([row for _, row in numbered], bad_images, section)
    return checked


def _check_markers(row: SFTRow | PreferenceRow) -> None:
    """Refuse another tool's marker in a question: the row's pictures do not stand there, and no film does."""
    for turn in _messages(row):
        if turn.role == "user" and (found := MARKER.search(turn.text)):
            raise AlignError(
                f"a question with {found[0][:80]!r}, which marks nothing in rows of ours",
                fix="`align import` puts pictures where they are marked",
            )


def _check_root(
    rows: Sequence[SFTRow | PreferenceRow], bad_images: dict[str, str], section: DataSection
) -> None:
    """Refuse an image root below which nearly no row finds its pictures, whatever else there is to train
    on."""
    seeing = [row for row in rows if _image_names(row)]
    lost = [row for row in seeing if any(bad_images.get(n, "").startswith(_LOST) for n in _image_names(row))]
    if lost and len(lost) >= _NEARLY_ALL * len(seeing):
        raise AlignError(
            f"{len(lost)} of {len(seeing)} rows with pictures have theirs nowhere below the image root, "
            f"{_image_names(lost[0])[0]} for one",
            where=f"data.image_root = {section.image_root}",
            fix="name the folder that the rows' paths are relative to",
        )


def _untrainable(row: SFTRow | PreferenceRow, processor: Any) -> str:
    """Why an instruction row cannot be learnt as it says, in words; empty where it can."""
    if not isinstance(row, SFTRow):
        return ""
    if not sees_images(processor):
        unlearnt = not all(turn.loss for turn in row.messages)
        return (
            "a turn with loss: false; a text-only model is trained on every assistant turn"
            if unlearnt
            else ""
        )
    facts = processor_facts(processor)
    if facts is not None and facts.answers != "told":
        roles = [turn.role for turn in row.messages if turn.num_images or turn.role == "assistant"]
        if "user" in roles[roles.index("assistant") :]:
            return "an image after its first answer: this family's processor does not tell where answers are"
    return ""


def row_texts(processor: Any, row: SFTRow | PreferenceRow) -> list[tuple[str, ...]]:
    """The row's sequences as text segments that TRL tokenizes separately.

    SFT has one sequence of one segment; a pair has (prompt, chosen) and (prompt, rejected).

    Raises:
        AlignError: the template refuses the messages, or the prompt's text does not begin the whole text.
    """
    num_images = len(row.images)
    if isinstance(row, SFTRow):
        return [(render(processor, row.messages, num_images, add_generation_prompt=False),)]
    prompt = render(processor, row.prompt, num_images, add_generation_prompt=True)
    sequences: list[tuple[str, ...]] = []
    for side in (row.chosen, row.rejected):
        whole = render(processor, [*row.prompt, *side], num_images, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise AlignError("the chat template renders the prompt differently when an answer follows")
        sequences.append((prompt, whole[len(prompt) :]))
    return sequences


def lazy_dataset(
    rows: Sequence[SFTRow] | Sequence[PreferenceRow],
    section: DataSection,
    processor: Any,
    for_objective: bool = False,
) -> Dataset:
    """A `datasets.Dataset` with TRL's columns whose images are decoded when an item is read.

    Args:
        processor: or the tokenizer of a text-only model, for `align.inputs.text_rows.text_dataset`.
        for_objective: preference rows also have `id`, `spans`, `rejected_images` and `margin`.
    """
    from datasets import Dataset

    if not sees_images(processor):
        return text_dataset(rows, [row_texts(processor, row) for row in rows], processor, for_objective)
    columns = {"messages"} if isinstance(rows[0], SFTRow) else {"prompt", "chosen", "rejected"}
    if for_objective:
        columns |= {"id", "spans", "rejected_images"}
    plain = [row.model_dump(include={"images", *columns}) for row in rows]
    for values, row in zip(plain, rows, strict=True):
        # As JSON: Arrow knows no list of texts and parts, and would give every part every other one's keys.
        values |= {name: json.dumps(values[name]) for name in _TURNS & set(values)}
        if for_objective:
            values["margin"] = float(row.meta.get("margin") or 0.0)
    return Dataset.from_list(plain).with_transform(_decoder(section.image_root, section.max_pixels))


def _decoder(root: Path | None, max_pixels: int) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    def decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoded = dict(batch)
        for column in _TURNS & set(batch):
            decoded[column] = [json.loads(turns) for turns in batch[column]]
        for column in {"images", "rejected_images"} & set(batch):
            distinct = dict.fromkeys(name for names in batch[column] for name in names)
            opened = {name: open_image(image_file(root, name), max_pixels) for name in distinct}
            decoded[column] = [[opened[name] for name in names] for names in batch[column]]
        return decoded

    return decode


def image_file(root: Path | None, name: str) -> Path:
    """The file of a row's image.

    Raises:
        AlignError: no `image_root`, or none of that name in it.
    """
    if root is None:
        raise AlignError(f"no data.image_root for the image {name}")
    return resolve_image(root, name)


def _read(cls: type[T], path: Path, quarantine: _Quarantine) -> Iterator[tuple[str, T]]:
    """Rows with their place in the file (`line 3`, `row 3` of Parquet), which is what quarantine records."""
    separator, unit = (":", "line") if path.suffix == ".jsonl" else (" row ", "row")
    for number, (where, raw) in enumerate(raw_rows(path)):
        place = f"{unit} {where.rsplit(separator, 1)[-1]}"
        try:
            if isinstance(raw, AlignError):
                raise raw
            row = check_row(cls, raw, where)
        except AlignError as error:
            if number == 0 and isinstance(raw, dict):
                _refuse_other_kind(cls, set(raw), path)
            row_id = str(raw.get("id", "")) if isinstance(raw, dict) else ""
            quarantine.add(place, row_id, "schema", error.what)
            continue
        yield place, row


def _refuse_other_kind(cls: type[SFTRow] | type[PreferenceRow], fields: set[str], path: Path) -> None:
    """A file that begins with the other stage's rows is no bad data but the wrong file."""
    if cls is SFTRow and {"chosen", "rejected"} <= fields:
        raise AlignError(
            "these are preference pairs, not instruction rows",
            where=str(path),
            fix="train on them with `align dpo`",
        )
    if cls is PreferenceRow and "messages" in fields and not {"chosen", "rejected"} & fields:
        raise AlignError(
            "these are instruction rows, not preference pairs",
            where=str(path),
            fix="train on them with `align sft`; `align pairs` and `align import` make pairs",
        )


def _without_repeated_ids(rows: Iterator[tuple[str, T]], quarantine: _Quarantine) -> Iterator[tuple[str, T]]:
    """The first row of each id; reports and stores name rows by it."""
    first: dict[str, str] = {}
    for where, row in rows:
        if row.id in first:
            quarantine.add(where, row.id, "id", f"its id is that of {first[row.id]}")
            continue
        first[row.id] = where
        yield where, row


def _check_images(
    rows: Sequence[SFTRow | PreferenceRow], section: DataSection
) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """Decode each distinct image once; returns name -> fault, and name -> (height, width)."""
    names = sorted({name for row in rows for name in _image_names(row)})
    faults: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}

    def check(name: str) -> tuple[str, str, tuple[int, int]]:
        try:
            path = image_file(section.image_root, name)
            size = image_size(path, section.max_pixels)
            open_image(path, section.max_pixels)
            return name, "", size
        except AlignError as error:
            what = error.what if name in error.what else f"{error.what}: {name}"
            return name, what, (0, 0)

    with Bar("checking images", len(names), "images") as bar, ThreadPoolExecutor() as pool:
        for name, fault, size in pool.map(check, names):
            if fault:
                faults[name] = fault
            else:
                sizes[name] = size
            bar.step()
    return faults, sizes


def _lengths(
    processor: Any, kept: Sequence[tuple[str, Any, list[tuple[str, ...]]]], sizes: dict[str, tuple[int, int]]
) -> list[tuple[int, int]]:
    """Tokens of each row's longest sequence: with its images, and with whichever images take more."""
    asked = []
    for _, row, sequences in kept:
        worse = row.rejected_images if isinstance(row, PreferenceRow) else []
        for names in (row.images, worse or row.images):
            asked += [(sequence, [sizes[name] for name in names]) for sequence in sequences]
    counted = iter(TokenBudget(processor).lengths(asked))
    lengths = []
    for _, _, sequences in kept:
        own, other = (max(next(counted) for _ in sequences) for _ in range(2))
        lengths.append((own, max(own, other)))
    return lengths


def _image_names(row: SFTRow | PreferenceRow) -> list[str]:
    return row.images if isinstance(row, SFTRow) else [*row.images, *row.rejected_images]


def _messages(row: SFTRow | PreferenceRow) -> list[Message]:
    return row.messages if isinstance(row, SFTRow) else [*row.prompt, *row.chosen, *row.rejected]


def _report(checked: CheckedRows[Any], path: Path, folder: RunFolder, name: str) -> None:
    dropped = sum(checked.dropped.values())
    if dropped:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(checked.dropped.items()))
        total = dropped + len(checked.rows)
        place = (folder.final if checked.rows else folder.work) / name
        say(f"  {dropped} of {total} rows quarantined ({kinds}): see {place}")
    if not checked.rows:
        fix = f"see {folder.work / name}" if dropped else "the file holds no rows"
        first = f"; the first bad one, {checked.first_bad}" if dropped else ""
        raise AlignError(f"no rows to train on{first}", where=str(path), fix=fix)
    said = f"{len(checked.rows)} rows"
    if checked.lengths:
        said += f"; the longest has {max(checked.lengths)} tokens, image tokens included"
    say(f"  {said}")
