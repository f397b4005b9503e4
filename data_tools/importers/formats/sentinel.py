"""SENTINEL: two next sentences of a description, one of which invents an object.

https://huggingface.co/datasets/psp-dada/SENTINEL. `context`, the description so far, begins both answers,
with a space behind it, as train/models/llava_utils/data.py of https://github.com/pspdada/SENTINEL joins
them. In the data file of a model the pairs of a picture stand in a list under its id or path.
"""

from __future__ import annotations

from typing import Any

from data_tools.importers.published import Fields, Format, Published, Row
from data_tools.importers.turns import question_turn, text_of
from data_tools.importers.unusable import Unusable


def _convert(published: Published) -> list[Row]:
    fields = published.fields
    return [_pair(published, fields, published.first("image_path", "image"), published.kept, 0)]


def _of_picture(published: Published) -> list[Row]:
    key, pairs = str(published.get("key")), published.get("items")
    if not isinstance(pairs, list):
        raise Unusable("no list of pairs", type(pairs).__name__)
    rows: list[Row] = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, dict):
            raise Unusable("a pair is no object", type(pair).__name__)
        one = Published(Fields(pair), published.name, published.source, published.pictures, published.options)
        picture = one.first("image_path", "image") or key
        rows.append(_pair(one, one.fields, picture, one.kept, number))
        one.account(has_images=True)
        published.notes.extend(one.notes)
    return rows


def _pair(published: Published, fields: Fields, picture: Any, kept: Any, number: int) -> Row:
    images = published.pictures.of(picture)
    if not images:
        raise Unusable("no image")
    prompt = question_turn(text_of(fields.get("question"), "question"), len(images), marked=False)
    context = fields.get("context")
    before = f"{text_of(context, 'context')} " if context else ""
    chosen, rejected = (before + text_of(fields.get(name), name) for name in ("y_win", "y_lose"))
    meta = kept(True) | ({"context": context} if context else {})
    return published.pair(images, prompt, chosen, rejected, meta, number=number)


FORMATS = (
    Format(
        "sentinel",
        "psp-dada/SENTINEL, JSON lines: pairs of next sentences behind their context",
        '{"image_id", "image_path", "question", "context", "y_win", "y_lose", "type"}',
        _convert,
        needs=("question", "y_win", "y_lose"),
    ),
    Format(
        "sentinel_by_image",
        "psp-dada/SENTINEL, a model's file: pairs under the path of their picture",
        '{"path": [{"question", "context", "y_win", "y_lose", "type"}, ...], ...}',
        _of_picture,
        layout="map",
        needs=("key", "items"),
        tells=lambda row: bool(row["items"]) and "y_win" in str(row["items"][0]),
    ),
)
