"""One pass over a dataset: decide on each row, count, and write what fits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.progress import Bar
from align.rows.kinds import file_class
from align.rows.parts import Part, split_rows
from align.rows.quarantine import Quarantine
from align.rows.schema import PreferenceRow, SFTRow, read_rows
from align.rows.tally import Tally
from align.rows.writing import RowWriter
from data_tools.preflight.decide import Decider, Decision, Headers, Row
from data_tools.preflight.engines import EngineName, run_parts
from data_tools.preflight.lengths import Lengths
from data_tools.preflight.memory import step_memory

if TYPE_CHECKING:
    from align.planning.memory_plan import MemoryPlan

_ROWS_AT_ONCE = 512
RESIZED = "resized"
"""Folder under the image root for smaller copies of pictures."""


@dataclass(frozen=True)
class Request:
    """What to look at.

    Attributes:
        max_length: most tokens of a sequence; None counts only.
        min_scale: how far pictures of a row that is too long may shrink.
        out: where the rows that fit are written; None only reports.
        batch_size: rows of a training step, for the memory estimate.
        recompute: whether training uses gradient checkpointing.
        engine: where rows are counted.
    """

    data: Path
    image_root: Path
    max_length: int | None = None
    min_scale: float = 0.5
    out: Path | None = None
    batch_size: int = 1
    recompute: bool = True
    max_pixels: int = 50_000_000
    engine: EngineName = "local"


@dataclass
class Outcome:
    """What was found.

    Attributes:
        tally: rows kept and dropped by reason; rows with smaller pictures count as kept.
        longest: length of every row that was counted, kept or not.
        kept: lengths of the rows kept; `images`: of those, the image tokens alone.
        resized: rows kept with smaller pictures, and the first of their ids.
        longest: of the rows kept.
        memory: of a step of such rows; None without the model's config.
    """

    tally: Tally
    counted: Lengths = field(default_factory=Lengths)
    kept: Lengths = field(default_factory=Lengths)
    images: Lengths = field(default_factory=Lengths)
    resized: int = 0
    resized_ids: list[str] = field(default_factory=list)
    longest: Decision | None = None
    memory: MemoryPlan | None = None

    def to_json(self) -> dict[str, Any]:
        """The report."""
        return {
            "rows": self.tally.to_json(),
            "resized": {"count": self.resized, "examples": self.resized_ids},
            "tokens": self.kept.summary(),
            "image_tokens": self.images.summary(),
            "buckets": self.kept.buckets(),
            "longest": self.counted.longest(),
            "memory": self.memory.to_json() if self.memory else None,
        }


def preflight(request: Request, processor: Any, checkpoint: Path) -> Outcome:
    """Decide on every row.

    Raises:
        AlignError: no such files, rows that are neither instructions nor pairs, or none that fits.
    """
    cls = file_class(request.data)
    if cls not in (SFTRow, PreferenceRow):
        raise AlignError(f"{cls.__name__}s are not trained on", where=str(request.data))
    if not request.image_root.is_dir():
        raise AlignError(f"no such folder: {request.image_root}", where="--image_root", fix="check the path")
    worker = RowCounter(request, cls, processor)
    beside = request.out or request.data
    with ExitStack() as stack:
        path = beside.with_name(beside.name + ".preflight.quarantine.jsonl")
        quarantine = stack.enter_context(Quarantine(path, "rows"))
        outcome = Outcome(quarantine.tally)
        out = stack.enter_context(RowWriter(cls, request.out)) if request.out else None
        bar = stack.enter_context(Bar("preflight", 0, "rows"))
        for counted in run_parts(request.engine, worker, split_rows(request.data)):
            for where, reason, raw in counted.bad:
                quarantine.add(where, "not a row", reason, raw)
            for decision in counted.decisions:
                _count(decision, outcome, quarantine)
                if out is not None and not decision.reason:
                    out.write(_resized(decision, request.image_root) if decision.resized else decision.row)
                bar.step()
        if not outcome.tally.kept:
            outcome.tally.show()
            raise AlignError("no row fits", where=str(request.data), fix=f"see {path}")
    assert outcome.longest is not None
    outcome.memory = step_memory(
        checkpoint, processor, outcome.longest, request.batch_size, request.recompute
    )
    return outcome


@dataclass(frozen=True)
class Counted:
    """A few rows: decisions, and (place, reason, raw) of those that are none."""

    decisions: list[Decision]
    bad: list[tuple[str, str, Any]]


class RowCounter:
    """Reads and counts the rows of a part; it and what it makes can be sent to other machines."""

    def __init__(self, request: Request, cls: type[Any], processor: Any) -> None:
        self._cls, headers = cls, Headers(request.image_root, request.max_pixels)
        self._decider = Decider(processor, headers, request.max_length, request.min_scale)

    def __call__(self, part: Part) -> Iterator[Counted]:
        """The part's rows in order, a few hundred at a time."""
        bad: list[tuple[str, str, Any]] = []

        def refuse(where: str, reason: str, raw: Any) -> None:
            bad.append((where, reason, raw))

        rows = read_rows(self._cls, part.path, refuse, part)
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            yield Counted(self._decider.decide(batch), bad[:])
            bad.clear()
        if bad:
            yield Counted([], bad)


def _count(decision: Decision, outcome: Outcome, quarantine: Quarantine) -> None:
    row = decision.row
    if decision.tokens is not None:
        outcome.counted.add(decision.tokens, row.id)
    if decision.reason:
        quarantine.add(row.id, decision.reason, decision.detail, row.model_dump())
        return
    assert decision.tokens is not None
    outcome.tally.keep()
    if outcome.longest is None or decision.tokens > (outcome.longest.tokens or 0):
        outcome.longest = decision
    outcome.kept.add(decision.tokens, row.id)
    outcome.images.add(decision.image_tokens, row.id)
    if decision.resized:
        outcome.resized += 1
        outcome.resized_ids += [row.id] if len(outcome.resized_ids) < Tally.max_examples else []


def _resized(decision: Decision, root: Path) -> Row:
    """The row with smaller copies of its pictures, which are written under the image root."""
    row, sizes = decision.row, decision.sizes
    worse = row.rejected_images if isinstance(row, PreferenceRow) else []
    names = [_smaller(root, name, size) for name, size in zip([*row.images, *worse], sizes, strict=True)]
    update: dict[str, Sequence[str]] = {"images": names[: len(row.images)]}
    if worse:
        update["rejected_images"] = names[len(row.images) :]
    return row.model_copy(update=update)


def _smaller(root: Path, name: str, size: tuple[int, int]) -> str:
    """A PNG of that size; made once."""
    height, width = size
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    relative = f"{RESIZED}/{digest}-{width}x{height}.png"
    path = root / relative
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        picture = open_image(resolve_image(root, name))
        partial = path.with_name(f".{path.name}.partial")
        picture.resize((width, height), 1).save(partial, "PNG")  # 1 is Lanczos
        partial.replace(path)
    return relative
