"""What keys and markers mean in rows that other tools write: one table, which every importer asks.

A key that carries meaning is read by its format, or its row is refused with the reason that stands here; any
other key is only where a row came from, and is kept in `meta` or left out, and counted.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

IMAGE_MARKERS = (
    "<image>",
    "<ImageHere>",
    "<image_placeholder>",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|image_pad|>",
    "<|image|>",
    "<start_of_image>",
    "<image_soft_token>",
    "<IMG_CONTEXT>",
    "<img></img>",
    "[IMG]",
)
"""What stands for one picture in a text: LLaVA's and most tools' marker, then InternLM-XComposer's (MMDU),
the chat templates' own tokens."""

PICTURE_TAG = re.compile(r"<img>\s*(?P<path>[^<>]+?)\s*</img>")
"""Qwen-VL's form: the picture's path inside the text."""
NUMBERED = re.compile(r"<\|?image[_ ](?P<number>\d{1,3})\|?>")
"""`<image_1>` (MMMU) and `<|image_1|>` (Phi): a picture by its number, from 1."""
MARKER = re.compile(
    "|".join(
        [*map(re.escape, sorted(IMAGE_MARKERS, key=len, reverse=True)), PICTURE_TAG.pattern, NUMBERED.pattern]
    )
)

VIDEO = "the row is on a video"
AUDIO = "the row has sound"
BOXES = "the row has boxes or points"
TOOLS = "the row calls tools"
NO_PICTURE = "a marker without a picture"

_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<video>|<\|video_pad\|>|<\|video\|>|<video_\d+>|<VideoHere>"), VIDEO),
    (re.compile(r"<audio>|<\|audio(?:_pad)?\|>|<\|AUDIO\|>|<audio_\d+>|<speech>|<AudioHere>"), AUDIO),
    (re.compile(r"<ref-object>|<bbox>|<\|box_start\|>|<\|object_ref_start\|>"), BOXES),
)

# A key's name -> why a row with it is refused, unless its format reads it; the first line that fits.
_ORIGIN = re.compile(
    r"_(score|scores|model|models|rating|ratings|type|types|source|id|ids|index|idx|logps?|length|reward|rewards"
    r"|rank|name|tokens|sha256|method|margin|count)$"
)
_KEYS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"(^|_)videos?(_|$)|^frames?$|^clips?$|^num_frames$", VIDEO),
        (r"(^|_)(audios?|speech|sounds?|wavs?)(_|$)|^voice$", AUDIO),
        (
            r"reject|dispref|^(y_?l|y_lose|lose|losers?|negatives?|bad|worse|hallucinated)(_|$)|^neg_",
            "a worse answer that this format does not read",
        ),
        (
            r"^chosen|^preferred|^(y_?w|y_win|win|winners?|better|positives?)(_|$)|^output_\d+$|^response_[a-d0-9]+$",
            "a better answer that this format does not read",
        ),
        (
            r"^(preference|preferred_.*|kto_tag|desirable|is_(good|preferred|desirable))$",
            "a preference that this format does not read",
        ),
        (r"^labels?$", "answers marked right or wrong, which are no pairs"),
        (
            r"^system(_|$)|^(instructions?|developer)$",
            "a system text or instruction that this format does not read",
        ),
        (
            r"^(loss(_.*)?|weights?|train|train_detail|trainable|label_mask|masked)$",
            "a weight of the loss that rows cannot hold",
        ),
        (
            r"^(reasoning(_.*)?|thinking|thoughts?|think|chain_of_thought|cot|rationales?)$",
            "a reasoning that this format does not read",
        ),
        (r"^(tools?|functions?|tool_.*|function_.*)$", TOOLS),
        (
            r"^(objects?|bbox(es)?|(bounding_)?box(es)?|points?|regions?|segmentations?|masks?|polygons?|keypoints?|grounding)$",
            BOXES,
        ),
        (
            r"^(choices|options|hints?|contexts?|passages?|history|inputs?|documents?|conversations?|messages|dialogues?)$",
            "a part of the question that this format does not read",
        ),
        (r"^(completions?|candidates|answers|responses|outputs)$", "answers that this format does not read"),
        (
            r"^(images|rejected_images|retrieved_images?|other_images?|image_?\d+|imgs|pictures|photos|depth|mask_image)$",
            "a picture that this format does not read",
        ),
    )
)
_EMPTY = ("[]", "{}", "null", "None")
_PICTURE = re.compile(
    r"^(image|img|picture|photo|pixel_values|(image|img|picture|photo)_(path|file|url|bytes|base64|b64|base64_str)|file_name)$"
)

