"""POVID, CSR and Re-Align: the same conversation twice, once with good answers and once with bad ones.

https://huggingface.co/datasets/YiyangAiLab/POVID_preference_data_for_VLLMs, https://github.com/YiyangZhou/CSR
and https://github.com/taco-group/Re-Align. Every turn that differs becomes a pair, whose prompt is the good
conversation up to it.
"""

from __future__ import annotations

from typing import Any

from align.rows.schema import Message
from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import check_order, read_turns, take_placeholders
from data_tools.importers.unusable import Unusable


def _povid(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("image"))
    return _pairs(
        published, images, [], published.get("conversations"), published.get("rejected_conversations")
    )


def _re_align(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("image"))
    worse = published.pictures.of(published.get("retrieved_image"))
    if len(worse) != len(images):
        raise Unusable("not one retrieved image for each image", f"{len(worse)} for {len(images)}")
    return _pairs(published, images, worse, published.get("chosen"), published.get("rejected"))


def _pairs(
    published: Published, images: list[str], worse: list[str], good_turns: Any, bad_turns: Any
) -> list[Row]:
    good, bad = (
        take_placeholders(check_order(read_turns(turns)), len(images)) for turns in (good_turns, bad_turns)
    )
    if _asked(good) != _asked(bad):
        raise Unusable("the two conversations ask different questions")
    rows: list[Row] = []
    for place, (better, other) in enumerate(zip(good, bad, strict=True)):
        if better.role == "assistant" and better.text != other.text:
            meta = published.origin("type", "hallucination_type")
            answers = better.text, other.text
            number, retrieved = len(rows), worse
            rows.append(
                published.pair(images, good[:place], *answers, meta, number=number, rejected_images=retrieved)
            )
    if not rows:
        raise Unusable("chosen and rejected are the same text")
    return rows


def _asked(turns: list[Message]) -> list[str]:
    return [turn.text for turn in turns if turn.role != "assistant"]


_LOOKS = '{"id", "image", "conversations": [{"from", "value"}], "rejected_conversations": [...]}'
FORMATS = (
    Format("povid", "YiyangAiLab/POVID_preference_data_for_VLLMs: pairs", _LOOKS, _povid),
    Format("csr", "CSR's preference data, in POVID's form: pairs", _LOOKS, _povid),
    Format(
        "re_align",
        "Re-Align: pairs with a retrieved image as the worse one",
        '{"image", "retrieved_image", "chosen": [{"role", "content"}], "rejected": [...]}',
        _re_align,
    ),
)
