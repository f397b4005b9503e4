"""As `shapes.py`, for the forms that other tools write and read: one small file each."""

from __future__ import annotations

import base64
from typing import Any

from tests.data_tools.importers.shapes import RED, SHAPES, Shape, asked, said

_URL = "data:image/png;base64," + base64.b64encode(RED).decode()


def user(content: Any, **more: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content, **more}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": content, **more}


def human(value: str, **more: Any) -> dict[str, Any]:
    """A user's turn in ShareGPT's words."""
    return {"from": "human", "value": value, **more}


def gpt(value: str, **more: Any) -> dict[str, Any]:
    """An assistant's turn in ShareGPT's words."""
    return {"from": "gpt", "value": value, **more}


def text(words: str) -> dict[str, Any]:
    """A part of text."""
    return {"type": "text", "text": words}


TOOL_SHAPES = [
    Shape(
        "ms_swift",
        "swift.jsonl",
        [
            {"messages": [user("<image>Q"), assistant("A")], "images": ["a.png"], "rejected_response": "B"},
            {
                "messages": [user("<image>Q"), assistant("A")],
                "images": ["a.png"],
                "rejected_messages": [user("<image>Q"), assistant("B")],
                "rejected_images": ["b.png"],
            },
            {
                "messages": [user("<image>Q"), assistant("A")],
                "images": ["a.png"],
                "rejected_images": ["b.png"],
            },
            {
                "messages": [user("Q"), assistant("A")],
                "rejected_messages": [user("Another"), assistant("B")],
            },
            {"messages": [user("Q"), assistant("A", loss=False)], "rejected_response": "B"},
        ],
        [asked("Q"), asked("Q")],
        [("A", "B")] * 2,
        [["a.png"], ["a.png"]],
        {
            "worse pictures without a worse answer": 1,
            "the two conversations ask different questions": 1,
            "no loss on an answer of a pair": 1,
        },
    ),
    Shape(
        "llama_factory",
        "rank.json",
        [
            {
                "conversations": [human("<image>Q"), gpt("A"), human("R")],
                "chosen": gpt("B"),
                "rejected": gpt("C"),
                "images": ["a.png"],
                "system": "S",
            },
            {"conversations": [human("Q")], "chosen": gpt("B"), "rejected": gpt("C"), "videos": ["v.mp4"]},
        ],
        [[("system", "S"), *said("Q", "A", "R")]],
        [("B", "C")],
        [["a.png"]],
        {"the row is on a video": 1},
    ),
    Shape(
        "internvl",
        "internvl.jsonl",
        [
            {"id": 0, "image": "a.png", "width": 8, "height": 6}
            | {"conversations": [human("<image>\nQ"), gpt("A")]},
            {"id": 1, "image": ["a.png", "b.png"], "width_list": [8, 8], "height_list": [6, 6]}
            | {"conversations": [human("Image-1: <image>\nImage-2: <image>\nQ"), gpt("A")]},
            {"id": 2, "conversations": [human("Q"), gpt("A")]},
        ],
        [said("Q", "A"), said("Image-1: [image]\nImage-2: [image]\nQ", "A"), said("Q", "A")],
        None,
        [["a.png"], ["a.png", "b.png"], []],
    ),
    Shape(
        "qwen_vl",
        "qwen.json",
        [
            {"id": "1", "conversations": [{"from": "user", "value": "Picture 1: <img>a.png</img>\nQ"}]}
            | {"conversations": [human("Picture 1: <img>a.png</img>\nQ"), gpt("A")]},
            {"id": "2", "conversations": [human("<img>a.png</img>Q"), gpt("A")]},
            {"id": "3", "conversations": [human("<img>gone.png</img>Q"), gpt("A")]},
        ],
        [said("Picture 1: [image]\nQ", "A"), said("Q", "A")],
        None,
        [["a.png"], ["a.png"]],
        {"missing image": 1},
    ),
    Shape(
        "axolotl",
        "axolotl.jsonl",
        [
            {"conversations": [human("Q"), gpt("A", train=False), human("R"), gpt("B", weight=1)]},
            {"conversations": [human("Q"), gpt("A", weight=0.5)]},
            {"conversations": [human("Q", train=True), gpt("A")]},
        ],
        [said("Q", "A", "R", "B")],
        None,
        [[]],
        {"a weight of the loss that rows cannot hold": 1, "a loss on a turn that is not the assistant's": 1},
    ),
    Shape(
        "openai",
        "chat.jsonl",
        [
            {
                "messages": [
                    {"role": "developer", "content": "S"},
                    user([text("Q"), {"type": "image_url", "image_url": {"url": _URL, "detail": "low"}}]),
                    assistant("A"),
                ]
            },
            {
                "messages": [
                    user([text("Q"), {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]),
                    assistant("A"),
                ]
            },
            {"messages": [user("Q"), assistant(None, tool_calls=[{"id": "1"}])]},
        ],
        [[("system", "S"), *said("Q[image]", "A")]],
        None,
        [[RED]],
        {"a picture at a web address": 1, "the row calls tools": 1},
    ),
    Shape(
        "unsloth",
        "unsloth.jsonl",
        [
            {
                "messages": [
                    user([text("Q"), {"type": "image", "image": "a.png"}]),
                    assistant([text("A")]),
                ]
            },
            {"messages": [user([{"type": "image", "path": "b.png"}, text("Q")]), assistant([text("A")])]},
            {"messages": [user([{"type": "video", "video": "v.mp4"}, text("Q")]), assistant([text("A")])]},
        ],
        [said("Q[image]", "A"), said("Q", "A")],
        None,
        [["a.png"], ["b.png"]],
        {"the row is on a video": 1},
    ),
    Shape(
        "trl_pairs",
        "trl.jsonl",
        [
            {
                "image": "a.png",
                "chosen": [user("Q"), assistant("A")],
                "rejected": [user("Q"), assistant("B")],
            },
            {
                "images": ["a.png"],
                "prompt": [user([text("Q"), {"type": "image"}])],
                "chosen": [assistant([text("A")])],
                "rejected": [assistant([text("B")])],
            },
            {"chosen": [user("Q"), assistant("A")], "rejected": [user("R"), assistant("B")]},
        ],
        [asked("Q"), asked("Q[image]")],
        [("A", "B")] * 2,
        [["a.png"], ["a.png"]],
        {"the two conversations ask different questions": 1},
    ),
    Shape(
        "trl_completions",
        "completions.jsonl",
        [
            {"images": ["a.png"], "prompt": [user("Q")], "completion": [assistant("A")]},
            {"prompt": "Q", "completion": "A"},
        ],
        [said("Q", "A")] * 2,
        None,
        [["a.png"], []],
    ),
    Shape(
        "finevision",
        "shard-0.parquet",
        [
            {
                "images": [{"bytes": RED, "path": None}],
                "texts": [{"user": "Q", "assistant": "A"}, {"user": "R", "assistant": "B"}],
                "source": "vqa",
            },
            {
                "images": [{"bytes": RED, "path": None}],
                "texts": [{"user": "", "assistant": "A"}],
                "source": "x",
            },
        ],
        [said("Q", "A", "R", "B")],
        None,
        [[RED]],
        {"a turn is empty": 1},
        [{"source": "vqa"}],
    ),
    Shape(
        "flat",
        "flat.csv",
        [
            {"image": "a.png", "question": "Q", "answer": "A", "split": "train"},
            {"image": "", "question": "Q", "answer": "", "split": ""},
        ],
        [said("Q", "A")],
        None,
        [["a.png"]],
        {"answer is no text": 1},
        [{"split": "train"}],
    ),
    Shape(
        "flat_pairs",
        "flat_pairs.json",
        [
            {"image": "a.png", "question": "Q", "chosen": "A", "rejected": "B"},
            {"image": "a.png", "question": "<image>\nQ", "chosen": "A", "rejected": "B"},
            {"image": "a.png", "question": "Q", "chosen": "A", "rejected": "B", "audio": "x.wav"},
        ],
        [asked("Q"), asked("Q")],
        [("A", "B")] * 2,
        [["a.png"], ["a.png"]],
        {"the row has sound": 1},
    ),
    Shape(
        "alpaca",
        "alpaca.json",
        [
            {"instruction": "I", "input": "in", "output": "A", "images": ["a.png"], "history": [["q", "a"]]},
            {"instruction": "I", "output": "A", "kto_tag": False},
        ],
        [said("q", "a", "I\nin", "A")],
        None,
        [["a.png"]],
        {"a preference that this format does not read": 1},
    ),
    Shape(
        "query_response",
        "query.jsonl",
        [
            {
                "query": "<image>Q",
                "response": "A",
                "rejected_response": "B",
                "images": ["a.png"],
                "system": "S",
            },
            {
                "query": "<image>Q",
                "response": "A",
                "rejected_response": "B",
                "objects": {"bbox": [[1, 2, 3, 4]]},
            }
            | {"images": ["a.png"]},
        ],
        [[("system", "S"), ("user", "Q")]],
        [("A", "B")],
        [["a.png"]],
        {"the row has boxes or points": 1},
    ),
    Shape(
        "llava_rlhf",
        "llava_7b_v1_preference.json",
        [
            {"id": "1", "image": "a.png", "conversations": [human("<image>\nQ"), gpt("A"), human("R")]}
            | {"output_1": gpt("B"), "output_2": gpt("C"), "preference": 2, "hallucination": True},
            {"id": "1", "image": "a.png", "conversations": [human("<image>\nQ")]}
            | {"output_1": gpt("B"), "output_2": gpt("C"), "preference": 0},
        ],
        [said("Q", "A", "R")],
        [("C", "B")],
        [["a.png"]],
        {"no preference between the two outputs": 1},
        [{"hallucination": True}],
    ),
    Shape(
        "bpo",
        "bpo.json",
        [
            {
                "prompt": "Q\n<image>",
                "image": "a.png",
                "completions": [
                    {"score": 1, "response": "A", "type": "gt"},
                    {"score": 0, "response": "B", "type": "weak"},
                ],
            },
            {"prompt": "Q\n<image>", "image": "a.png", "completions": [{"score": 1, "response": "A"}]},
        ],
        [asked("Q")],
        [("A", "B")],
        [["a.png"]],
        {"all answers are rated the same": 1},
        [{"margin": 1.0, "rejected_type": "weak"}],
    ),
    Shape(
        "sentinel",
        "sentinel.jsonl",
        [
            {
                "image_id": "1",
                "image_path": "a.png",
                "question": "Q",
                "context": "One.",
                "y_win": "A.",
                "y_lose": "B.",
            },
            {
                "image_id": "1",
                "image_path": "a.png",
                "question": "Q",
                "context": None,
                "y_win": "A.",
                "y_lose": None,
            },
        ],
        [asked("Q")],
        [("One. A.", "One. B.")],
        [["a.png"]],
        {"y_lose is no text": 1},
        [{"image_id": "1", "context": "One."}],
    ),
    Shape(
        "sentinel_by_image",
        "model.json",
        {
            "a.png": [
                {"question": "Q", "context": None, "y_win": "A.", "y_lose": "B.", "type": "y+"},
                {"question": "Q", "context": "One.", "y_win": "A.", "y_lose": "B.", "type": "y+"},
            ],
            "gone.png": [{"question": "Q", "y_win": "A.", "y_lose": "B."}],
        },
        [asked("Q")] * 2,
        [("A.", "B."), ("One. A.", "One. B.")],
        [["a.png"]] * 2,
        {"missing image": 1},
        [{"type": "y+"}],
    ),
    Shape(
        "haloquest",
        "haloquest_train.csv",
        [
            {
                "": "0",
                "image_name": "a.png",
                "url": "https://x.org/a.png",
                "hallucination type": "false premises",
            }
            | {"question": "Q", "groundtruth responses": "No; There is none"},
            {"": "1", "image_name": "", "url": "https://x.org/b.png", "hallucination type": "false premises"}
            | {"question": "Q", "groundtruth responses": "No"},
        ],
        [said("Q", "No")],
        None,
        [["a.png"]],
        {"a picture at a web address": 1},
        [{"hallucination type": "false premises", "groundtruth responses": "No; There is none"}],
    ),
    Shape(
        "internvl_meta",
        "meta.json",
        {
            "one": {"root": "pictures", "annotation": "one.jsonl", "repeat_time": 2, "length": 2},
            "two": {"root": "", "annotation": "two.json", "repeat_time": 0.5, "length": 2},
        },
        [said("Q", "A"), said("Q", "A"), said("R", "B")],
        None,
        [["pictures/c.png"], ["pictures/c.png"], []],
        meta=[{"source_dataset": "one"}, {"source_dataset": "one"}, {"source_dataset": "two"}],
        others={
            "pictures/c.png": RED,
            "one.jsonl": {"image": "c.png", "conversations": [human("<image>\nQ"), gpt("A")]},
            "two.json": [
                {"conversations": [human("R"), gpt("B")]},
                {"conversations": [human("S"), gpt("C")]},
            ],
        },
    ),
    Shape(
        "dataset_info",
        "dataset_info.json",
        {
            "mine": {
                "file_name": "mine.json",
                "formatting": "sharegpt",
                "columns": {"messages": "talk", "images": "pictures"},
                "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it"},
            },
            "other": {"file_name": "other.json"},
        },
        [said("Q", "A")],
        None,
        [["a.png"]],
        words=("--entry", "mine"),
        others={
            "mine.json": [
                {
                    "talk": [{"who": "me", "what": "<image>Q"}, {"who": "it", "what": "A"}],
                    "pictures": ["a.png"],
                }
            ]
        },
    ),
]
ALL = [*SHAPES, *TOOL_SHAPES]
