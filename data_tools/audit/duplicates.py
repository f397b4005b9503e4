"""Pairs that occur again, nearly again, or the other way round: found in one pass, named whole.

Two pairs are about the same picture if its bytes are the same (`meta.image_sha256`, else the file where there
is an image root, else the path). Nearly the same are pairs whose prompt, chosen and rejected text each have a
Jaccard similarity of 0.9 and more, over shingles of three words. Candidates come from MinHash (Broder 1997)
in four bands of four minima, which at a similarity of 0.9 miss 1.4% and at 0.95 1 in 800; each is then
compared.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align.digest import digest_file
from align.errors import AlignError
from align.inputs.images import resolve_image
from align.rows.schema import PreferenceRow
from align.rows.words import words_of
from data_tools.audit.findings import MOST_ROWS, Finding
from data_tools.audit.reading import answers, prompt_text

_ALIKE = 0.9
_BANDS, _ROWS = 4, 4
_LEADERS = 6
"""Earlier pairs of one bucket that a pair is compared with."""
_LIKELY = 10
"""Of 16 minima so many agree, or two pairs are not compared: at a similarity of 0.9 fewer do once in
2,000."""
_STREAM = np.random.default_rng(20260101)
_ODD = _STREAM.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True)
class Duplicate:
    """A pair to take out, a line of `duplicates.jsonl`.

    Attributes:
        kind: `exact`, `near`, or `contradiction` (on a cycle of preferences; `of` is empty).
        of: the earlier pair that it repeats, by id.
        similarity: the least of prompt, chosen and rejected.
        row: its place in the file, from 0 over sound rows; ids may occur twice.
    """

    id: str
    kind: str
    of: str
    similarity: float
    row: int


class DuplicateCheck:
    """Repeats weigh a pair twice; contradictions are label noise.

    A contradiction is a prompt (with its pictures) where one answer is preferred to another and, directly or
    by other pairs, also the other to it: a cycle.

    Args:
        image_root: of the pictures, to tell them by their bytes.
    """

    def __init__(self, image_root: Path | None) -> None:
        self._root = image_root
        self._ids: list[str] = []
        self._first: dict[int, int] = {}
        self._exact: list[tuple[int, int]] = []
        self._edges: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._pictures: Counter[int] = Counter()
        self._used: Counter[int] = Counter()
        self._near = _NearIndex()
        self._key = lru_cache(maxsize=100_000)(self._picture_key)

    def add(self, row: PreferenceRow) -> None:
        """Compare one pair with those before."""
        place = len(self._ids)
        self._ids.append(row.id)
        names = [*row.images, *row.rejected_images]
        known = row.meta.get("image_sha256") if len(names) == 1 else None
        keys = [str(known)] if known else [self._key(name) for name in names]
        pictures, asked = "|".join(keys), prompt_text(row)
        chosen, rejected = answers(row)
        prompt, better, worse = _number(f"{pictures}\n{asked}"), _number(chosen), _number(rejected)
        self._pictures.update({_number(key) for key in keys[: len(row.images)]})
        self._used.update({better, worse})
        whole = _number(f"{prompt} {better} {worse}")
        first = self._first.setdefault(whole, place)
        if first != place:
            self._exact.append((place, first))
        else:
            self._edges[prompt].append((better, worse, place))
            self._near.add(place, _number(pictures), (asked, chosen, rejected))

    def _picture_key(self, name: str) -> str:
        if self._root is None:
            return name
        try:
            return digest_file(resolve_image(self._root, name))
        except (AlignError, OSError):
            return name

    def found(self) -> list[Duplicate]:
        """All of them, in order of the file; a pair once for each kind."""
        ids = self._ids
        near = [Duplicate(ids[a], "near", ids[b], round(s, 4), a) for a, b, s in self._near.found]
        exact = [Duplicate(ids[a], "exact", ids[b], 1.0, a) for a, b in self._exact]
        cycles = [place for edges in self._edges.values() for place in _in_cycles(edges)]
        return sorted(
            [*exact, *near, *(Duplicate(ids[place], "contradiction", "", 0.0, place) for place in cycles)],
            key=lambda item: (item.row, item.kind),
        )

    def finding(self, found: Sequence[Duplicate]) -> Finding:
        """The verdict on what `found` says."""
        kinds = Counter(item.kind for item in found)
        share = len({item.row for item in found}) / max(len(self._ids), 1)
        state = "bad" if kinds["contradiction"] and share > 0.01 else "look" if share else "good"
        if share > 0.1:
            state = "bad"
        numbers = {
            "repeated": kinds["exact"],
            "nearly_repeated": kinds["near"],
            "contradicting": kinds["contradiction"],
            "share": round(share, 4),
            "pictures": len(self._pictures),
            "most_pairs_of_a_picture": max(self._pictures.values(), default=0),
            "most_pairs_of_an_answer": max(self._used.values(), default=0),
        }
        order = ("contradiction", "exact", "near")
        rows = [item.id for kind in order for item in found if item.kind == kind]
        return Finding(
            key="duplicates",
            title="Duplicates and contradictions",
            state=state,
            said=f"{kinds['exact']} repeated pairs, {kinds['near']} nearly repeated, "
            f"{kinds['contradiction']} in "
            f"contradictions; {len(self._pictures)} pictures, at most "
            f"{numbers['most_pairs_of_a_picture']} pairs "
            "of one",
            advice="all are in duplicates.jsonl: `align drop PAIRS OUT --ids duplicates.jsonl` takes them out"
            if share
            else "",
            numbers=numbers,
            rows=rows[:MOST_ROWS],
        )


class _NearIndex:
    """Nearly equal pairs among those that come, each with the earliest that it was compared with."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int, float]] = []
        self._shingles = array("I")
        self._starts = array("Q")
        self._signatures: list[NDArray[np.uint32]] = []
        self._buckets: dict[int, tuple[int, ...]] = {}
        self._places = array("Q")

    def add(self, place: int, pictures: int, texts: tuple[str, str, str]) -> None:
        """Compare the pair at this place of the file, whose pictures and prompt, chosen, rejected these
        are."""
        parts = [_shingles(text) for text in texts]
        tagged = np.concatenate(
            [part ^ np.uint32(0x9E3779B1 * side & 0xFFFFFFFF) for side, part in enumerate(parts)]
        )
        mixed = tagged.astype(np.uint64)[:, None] * _ODD
        signature = (mixed >> np.uint64(32)).min(axis=0).astype(np.uint32)
        number = len(self._places)
        best: tuple[float, int] | None = None
        for band in range(_BANDS):
            key = hash((pictures, band, signature[band * _ROWS : (band + 1) * _ROWS].tobytes()))
            for other in self._buckets.get(key, ()):
                if best is not None and best[1] == other:
                    continue
                if int((self._signatures[other] == signature).sum()) < _LIKELY:
                    continue
                alike = min(_jaccard(a, b) for a, b in zip(parts, self._parts(other), strict=True))
                if alike >= _ALIKE and (best is None or alike > best[0]):
                    best = (alike, other)
            leaders = self._buckets.get(key, ())
            if best is None and len(leaders) < _LEADERS:
                self._buckets[key] = (*leaders, number)
        self._places.append(place)
        self._signatures.append(signature)
        for part in parts:
            self._starts.append(len(self._shingles))
            self._shingles.frombytes(part.tobytes())
        if best is not None:
            self.found.append((place, self._places[best[1]], best[0]))

    def _parts(self, number: int) -> Iterator[NDArray[np.uint32]]:
        for side in range(3):
            place = 3 * number + side
            stop = self._starts[place + 1] if place + 1 < len(self._starts) else len(self._shingles)
            yield np.array(self._shingles[self._starts[place] : stop], dtype=np.uint32)