LOSS_KEYS = ("loss", "train", "trainable", "weight")
"""Of a turn: whether it is learnt, by ms-swift's, axolotl's and OpenAI's names."""
REASONING_KEYS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thought",
    "thoughts",
    "rationale",
    "cot",
    "chain_of_thought",
)
"""Of a turn, or of a row for its last answer: what the assistant thought before it spoke."""
SYSTEM_KEYS = ("system", "system_prompt", "system_message")
"""Of a row: what stands before its first turn."""


def present(value: Any) -> bool:
    """Whether a key says anything: None, NaN, blank text and empty lists do not, nor do lists of these."""
    if value is None or value is False:
        return False
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, float):
        return not math.isnan(value)
    if isinstance(value, dict):
        return any(map(present, value.values()))
    if isinstance(value, list | tuple):
        return any(map(present, value))
    return True


@dataclass(frozen=True)
class _Key:
    """What a key's name alone tells: film or sound, where a row came from, why it is refused."""

    other_medium: bool
    origin: bool
    flag: bool
    label: bool
    picture: bool
    reason: str


@lru_cache(maxsize=4096)
def _key(key: str) -> _Key:
    name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()).strip("_")
    reason = next((reason for pattern, reason in _KEYS if pattern.search(name)), "")
    return _Key(
        other_medium=reason in (VIDEO, AUDIO),
        origin=bool(_ORIGIN.search(name)),
        flag=bool(re.fullmatch(r"labels?|kto_tag|desirable|loss|train|trainable", name)),
        label=name in ("label", "labels"),
        picture=bool(_PICTURE.search(name)),
        reason=reason,
    )


def refusal(key: str, value: Any, has_images: bool) -> str:
    """Why a row with this key may not be used by a format that does not read it; empty for one of its origin.

    Args:
        has_images: the row's pictures were found elsewhere, so that a further path says where they came from.
    """
    told = _key(str(key))
    if told.flag and isinstance(value, bool):
        return told.reason
    if not present(value) or (isinstance(value, str) and value.strip() in _EMPTY):
        return ""
    if told.origin and not told.other_medium:
        return ""
    if told.label and isinstance(value, str):
        return ""
    if told.picture and not has_images:
        return "a picture that this format does not read"
    return told.reason


def foreign_marker(text: str, has_images: bool) -> tuple[str, str]:
    """(reason, marker) of the first marker in a question's text that no row can mean; empty where there is
    none.

    Args:
        has_images: the row has pictures, and this text does not mark them: `<image>` in it is a word.
    """
    for pattern, reason in _FOREIGN:
        if found := pattern.search(text):
            return reason, found[0]
    for found in MARKER.finditer(text):
        if not (has_images and found[0] == "<image>"):
            return NO_PICTURE, found[0][:100]
    return "", ""


def lone_surrogate(value: Any) -> bool:
    """Whether half a character stands anywhere in a JSON value: no UTF-8 file can hold it."""
    try:
        json.dumps(value, ensure_ascii=False, default=lambda _: "").encode("utf-8")
    except UnicodeEncodeError:
        return True
    except (TypeError, ValueError, RecursionError):
        return _walked(value)
    return False


def _walked(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if not one.isascii():
                try:
                    one.encode("utf-8")
                except UnicodeEncodeError:
                    return True
        elif isinstance(one, dict):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
    return False
