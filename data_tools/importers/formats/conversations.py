"""LLaVA-Instruct and ShareGPT: conversations of `from` and `value`, an image or none.

https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; ShareGPT's form also with LLaMA-Factory's
`images` list and with OpenAI's `messages`. InternVL's JSON lines, Qwen-VL's `<img>` tags, MMDU's
`<ImageHere>` and axolotl's per-turn weights are the same form; LLaMA-Factory adds `chosen` and `rejected`
turns.
"""

from __future__ import annotations

from typing import Any

from data_tools.importers.dialogue import convert, says
from data_tools.importers.meaning import PICTURE_TAG
from data_tools.importers.published import Format


def _first_turn(row: dict[str, Any]) -> dict[str, Any]:
    turns = row.get("conversations")
    return turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}


def _tagged(row: dict[str, Any]) -> bool:
    turns = row.get("conversations")
    texts = [turn.get("value") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    return any(isinstance(text, str) and PICTURE_TAG.search(text) for text in texts)


def _weighted(row: dict[str, Any]) -> bool:
    turns = row.get("conversations")
    return isinstance(turns, list) and any(
        isinstance(turn, dict) and says(turn, "train", "weight") for turn in turns
    )


FORMATS = (
    Format(
        "llava",
        "liuhaotian/LLaVA-Instruct-150K and all in its form: instruction rows",
        '{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}',
        convert,
        needs=("conversations", "image"),
    ),
    Format(
        "sharegpt",
        "ShareGPT, with or without images: instruction rows",
        '{"id", "conversations": [{"from", "value"}], "images": [path]} or "messages": [{"role", "content"}]',
        convert,
        needs=("conversations|conversation",),
    ),
    Format(
        "llama_factory",
        "LLaMA-Factory's sharegpt form: instruction rows, or pairs where chosen and rejected stand beside",
        '{"conversations": [{"from", "value"}], "images": [path], "system", "chosen": {"from", "value"}, '
        '"rejected"}',
        convert,
        needs=("conversations", "chosen", "rejected"),
    ),
    Format(
        "internvl",
        "InternVL's JSON lines: instruction rows",
        '{"id", "image": path or [path, ...], "width", "height", "conversations": [{"from", "value"}]}',
        convert,
        needs=("conversations", "width|width_list", "height|height_list"),
    ),
    Format(
        "qwen_vl",
        "Qwen-VL's form, pictures by their path inside the text: instruction rows",
        '{"id", "conversations": [{"from": "user", "value": "Picture 1: <img>path</img>\\n..."}, ...]}',
        convert,
        needs=("conversations",),
        tells=_tagged,
    ),
    Format(
        "axolotl",
        "axolotl's conversations with a weight for each turn: instruction rows",
        '{"conversations": [{"from", "value", "train" or "weight"}], "images"}',
        convert,
        needs=("conversations",),
        tells=_weighted,
    ),
)
