"""Prompts with places to fill, filled in one pass so that a filled-in text can't name another place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from align.digest import digest_json
from align.rows.schema import Message

_PLACE = re.compile(r"\{([a-z_]+)\}")
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


def places(template: str) -> set[str]:
    """Names of the places in a template."""
    return set(_PLACE.findall(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its places filled; other braces stay as they are.

    >>> fill("{a} or {b}? {c}", {"a": "{b}", "b": "x"})
    '{b} or x? {c}'
    """
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), template)


def spoken(messages: Sequence[Message]) -> str:
    """A conversation as text, a turn a paragraph.

    >>> spoken([Message(role="user", content="What?"), Message(role="assistant", content="A dog.")])
    'User: What?\\nAssistant: A dog.'
    """
    return "\n".join(f"{_SPEAKERS[message.role]}: {message.marked}" for message in messages)


def wording_digest(template: str, version: str) -> str:
    """What a verdict records of the prompt: sha256 over its wording and the version of its reading."""
    return digest_json([template, version])
