"""POVID, CSR and Re-Align: the same conversation twice, once with good answers and once with bad ones.

https://huggingface.co/datasets/YiyangAiLab/POVID_preference_data_for_VLLMs, https://github.com/YiyangZhou/CSR
and https://github.com/taco-group/Re-Align. Every turn that differs becomes a pair, whose prompt is the good
conversation up to it.
"""

from __future__ import annotations

from typing import Any

from align.rows.messages import Message
from data_tools.importers.dialogue import place
from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import check_order, read_turns
from data_tools.importers.unusable import Unusable


def _povid(published: Published) -> list[Row]:
    images = published.pictures.of(published.first("image", "images"))
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
    both = [
        place(published, check_order(read_turns(turns, published.note)), images)
        for turns in (good_turns, bad_turns)
    ]
    good, bad = both
    if _asked(good.messages) != _asked(bad.messages) or good.images != bad.images:
        raise Unusable("the two conversations ask different questions")
    if not all(turn.loss for one in both for turn in one.messages):
        raise Unusable("no loss on an answer of a pair")
    rows: list[Row] = []
    for number, (better, other) in enumerate(zip(good.messages, bad.messages, strict=True)):
        if better.role == "assistant" and better.text != other.text:
            shown = sum(turn.num_images for turn in good.messages[:number])
            if any(turn.num_images for turn in good.messages) and shown < len(good.images):
                raise Unusable("a pair before all of the row's pictures are shown")
            rows.append(
                published.pair(
                    good.images,
                    good.messages[:number],
                    better.text,
                    other.text,
                    published.origin("type", "hallucination_type"),
                    number=len(rows),
                    rejected_images=worse,
                    reasoning=good.reasoning[: number + 1],
                    rejected_reasoning=(bad.reasoning[number] or "") if bad.reasoning else "",
                )
            )
    if not rows:
        raise Unusable("chosen and rejected are the same text")
    return rows


def _asked(turns: list[Message]) -> list[str]:
    return [turn.marked for turn in turns if turn.role != "assistant"]


_LOOKS = '{"id", "image", "conversations": [{"from", "value"}], "rejected_conversations": [...]}'
FORMATS = (
    Format(
        "povid",
        "YiyangAiLab/POVID_preference_data_for_VLLMs: pairs",
        _LOOKS,
        _povid,
        needs=("conversations", "rejected_conversations", "image|images|id"),
    ),
    Format("csr", "CSR's preference data, in POVID's form: pairs", _LOOKS, _povid),
    Format(
        "re_align",
        "Re-Align: pairs with a retrieved image as the worse one",
        '{"image", "retrieved_image", "chosen": [{"role", "content"}], "rejected": [...]}',
        _re_align,
        needs=("image", "retrieved_image", "chosen", "rejected"),
    ),
)
