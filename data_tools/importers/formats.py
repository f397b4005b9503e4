"""All published formats by name."""

from __future__ import annotations

from align.config.recipe import nearest
from align.errors import RecipeError
from data_tools.importers import (
    annotations,
    conversations,
    ha_dpo,
    m3it,
    message_rows,
    openbmb,
    plain_pairs,
    two_conversations,
    vlfeedback,
)
from data_tools.importers.published import Format

_MODULES = (
    openbmb,
    message_rows,
    vlfeedback,
    two_conversations,
    ha_dpo,
    plain_pairs,
    conversations,
    m3it,
    annotations,
)
FORMATS: dict[str, Format] = {one.name: one for module in _MODULES for one in module.FORMATS}


def format_of(name: str) -> Format:
    """The format of that name; `-` may stand for `_`.

    Raises:
        RecipeError: no such format.
    """
    found = FORMATS.get(name.replace("-", "_").lower())
    if found is None:
        raise RecipeError(f"unknown format {name!r}{nearest(name, FORMATS)}", fix="`align import --help`")
    return found
