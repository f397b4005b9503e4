"""Rows for training, checked at the border and decoded lazily.

Everything that can be wrong with a row is found before the model is loaded: images are opened,
lengths counted, templates rendered. A bad row goes to `quarantine.jsonl` with its reason; an image
is decoded for training only when its batch is built.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

from align.digest import MANIFEST, digest_path
from align.errors import AlignError
from align.inputs.chat import keeps_places, sees_images
from align.inputs.checked_rows import CheckedFile, StoredRows, Summary, checks_key, taken
from align.inputs.checking import make_checks
from align.inputs.data_sets import SeveralSets
from align.inputs.images import image_file, open_image
from align.inputs.known_pictures import KnownPictures
from align.inputs.row_checks import TURNS, RowChecker, lacks_nothing, row_columns, row_texts
from align.inputs.text_rows import text_dataset
from align.progress import say
from align.rows.schema import PreferenceRow, SFTRow, raw_rows
from align.run.folder import RunFolder
from align.run.stage import QUARANTINE, open_quarantine

if TYPE_CHECKING:
    from datasets import Dataset

T = TypeVar("T", SFTRow, PreferenceRow)

CHECKED, PICTURES = "checked_rows", "pictures.db"
"""In a run's folder: what has been checked, for all stages and runs there."""
_NEARLY_ALL = 0.9


class DataSection(SeveralSets):
    """Which rows, and where their images are."""

    path: Path = Field(description="rows, .parquet or .jsonl")
    image_root: Path | None = Field(
        default=None, description="folder that the rows' image paths are relative to; null: no row has images"
    )
    strict: bool = Field(default=False, description="a bad row stops the stage instead of being quarantined")
    max_pixels: int = Field(default=50_000_000, gt=0, description="images larger than this are bad rows")

    def inputs(self) -> dict[str, Path]:
        """For `run_stage(inputs=...)`."""
        roots = [("images", self.image_root)]
        roots += [(f"images of {n}", one.image_root) for n, one in zip(self.names(), self.sets, strict=True)]
        files = {f"data of {n}": one.path for n, one in zip(self.names(), self.sets, strict=True)}
        return (files or {"data": self.path}) | {name: root for name, root in roots if root is not None}


