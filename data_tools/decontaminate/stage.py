"""Take rows out of training data that a benchmark also has: its pictures, however altered, and its texts.

  align decontaminate my/pairs.parquet --image_root my/images --against data/pope_images hashes/amber.parquet
  align decontaminate --against data/amber/image --write_hashes hashes/amber.parquet

Pictures are compared by bytes, by pixels, and by how they look: re-encoded, resized, turned and mirrored,
inverted, framed or padded, cropped (to 80% of each side, either way), rotated by a few degrees, written on,
and put into a collage. Documents (forms, slides, screens) that only share a template are none. What is
found and what is not, in numbers: docs/decontamination.md. Texts of eight words or more (characters in
scripts without spaces) are near-duplicates from a similarity of 0.8 on; one that very many rows repeat is a
phrasing, not a leak, and takes no row out. A benchmark is a folder of pictures, a file of rows (.json,
.jsonl with texts; .parquet with texts and pictures), or a hash list: the second command makes one, which
may be shared where pictures may not. Hashes are kept by the pictures' bytes (`hash_store`): a stopped run
goes on, the next is quick.

Writes `rows.parquet` (or .jsonl, as it came), `matches.jsonl` (what was found, where, and what was done to
it) and `dropped.json`. Next: `align audit`, or training.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from align.config.recipe import StageRecipe, validate
from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.progress import say, track
from align.rows.kinds import file_class
from align.rows.parts import count_rows
from align.rows.quarantine import Quarantine
from align.rows.schema import BaseRow, PreferenceRow, PromptRow, SFTRow, read_rows
from align.rows.tally import Tally
from align.rows.words import words_of
from align.rows.writing import RowWriter
from align.run.folder import RunFolder
from align.run.stage import QUARANTINE, Done, run_stage, write_dropped
from data_tools.decontaminate.hash_list import HashList, image_records, load_reference
from data_tools.decontaminate.hash_store import HashStore
from data_tools.decontaminate.matches import MAX_BITS, ImageIndex, ImageMatch, Thumbnail
from data_tools.decontaminate.perceptual import grey_thumbnail
from data_tools.decontaminate.shingles import TextIndex, shingle_hashes

HASHES = "hashes.parquet"
AnyRow = SFTRow | PreferenceRow | PromptRow


class Recipe(StageRecipe):
    """The recipe of `align decontaminate`."""

    run_dir: Path = Field(
        default=Path("runs"), description="folder of the run; the stage writes to run_dir/name"
    )
    how_keys: ClassVar[frozenset[str]] = frozenset({"hash_store"})
    name: str = "decontaminate"
    data: Path | None = Field(default=None, description="instruction, preference or prompt rows to clean")
    image_root: Path | None = Field(
        default=None, description="folder that the rows' image paths are relative to"
    )
    against: list[Path] = Field(
        min_length=1,
        description="benchmarks: folders of pictures, rows with texts or pictures, or hash lists",
    )
    text_fields: list[str] = Field(
        default=["question", "text", "query", "prompt"], description="fields of a benchmark's rows to compare"
    )
    write_hashes: Path | None = Field(default=None, description="where to put the hash list of `against`")
    hash_store: Path | None = Field(
        default=None,
        description="where hashes of pictures are kept; run_dir/picture_hashes.sqlite without it",
    )
    max_bits: int = Field(
        default=MAX_BITS,
        ge=0,
        le=256,
        description="hashes that differ in at most so many of 256 bits are compared closely",
    )
    min_words: int = Field(default=8, ge=1, description="shorter texts are not compared")
    similarity: float = Field(default=0.8, gt=0, le=1, description="least Jaccard similarity of shingles")
    max_repeats: int = Field(
        default=20, ge=1, description="a benchmark text that more rows repeat is a phrasing, and ignored"
    )

    @model_validator(mode="after")
    def _has_work(self) -> Recipe:
        if self.data is None and self.write_hashes is None:
            raise ValueError("give `data` to clean, or `write_hashes` to make a hash list")
        if self.data is not None and self.image_root is None:
            raise ValueError("`data` needs `image_root`")
        return self


@dataclass(frozen=True)
class Found:
    """What a row has in common with a benchmark: an image path or a text, and the reference's name."""

    kind: str
    what: str
    reference: str
    detail: float
    how: str = ""


