"""Views as HTML without outside resources: all text escaped, no scripts; one file, or pages of a local
server.

A picture is large after a click, by a check box that the style sheet reads. Both answers of a pair stand
side by side with their differences marked.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.show.differences import Pieces, differences
from align.show.tokens import Token
from align.show.views import View

_SIDE = 640
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Picture:
    """A picture's address (a data URL in a file), or why there is none."""

    name: str
    label: str = ""
    data: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Entry:
    """A row on the page; `place` is its number in the file, from 0."""

    view: View
    pictures: Sequence[Picture]
    tokens: Sequence[tuple[str, Sequence[Token]]] = ()
    place: int = 0

    @property
    def texts(self) -> list[tuple[str, str]]:
        """What stands above the answers of a pair; all texts of other rows."""
        return [item for item in self.view.texts if not self._is_pair or item[0] not in _SIDES]

    @property
    def sides(self) -> list[tuple[str, Pieces]]:
        """Both answers of a pair, in pieces."""
        if not self._is_pair:
            return []
        texts = ["\n".join(text for label, text in self.view.texts if label == side) for side in _SIDES]
        return list(zip(_SIDES, differences(*texts), strict=True))

    @property
    def _is_pair(self) -> bool:
        return set(_SIDES) <= {label for label, _ in self.view.texts}


def pictures_of(shown: View, image_root: Path) -> list[Picture]:
    """A row's pictures as data URLs; one that cannot be read says why."""
    return [_picture(name, label, image_root) for name, label in labelled(shown)]


def labelled(shown: View) -> list[tuple[str, str]]:
    """(name, label) of a row's pictures, the worse ones last."""
    return [(name, "") for name in shown.images] + [(name, "worse: ") for name in shown.worse]


def render_page(title: str, entries: Sequence[Entry]) -> str:
    """A page that is one file; everything from the rows is escaped."""
    return rendered(title, entries, "data:", {"served": False})


def rendered(title: str, entries: Sequence[Entry], pictures_from: str, more: Mapping[str, Any]) -> str:
    """The page, with what its template needs besides the entries (`more`).

    Args:
        pictures_from: the only source of pictures, for the page's policy.
    """
    from markupsafe import Markup

    style = files("align.show").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src {pictures_from}; style-src 'sha256-{digest}'; base-uri 'none'; "
    policy += f"form-action {chr(39)}self{chr(39)}" if more["served"] else "form-action 'none'"
    return _template().render(title=title, entries=entries, style=Markup(style), csp=policy, **more)


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(files("align.show").joinpath("page.html.j2").read_text(encoding="utf-8"))


def jpeg(path: Path, side: int) -> bytes:
    """A picture as JPEG, at most so many pixels wide and high.

    Raises:
        AlignError: it cannot be read.
    """
    picture = open_image(path)
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82)
    return out.getvalue()


def _picture(name: str, label: str, image_root: Path) -> Picture:
    try:
        data = jpeg(resolve_image(image_root, name), _SIDE)
    except AlignError as error:
        return Picture(name, label, fault=error.what)
    return Picture(name, label, "data:image/jpeg;base64," + base64.b64encode(data).decode())
