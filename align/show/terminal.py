"""Views and tokens in a terminal; characters that could steer it are replaced."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from align.show.tokens import Token
from align.show.views import View

_LABEL = 14
_LONGEST = 1200
_LEARNT, _PLAIN = "\033[30;42m", "\033[0m"


def printable(text: str) -> str:
    """The text without control characters: a model's answer must not move the cursor or set the title."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)


def view_lines(shown: View) -> list[str]:
    """A row as two columns, labels and texts."""
    lines = [f"-- {printable(shown.id)}"]
    for label, names in (("images", shown.images), ("worse images", shown.worse)):
        lines += _cell(label, ", ".join(names)) if names else []
    for label, text in shown.texts:
        lines += _cell(label, text)
    facts = "   ".join(f"{name}: {value}" for name, value in shown.facts.items())
    return lines + (_cell("", facts) if facts else [])


def token_lines(tokens: Sequence[Token], colour: bool) -> list[str]:
    """Tokens with the learnt ones on green, or in brackets where there is no colour."""
    open_mark, close_mark = (_LEARNT, _PLAIN) if colour else ("[", "]")
    pieces, inside = [], False
    for token in tokens:
        if token.learnt != inside:
            pieces.append(open_mark if token.learnt else close_mark)
            inside = token.learnt
        count = f"(x{token.count})" if token.count > 1 else ""
        pieces.append(printable(token.text).replace("\n", "\\n\n") + count)
    learnt = sum(token.count for token in tokens if token.learnt)
    total = sum(token.count for token in tokens)
    text = "".join(pieces) + (close_mark if inside else "")
    return [f"   {learnt} of {total} tokens are learnt", *(f"   {line}" for line in text.split("\n"))]


def _cell(label: str, text: str) -> list[str]:
    width = max(40, shutil.get_terminal_size((110, 24)).columns - _LABEL - 5)
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
    lines = [
        piece
        for line in printable(cut).split("\n")
        for piece in textwrap.wrap(line, width, drop_whitespace=False, replace_whitespace=False) or [""]
    ]
    labels = [label, *[""] * len(lines)]
    return [f"   {name:<{_LABEL}} {line}" for name, line in zip(labels, lines, strict=False)]