def direct(words: Sequence[str]) -> int | None:
    """`align decontaminate [DATA] --against ...`; None where the words name a recipe."""
    if "--against" not in words:
        return None
    parser = argparse.ArgumentParser(
        prog="align decontaminate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="rows to clean, .parquet or .jsonl")
    parser.add_argument("--against", nargs="+", required=True, help="folders of pictures, texts, hash lists")
    parser.add_argument("--image_root", help="folder that the rows' image paths are relative to")
    parser.add_argument("--write_hashes", help="write the hash list of what is compared against")
    parser.add_argument("--run_dir", default="runs", help="folder of the run")
    parser.add_argument("--name", default="decontaminate", help="the stage's folder inside it")
    parser.add_argument("--max_bits", type=int, default=MAX_BITS, help="see `align decontaminate --help`")
    values = {key: value for key, value in vars(parser.parse_args(words)).items() if value is not None}
    run(validate(Recipe, values, where="command line"))
    return 0


def run(recipe: Recipe) -> RunFolder:
    """Write the rows that no benchmark has; byte-equal for the same recipe and inputs.

    Raises:
        AlignError: nothing to compare with, a bad row, or no row left.
    """
    inputs: dict[str, str | Path] = {f"against_{n}": path for n, path in enumerate(recipe.against)}
    if recipe.data is not None:
        inputs["data"] = recipe.data
    folder = run_stage(recipe, inputs, lambda folder: _work(recipe, folder.work))
    if recipe.write_hashes is not None:
        recipe.write_hashes.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.final / HASHES, recipe.write_hashes)
        say(f"  hash list: {recipe.write_hashes}")
    return folder


def _work(recipe: Recipe, out: Path) -> Done:
    reference = HashList()
    store = HashStore(recipe.hash_store or recipe.run_dir / "picture_hashes.sqlite")
    for path in recipe.against:
        part = load_reference(path, recipe.text_fields, store)
        say(f"  {path}: {len(part.images)} pictures, {len(part.texts)} texts")
        reference.images += part.images
        reference.texts += part.texts
    metrics: dict[str, Any] = {"pictures": len(reference.images), "texts": len(reference.texts)}
    if recipe.write_hashes is not None:
        reference.write(out / HASHES)
    if recipe.data is not None:
        metrics |= clean(recipe, recipe.data, reference, store, out)
    return Done(metrics, _next_step(recipe))


def _next_step(recipe: Recipe) -> str:
    if recipe.data is None:
        return ""
    return "align audit PAIRS" if row_kind(recipe.data) is PreferenceRow else "align sft RECIPE"


def clean(recipe: Recipe, data: Path, reference: HashList, store: HashStore, out: Path) -> dict[str, Any]:
    """Write `rows`, `matches.jsonl` and `dropped.json` to `out`; the counts.

    Raises:
        AlignError: no row is left.
    """
    cls = row_kind(data)
    texts, names, total = TextMatcher(recipe, reference), set[str](), count_rows(data)
    for row in track(read_rows(cls, data, lambda where, reason, raw: None), "reading rows", total):
        names.update(_images(row))
        texts.count(row)
    bad_images = match_images(recipe, sorted(names), reference, store)
    tally = Tally("rows")
    kept = RowWriter(cls, out / f"rows{data.suffix}")
    bad = Quarantine(out / QUARANTINE, "rows")
    with kept, bad, (out / "matches.jsonl").open("w", encoding="utf-8") as lines:
        for row in track(read_rows(cls, data, bad.refuse), "writing rows", total):
            found = [*_image_findings(row, bad_images), *texts.findings(row)]
            for item in found:
                lines.write(json.dumps({"id": row.id, **vars(item)}) + "\n")
            if found:
                tally.drop(found[0].kind, row.id)
            else:
                tally.keep()
                kept.write(row)
    if unsound := bad.tally.dropped.total():
        tally.drop("unsound row", bad.first, unsound)
    tally.show()
    texts.show()
    write_dropped(out, [tally])
    if not tally.kept:
        raise AlignError("no row left", where=str(data), fix="is the benchmark itself the training data?")
    rows = tally.kept + tally.dropped.total()
    return {"rows": rows, "kept": tally.kept, "dropped": dict(tally.dropped)}


