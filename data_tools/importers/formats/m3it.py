"""M3IT: an instruction, its input and output, the pictures as base64.

https://huggingface.co/datasets/MMInstruction/M3IT
"""

from __future__ import annotations

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import answer_turn, joined, question_turn
from data_tools.importers.unusable import Unusable


def _convert(published: Published) -> list[Row]:
    encoded = published.get("image_base64_str")
    images = published.pictures.base64(encoded) if encoded else published.pictures.of(published.get("image"))
    if published.get("video_base64_str") or not images:
        raise Unusable("no image")
    inputs = published.get("inputs")
    question = joined([published.text("instruction"), inputs if isinstance(inputs, str) else ""])
    turns = [*question_turn(question, len(images), marked=False), *answer_turn(published.text("outputs"))]
    return [published.instruction(images, turns, published.origin("task", "dataset"))]


FORMATS = (
    Format(
        "m3it",
        "MMInstruction/M3IT, a task's file: instruction rows",
        '{"instruction", "inputs", "image_base64_str": [text], "outputs"}',
        _convert,
        embeds=True,
        needs=("instruction", "outputs", "image_base64_str"),
    ),
)