def _shingles(text: str) -> NDArray[np.uint32]:
    """Sorted distinct 32-bit hashes of three neighbouring words; of a shorter text one of all its words."""
    words = words_of(text) or [text.strip()]
    codes = np.fromiter((_code(word) for word in words), dtype=np.uint32, count=len(words))
    if len(codes) < 3:
        codes = np.pad(codes, (0, 3 - len(codes)), constant_values=1)
    mixed = (codes[:-2] * np.uint32(0x85EBCA6B) ^ codes[1:-1]) * np.uint32(0xC2B2AE35) ^ codes[2:]
    return np.unique(mixed)


@lru_cache(maxsize=200_000)
def _code(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _number(text: str) -> int:
    """63 bits that stand for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _in_cycles(edges: Sequence[tuple[int, int, int]]) -> list[int]:
    """The last items of the (better, worse, item) preferences that lie on a cycle."""
    if len(edges) < 2:
        return []
    below: dict[int, set[int]] = defaultdict(set)
    for better, worse, _ in edges:
        below[better].add(worse)

    def reaches(start: int, goal: int) -> bool:
        seen, todo = {start}, [start]
        while todo:
            for other in below.get(todo.pop(), ()):
                if other == goal:
                    return True
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return False

    return [item for better, worse, item in edges if reaches(worse, better)]
