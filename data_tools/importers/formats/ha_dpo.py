"""HA-DPO's two files on Visual Genome images: descriptions, and yes/no questions.

https://huggingface.co/datasets/juliozhao/hadpo-data, read as ha_dpo/models/llava-v1_5/train_dpo.py of
https://github.com/opendatalab/HA-DPO reads it: a description pair has no question of its own and gets one of
four, and questions that the model had answered rightly are left out.
"""

from __future__ import annotations

import hashlib
from typing import Any

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import question_turn, text_of
from data_tools.importers.unusable import Unusable

DESCRIBE_PROMPTS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)
_FOLDERS = ("VG_100K/", "VG_100K_2/", "")


def _desc(published: Published) -> list[Row]:
    image_id = published.get("key") if "key" in published.fields else published.get("image_id")
    images = _image(published, image_id)
    chosen, rejected = (_texts(published.get(name), name) for name in ("chosen", "rejected"))
    place = int.from_bytes(hashlib.sha256(str(image_id).encode("utf-8", "replace")).digest()[:4])
    prompt = question_turn(DESCRIBE_PROMPTS[place % len(DESCRIBE_PROMPTS)])
    rows: list[Row] = []
    for better, worse in list(zip(chosen, rejected, strict=False))[: published.options.max_pairs]:
        meta = published.origin() | {"image_id": int(str(image_id))}
        rows.append(published.pair(images, prompt, better, worse, meta, number=len(rows)))
    return rows


def _pope(published: Published) -> list[Row]:
    if published.get("correct") is True:
        raise Unusable("the model had answered rightly: no pair")
    images = _image(published, published.get("image_id"))
    prompt = question_turn(published.text("question"), len(images), marked=False)
    chosen, rejected = published.text("chosen"), published.text("reject")
    return [published.pair(images, prompt, chosen, rejected, published.origin("image_id", "answer"))]


def _image(published: Published, image_id: Any) -> list[str]:
    """Visual Genome's file of that id, in either of its two folders."""
    if isinstance(image_id, bool) or not str(image_id).isdecimal():
        raise Unusable("image_id is no number", repr(image_id)[:100])
    return [published.pictures.first_of([f"{folder}{image_id}.jpg" for folder in _FOLDERS])]


def _texts(value: Any, what: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise Unusable(f"{what} is empty")
    return [text_of(text, what) for text in texts]


FORMATS = (
    Format(
        "ha_dpo_desc",
        "HA-DPO's desc_data.json: pairs of descriptions (--max_pairs an image)",
        '{"2331508": {"chosen": [text, ...], "rejected": [text, ...]}, ...}',
        _desc,
        layout="map",
        needs=("key", "chosen", "rejected"),
    ),
    Format(
        "ha_dpo_pope",
        "HA-DPO's pope_data.json: pairs of yes/no answers",
        '{"image_id", "question", "chosen", "reject", "answer", "correct": false}',
        _pope,
        needs=("image_id", "question", "chosen", "reject"),
    ),
)
