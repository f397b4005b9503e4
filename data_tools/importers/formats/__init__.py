"""One file a format or close group of formats; a file with `FORMATS` is found here, and needs no other line.

    FORMATS = (Format("name", "publisher/set: what it is", '{"what", "a", "row", "holds"}', convert),)

`convert(published) -> list[Row]` makes rows of one published row, or raises `Unusable` with the reason.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from align.config.recipe import nearest
from align.errors import RecipeError
from data_tools.importers.published import Format

FORMATS: dict[str, Format] = {
    one.name: one
    for module in iter_modules(__path__)
    for one in import_module(f"{__name__}.{module.name}").FORMATS
}
"""All published formats by name."""


def format_of(name: str) -> Format:
    """The format of that name; `-` may stand for `_`.

    Raises:
        RecipeError: no such format.
    """
    found = FORMATS.get(name.replace("-", "_").lower())
    if found is None:
        raise RecipeError(f"unknown format {name!r}{nearest(name, FORMATS)}", fix="`align import --help`")
    return found