@dataclass
class CheckedRows(Generic[T]):
    """Rows that can be trained on, in the file's order, and the reasons of those that cannot.

    Attributes:
        lengths: tokens of each row's longest sequence, image tokens included; empty where they are not known,
            which only a recipe without `trainer.max_length` allows.
        dropped: reason kind -> number of quarantined rows.
        first_bad: place and reason of the first of them, for a file without one good row.
        unlearnt: the first row with a turn that is not learnt; None without.
    """

    rows: Sequence[T] = field(default_factory=list)
    lengths: Sequence[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""
    unlearnt: int | None = None

    def take(self, places: Sequence[int]) -> CheckedRows[T]:
        """Those at these places."""
        lengths = [self.lengths[place] for place in places] if self.lengths else []
        unlearnt = next((n for n, place in enumerate(places) if place == self.unlearnt), None)
        return replace(self, rows=taken(self.rows, places), lengths=lengths, unlearnt=unlearnt)


def check_rows(
    cls: type[T],
    section: DataSection,
    processor: Any,
    max_length: int | None,
    folder: RunFolder,
    lacks: Callable[[T], str] = lacks_nothing,
    quarantine_name: str = QUARANTINE,
) -> CheckedRows[T]:
    """Read and check all rows, unless that was done before; writes `quarantine.jsonl` to the stage's folder.

    The main process checks, on all cores where the file is large; others wait for its result.

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
    _refuse_other_kind(cls, section.path)
    store = folder.final.parent / CHECKED
    pictures = KnownPictures(section.image_root, section.max_pixels, store / PICTURES)
    checker = RowChecker(cls, processor, max_length, pictures, lacks)
    if not checker.counts:
        say("  rows are not counted: it is not known how many tokens an image takes in this processor")
    found = CheckedFile(store / _key(checker, section, folder))
    if found.is_whole():
        say(f"  rows checked before: {found.folder}")
    elif folder.is_main:
        make_checks(checker, section.path, found)
    found.wait()
    refused = AlignError("bad row", fix="mend it, or data.strict: false") if section.strict else None
    with open_quarantine(folder, "rows", refused, quarantine_name) as quarantine:
        for line in found.bad():
            quarantine.add(line["where"], line["kind"], line["reason"], row_id=line["row_id"])
    summary = found.summary()
    rows = found.rows(cls) if summary.rows else []
    lengths = rows.dataset["length"][:] if isinstance(rows, StoredRows) and summary.counted else []
    tally = quarantine.tally
    checked: CheckedRows[T] = CheckedRows(rows, lengths, tally.dropped, quarantine.first, summary.unlearnt)
    if summary.placed and not keeps_places(processor):
        say("  this model's chat template writes a turn's pictures before its text, wherever the rows say")
    if summary.in_vain:
        say(f"  {summary.in_vain} of {summary.rows} rows hold thoughts, which are left out: thinking is off")
        say("  (model.thinking: true trains on them)")
    _report(checked, section.path, folder, quarantine_name)
    if sees_images(processor):
        _check_root(summary, section)
    return checked


def _key(checker: RowChecker[Any], section: DataSection, folder: RunFolder) -> str:
    """What the checks depend on; the pictures' digest is that of the stage's manifest where it has one."""
    root = section.image_root
    inputs = json.loads((folder.work / MANIFEST).read_text(encoding="utf-8"))["inputs"]
    known = {item["path"]: item["digest"] for item in inputs.values()}
    several = "+".join(item["digest"] for name, item in inputs.items() if name.startswith("images of "))
    pictures = "" if root is None else known.get(str(root)) or several or digest_path(root)
    needs = getattr(checker.lacks, "__self__", None)
    limits = [checker.cls.__name__, checker.max_length, section.max_pixels, repr(needs)]
    return checks_key(section.path, pictures, checker.processor, limits)


def _check_root(summary: Summary, section: DataSection) -> None:
    """Refuse an image root below which nearly no row finds its pictures, whatever else there is to train
    on."""
    if summary.lost and summary.lost >= _NEARLY_ALL * summary.seeing:
        raise AlignError(
            f"{summary.lost} of {summary.seeing} rows with pictures have theirs nowhere below the image "
            f"root, {summary.example} for one",
            where=f"data.image_root = {section.image_root}",
            fix="name the folder that the rows' paths are relative to",
        )


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
    names = ["images", *(name for name in TURNS if name in type(rows[0]).model_fields)]
    if for_objective:
        names += ["id", "spans", "rejected_images", "margin"]
    if isinstance(rows, StoredRows):
        dataset = rows.dataset.select_columns(names)
    else:
        columns = map(row_columns, rows)
        dataset = Dataset.from_list([{name: own[name] for name in names} for own in columns])
    return dataset.with_transform(_decoder(section.image_root, section.max_pixels))


def _decoder(root: Path | None, max_pixels: int) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    def decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoded = dict(batch)
        for column in set(TURNS) & set(batch):
            decoded[column] = [json.loads(turns) for turns in batch[column]]
        for column in {"images", "rejected_images"} & set(batch):
            distinct = dict.fromkeys(name for names in batch[column] for name in names)
            opened = {name: open_image(image_file(root, name), max_pixels) for name in distinct}
            decoded[column] = [[opened[name] for name in names] for names in batch[column]]
        return decoded

    return decode


def _refuse_other_kind(cls: type[SFTRow] | type[PreferenceRow], path: Path) -> None:
    """A file that begins with the other stage's rows is no bad data but the wrong file."""
    first = next((raw for _, raw in raw_rows(path)), None)
    fields = set(first) if isinstance(first, dict) else set[str]()
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
