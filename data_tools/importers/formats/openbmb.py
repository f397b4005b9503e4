"""RLHF-V and RLAIF-V: one question, a chosen and a rejected answer, the picture as bytes.

https://huggingface.co/datasets/openbmb/RLHF-V-Dataset and https://huggingface.co/datasets/openbmb/RLAIF-V-Dataset
"""

from __future__ import annotations

import json
from typing import Any

from data_tools.importers.meaning import refusal
from data_tools.importers.published import Fields, Format, Published, Row
from data_tools.importers.turns import question_turn, text_of
from data_tools.importers.unusable import Unusable

_ORIGIN = ("ds_name", "origin_dataset", "origin_split", "image_path")


def _rlhf_v(published: Published) -> list[Row]:
    text = published.get("text")
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unusable("text is not JSON", str(error)) from error
    if not isinstance(text, dict):
        raise Unusable("text is no object", type(text).__name__)
    fields = Fields(text)
    pair = _pair(published, fields)
    for key, value in fields.unread().items():
        if reason := refusal(key, value, has_images=True):
            raise Unusable(reason, f"the key {str(key)[:100]!r} of text")
        published.note(f"left out: the key {str(key)[:60]!r} of text")
    return [pair]


def _rlaif_v(published: Published) -> list[Row]:
    return [_pair(published, published.fields)]


def _pair(published: Published, texts: dict[str, Any]) -> Row:
    question, chosen, rejected = (text_of(texts.get(k), k) for k in ("question", "chosen", "rejected"))
    images = published.pictures.of(published.get("image") or published.get("image_path"))
    if not images:
        raise Unusable("no image")
    return published.pair(
        images,
        question_turn(question, len(images), marked=False),
        chosen,
        rejected,
        published.origin(*_ORIGIN),
    )


FORMATS = (
    Format(
        "rlhf_v",
        "openbmb/RLHF-V-Dataset: pairs, human corrections",
        '{"ds_name", "image": {"bytes"}, "text": "{\\"question\\", \\"chosen\\", \\"rejected\\"}", ...}',
        _rlhf_v,
        embeds=True,
        needs=("ds_name|origin_dataset", "image|image_path", "text"),
    ),
    Format(
        "rlaif_v",
        "openbmb/RLAIF-V-Dataset: pairs",
        '{"ds_name", "image": {"bytes"}, "question", "chosen", "rejected", "origin_dataset", "idx", ...}',
        _rlaif_v,
        embeds=True,
        needs=("ds_name|origin_dataset", "image|image_path", "question", "chosen", "rejected"),
    ),
)
