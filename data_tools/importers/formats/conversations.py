"""LLaVA-Instruct and ShareGPT: conversations of `from` and `value`, an image or none, as instruction rows.

https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; ShareGPT's form also with LLaMA-Factory's
`images` list and with OpenAI's `messages`.
"""

from __future__ import annotations

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import check_order, read_turns, take_placeholders
from data_tools.importers.unusable import Unusable


def _convert(published: Published) -> list[Row]:
    if published.get("video") or published.get("videos"):
        raise Unusable("the row is on a video")
    images = published.pictures.of(published.get("image") or published.get("images"))
    turns = check_order(read_turns(published.get("conversations") or published.get("messages")))
    meta = published.origin("model", "type")
    return [published.instruction(images, take_placeholders(turns, len(images)), meta)]


FORMATS = (
    Format(
        "llava",
        "liuhaotian/LLaVA-Instruct-150K and all in its form: instruction rows",
        '{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}',
        _convert,
    ),
    Format(
        "sharegpt",
        "ShareGPT, with or without images: instruction rows",
        '{"id", "conversations": [{"from", "value"}], "images": [path]} or "messages": [{"role", "content"}]',
        _convert,
    ),
)
