"""JSON of any size value by value: lists, objects, or values one behind the other, in memory that does not
grow.

Python's own parser reads each value, so that what it takes in a line (`NaN`, for one) it also takes in a
list. A value that it cannot hold (nested too deeply, a number of thousands of digits) costs itself; broken
JSON stops, since where the next value begins is then not known.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from align.errors import AlignError

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r\ufeff]*")
_QUOTE = re.compile(r'["\\]')
_WORD = re.compile(r'[^\[\]{},:" \t\n\r]+')
_NEAR_END = 16  # characters at the end of what was read in which a fault may be the cut
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """`utf-8`, or what a byte-order mark or the zeros of UTF-16 without one tell."""
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if len(head) >= 2 and 0 in head[:2] and any(head[:2]):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """A file's text in its own encoding; what is no text stays visible, as half characters."""
    encoding = encoding_of(path)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    return path.open(encoding=encoding, errors=errors, newline=newline)


class JsonStream:
    """Reads values from an open text file.

    Attributes:
        done: characters that were passed over.
        count: items of a list or pairs of an object that were read.
    """

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.done, self.count = path, 0, 0
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space, empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, character: str) -> None:
        """Read one character that must come next.

        Raises:
            AlignError: another comes.
        """
        if self.peek() != character:
            raise self._broken(f"expected {character!r}")
        self._at += 1

    def value(self) -> Any:
        """The next value, or the `AlignError` that it is.

        Raises:
            AlignError: broken JSON.
        """
        self.peek()
        if self._at > _CHUNK:
            self._drop()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _NEAR_END
                if cut and self._more():
                    continue
                raise self._broken(error.msg) from error
            except (ValueError, RecursionError) as error:
                what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
                self.skip()
                return AlignError(f"not JSON: {what}")
            if (
                self._text[end - 1] not in '"]}' and end >= len(self._text) - 1 and self._more()
            ):  # a number goes on
                continue
            self._at = end
            return value

    def skip(self) -> None:
        """Pass over the next value, whatever it holds.

        Raises:
            AlignError: it does not end.
        """
        depth = 0
        while True:
            start = self.peek()
            if not start:
                raise self._broken("the value does not end")
            if start == '"':
                self._string()
            elif start in "[{":
                depth, self._at = depth + 1, self._at + 1
            elif start in "]}":
                depth, self._at = depth - 1, self._at + 1
            elif start in ",:":
                self._at += 1
            else:
                self._word()
            if depth <= 0:
                return
            if self._at > _CHUNK:
                self._drop()

    def items(self) -> Iterator[Any]:
        """The values of a list that begins here."""
        self.take("[")
        yield from self._until("]", self.value)

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """The keys and values of an object that begins here."""
        self.take("{")
        yield from self._until("}", self._pair)

    def section(self, name: str) -> Iterator[Any]:
        """The values of the list that an object beginning here has under a key."""
        self.take("{")
        while self.peek() not in ("}", ""):
            key = self.value()
            self.take(":")
            if key == name and self.peek() == "[":
                yield from self.items()
            else:
                self.skip()
            if self.peek() == ",":
                self.take(",")
        self.take("}")

    def _pair(self) -> tuple[str, Any]:
        if self.peek() != '"':
            raise self._broken("expected a key")
        key = self.value()
        self.take(":")
        return key, self.value()

    def _until(self, end: str, read: Any) -> Iterator[Any]:
        if self.peek() == end:
            self.take(end)
            return
        while True:
            one = read()
            self.count += 1
            yield one
            if self.peek() == ",":
                self.take(",")
            else:
                self.take(end)
                return

    def _string(self) -> None:
        at = self._at + 1
        while True:
            found = _QUOTE.search(self._text, at)
            if found is not None and found[0] == '"':
                self._at = found.end()
                return
            if found is None or found.end() >= len(self._text):
                at = len(self._text) if found is None else found.start()
                if not self._more():
                    raise self._broken("the text does not end")
                continue
            at = found.end() + 1

    def _word(self) -> None:
        while True:
            found = _WORD.match(self._text, self._at)
            assert found is not None
            if found.end() < len(self._text) or not self._more():
                self._at = found.end()
                return

    def _more(self) -> bool:
        """Read on, twice as much as is held of a long value; false at the end of the file."""
        if self._ended:
            return False
        try:
            new = self._file.read(max(_CHUNK, len(self._text) - self._at))
        except UnicodeDecodeError as error:
            raise self._broken(f"no text in {error.encoding}") from error
        self._ended = not new
        self._text += new
        return bool(new)

    def _drop(self) -> None:
        """Forget what was passed over."""
        self.done += self._at
        self._text, self._at = self._text[self._at :], 0

    def _broken(self, what: str) -> AlignError:
        place = self.done + self._at
        return AlignError(
            f"not whole JSON: {what}",
            where=f"{self.path}, after {self.count} items, near character {place}",
            fix="fetch the file again, or mend it there",
        )
