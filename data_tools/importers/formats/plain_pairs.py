"""mDPO, MM-RLHF and MMPR: a question and two answers as plain texts, pictures by path.

https://huggingface.co/datasets/fwnlp/mDPO-preference-data (whose prompts carry Vicuna's template),
https://huggingface.co/datasets/yifanzhang114/MM-RLHF (`dpo_pairs.jsonl`; rows on videos are refused) and
https://huggingface.co/datasets/OpenGVLab/MMPR-v1.2.
"""

from __future__ import annotations

import re

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import Turn, check_order, placed, question_turn, text_turn
from data_tools.importers.unusable import Unusable

_TURN = re.compile(r"(?:^|\s|</s>)(USER|ASSISTANT):")


def _mdpo(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("img_path"))
    turns, system = _vicuna(published.text("prompt"))
    meta = published.origin() | ({"template_system": system} if system else {})
    prompt = placed(turns, images).messages
    return [published.pair(images, prompt, published.text("chosen"), published.text("rejected"), meta)]


def _vicuna(prompt: str) -> tuple[list[Turn], str]:
    """Turns of a text in Vicuna's template up to its open `ASSISTANT:`, and its system sentence; a text
    without the template is one user turn."""
    if not re.search(r"\sASSISTANT:\s*$", prompt):
        return [text_turn("user", prompt)], ""
    system, *pieces = _TURN.split(prompt)
    roles, texts = pieces[0:-2:2], [text.strip() for text in pieces[1:-2:2]]
    if not roles or not all(texts):
        raise Unusable("a turn of the template is empty")
    turns = [
        text_turn("user" if role == "USER" else "assistant", text)
        for role, text in zip(roles, texts, strict=True)
    ]
    return check_order([*turns, text_turn("assistant", "-")])[:-1], system.strip()


def _mm_rlhf(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("image"))
    prompt = question_turn(published.text("prompt"), len(images))
    meta = published.origin("chosen_score", "rejected_score", "chosen_model", "rejected_model", "task")
    return [published.pair(images, prompt, published.text("chosen"), published.text("rejected"), meta)]


def _mmpr(published: Published) -> list[Row]:
    images = published.pictures.of(published.get("image"))
    prompt = question_turn(published.text("question"), len(images))
    meta = published.origin("question_type", "source_dataset")
    return [published.pair(images, prompt, published.text("chosen"), published.text("rejected"), meta)]


FORMATS = (
    Format(
        "mdpo",
        "fwnlp/mDPO-preference-data: pairs",
        '{"img_path", "prompt": "... USER: <image>\\n... ASSISTANT:", "chosen", "rejected"}',
        _mdpo,
        needs=("img_path", "prompt", "chosen", "rejected"),
    ),
    Format(
        "mm_rlhf",
        "yifanzhang114/MM-RLHF, dpo_pairs.jsonl: pairs",
        '{"image" or "video", "prompt", "chosen", "rejected", ...}',
        _mm_rlhf,
    ),
    Format(
        "mmpr",
        "OpenGVLab/MMPR, an annotation file or the folder of them: pairs",
        '{"image": path or [path, ...], "question", "chosen", "rejected"}',
        _mmpr,
    ),
)