def row_kind(data: Path) -> type[SFTRow] | type[PreferenceRow] | type[PromptRow]:
    """The class of the rows to clean.

    Raises:
        AlignError: neither instruction rows, nor pairs, nor prompts.
    """
    cls = file_class(data)
    for known in (SFTRow, PreferenceRow, PromptRow):
        if cls is known:
            return known
    raise AlignError(
        f"cannot clean {cls.__name__} rows", where=str(data), fix="give instruction rows, pairs or prompts"
    )


def match_images(
    recipe: Recipe, names: Sequence[str], reference: HashList, store: HashStore
) -> dict[str, ImageMatch]:
    """Image path -> the benchmark picture that it is; a picture that cannot be read is none."""
    root = recipe.image_root
    assert root is not None
    if not names or not reference.images:
        return {}
    index = ImageIndex(reference.images, recipe.max_bits)
    found, unread = {}, Tally("pictures compared")
    for name, record, fault in image_records(root, names, store):
        if record is None:
            unread.drop(fault.split(":")[0], name)
            continue
        unread.keep()
        if (match := index.match(record, lambda name=name: _thumbnail(root, name))) is not None:
            found[name] = match
    unread.show()
    return found


def _thumbnail(root: Path, name: str) -> Thumbnail:
    return grey_thumbnail(open_image(resolve_image(root, name)))


class TextMatcher:
    """Near-duplicates of benchmark texts; `count` sees every row before `findings` is asked.

    A benchmark text that more than `max_repeats` rows repeat is ignored.
    """

    def __init__(self, recipe: Recipe, reference: HashList) -> None:
        self._recipe = recipe
        long = [text for text in reference.texts if len(text.shingles) > recipe.min_words - 3]
        self._names = [text.name for text in long]
        self._index = TextIndex([text.shingles for text in long])
        self._cache: dict[str, tuple[int, float] | None] = {}
        self._rows: Counter[int] = Counter()

    def count(self, row: AnyRow) -> None:
        """Note which benchmark texts a row repeats."""
        self._rows.update({number for _, number, _ in self._matches(row)})

    def findings(self, row: AnyRow) -> Iterator[Found]:
        """What a row repeats that is no mere phrasing."""
        for text, number, similarity in self._matches(row):
            if self._rows[number] <= self._recipe.max_repeats:
                yield Found("near-duplicate text", text[:200], self._names[number], round(similarity, 4))

    def show(self) -> None:
        """Say which benchmark texts were taken for phrasings."""
        common = {n: count for n, count in self._rows.items() if count > self._recipe.max_repeats}
        for number, count in sorted(common.items(), key=lambda item: (-item[1], item[0]))[:5]:
            say(f"    ignored: {self._names[number]} is repeated by {count} rows, more than max_repeats")

    def _matches(self, row: AnyRow) -> list[tuple[str, int, float]]:
        found = []
        for text in _texts(row):
            if text not in self._cache:
                long = len(words_of(text)) >= self._recipe.min_words
                best = self._index.best(shingle_hashes(text)) if long else None
                self._cache[text] = best if best and best[1] >= self._recipe.similarity else None
            match = self._cache[text]
            if match is not None:
                found.append((text, *match))
        return found


def _image_findings(row: AnyRow, bad: dict[str, ImageMatch]) -> Iterator[Found]:
    for name in _images(row):
        if name in bad:
            match = bad[name]
            yield Found(f"picture: {match.kind}", name, match.reference, float(match.bits), match.how)


def _images(row: BaseRow) -> list[str]:
    worse = row.rejected_images if isinstance(row, PreferenceRow) else []
    return [*getattr(row, "images", []), *worse]


def _texts(row: AnyRow) -> list[str]:
    if isinstance(row, SFTRow):
        messages = row.messages
    elif isinstance(row, PreferenceRow):
        messages = [*row.prompt, *row.chosen, *row.rejected]
    else:
        messages = row.prompt
    return [message.text for message in messages if message.role != "system"]
