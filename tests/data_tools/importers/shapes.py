"""One small file in each published shape: what its publisher's rows look like, and what they must become."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

Turns = list[tuple[str, str]]


def picture(color: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    """A PNG's bytes, another picture for another colour."""
    out = io.BytesIO()
    Image.new("RGB", size, (color, 40, 90)).save(out, "PNG")
    return out.getvalue()


RED, BLUE = picture(200), picture(10)


@dataclass(frozen=True)
class Shape:
    """A published file and the rows it gives.

    Attributes:
        content: what the file holds: a list (JSON, JSON lines or Parquet by `file`'s suffix) or an object.
        turns: of every row that must come out, what is asked: (role, text).
        answers: (chosen, rejected) of each pair; for instruction rows the last of `turns` is the answer.
        images: names under the image root, or bytes for pictures that come embedded; of each row.
        dropped: reasons that must be counted, and how often.
        meta: what each row's `meta` must have, among other things.
    """

    format: str
    file: str
    content: Any
    turns: list[Turns]
    answers: list[tuple[str, str]] | None
    images: list[list[str | bytes]]
    dropped: dict[str, int] = field(default_factory=dict)
    meta: list[dict[str, Any]] = field(default_factory=list)
    words: tuple[str, ...] = ()
    others: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The file, with whatever stands beside it, and pictures a.png, b.png."""
        (folder / "a.png").write_bytes(RED)
        (folder / "b.png").write_bytes(BLUE)
        for name, content in self.others.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        path = folder / self.file
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet as pq

            pq.write_table(pyarrow.Table.from_pylist(self.content), path)
        elif path.suffix == ".csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(self.content[0]))
                table.writeheader()
                table.writerows(self.content)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in self.content))
        else:
            path.write_text(json.dumps(self.content))
        return path


def asked(text: str) -> Turns:
    """A prompt of one user turn."""
    return [("user", text)]


def said(*pairs: str) -> Turns:
    """A dialogue that begins with the user."""
    return [("assistant" if k % 2 else "user", text) for k, text in enumerate(pairs)]


def _llava(value: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]


def _parts(text: str, image: bool = False) -> list[dict[str, Any]]:
    """As Arrow stores them: every part has every key."""
    return [{"text": None, "type": "image"}] * image + [{"text": text, "type": "text"}]


def _rated(text: str, ratings: str, model: str = "m") -> dict[str, Any]:
    names = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    annotations = {
        name: {"Rating": mark if mark != "?" else "N/A", "Rationale": "r"}
        for name, mark in zip(names, ratings, strict=True)
    }
    return {"annotations": annotations, "model": model, "response": text}


_VICUNA = "A chat between a curious user and an artificial intelligence assistant."
_RLAIF_V = {"ds_name": "RLAIF-V", "origin_dataset": "coco", "origin_split": '{"model": "x"}'}
_GQA = {"isBalanced": True, "groups": {"local": "1"}, "semantic": [{"operation": "select", "argument": "x"}]}
_VG = {"VG_100K/7.jpg": RED, "VG_100K_2/8.jpg": BLUE}

SHAPES = [
    Shape(
        "rlhf_v",
        "RLHF-V-Dataset.parquet",
        [
            {
                "ds_name": "RLHF-V",
                "image": {"bytes": RED, "path": "0.jpg"},
                "text": '{"question": "What?", "chosen": "A cat.", "rejected": "A dog."}',
                "origin_dataset": "llava",
                "origin_split": '{"model": "MiniCPM", "type": "question answering"}',
                "idx": 4,
                "image_path": "RLHF-V/x.jpg",
            },
            {"ds_name": "RLHF-V", "image": {"bytes": RED, "path": None}, "text": "no JSON", "idx": 5},
        ],
        [asked("What?")],
        [("A cat.", "A dog.")],
        [[RED]],
        {"text is not JSON": 1},
        [{"source": "rlhf_v", "source_id": 4, "origin_dataset": "llava", "image_path": "RLHF-V/x.jpg"}],
    ),
    Shape(
        "rlaif_v",
        "rlaif-v.parquet",
        [
            _RLAIF_V
            | {"image": {"bytes": BLUE, "path": None}, "question": "<image> is what tag?"}
            | {"chosen": "A.", "rejected": "B.", "idx": "9", "image_path": "p.jpg"},
            _RLAIF_V | {"image": {"bytes": b"no picture", "path": None}, "question": "Q", "chosen": "A"},
        ],
        [asked("<image> is what tag?")],
        [("A.", "B.")],
        [[BLUE]],
        {"rejected is no text": 1},
        [{"ds_name": "RLAIF-V", "source_id": "9"}],
    ),
    Shape(
        "rlaif_v_formatted",
        "train-00000.parquet",
        [
            {
                "images": [{"bytes": RED, "path": None}],
                "prompt": [{"role": "user", "content": _parts("What?", image=True)}],
                "chosen": [{"role": "assistant", "content": _parts("A.")}],
                "rejected": [{"role": "assistant", "content": _parts("B.")}],
            },
            {
                "images": [{"bytes": RED, "path": None}],
                "prompt": [{"role": "user", "content": _parts("What?") + _parts("", image=True)[:1]}],
                "chosen": [{"role": "assistant", "content": _parts("A.")}],
                "rejected": [{"role": "assistant", "content": _parts("B.")}],
            },
        ],
        [asked("What?"), asked("What?[image]")],
        [("A.", "B.")] * 2,
        [[RED]] * 2,
    ),
    Shape(
        "vlfeedback",
        "vlfeedback_80k.jsonl",
        [
            {
                "id": "svit-1",
                "prompt": "What?",
                "models": ["a", "b", "c", "d"],
                "completions": [
                    _rated("good", "555", "a"),
                    _rated("fair", "444", "b"),
                    _rated("bad", "151", "c"),
                    _rated("unrated", "5?5", "d"),
                ],
                "img_path": "a.png",
            },
            {"id": "2", "prompt": "Q", "completions": [_rated("x", "333"), _rated("y", "333")]},
            {"id": "3", "prompt": "Q", "completions": [_rated("x", "333")], "img_path": "a.png"},
        ],
        [asked("What?"), asked("What?")],
        [("good", "bad"), ("fair", "bad")],
        [["a.png"], ["a.png"]],
        {"all answers are rated the same": 1, "fewer than two rated answers": 1},
        [{"margin": 2.6667, "chosen_model": "a"}, {"margin": 1.6667, "rejected_score": 2.3333}],
        ("--max_pairs", "2"),
    ),
    Shape(
        "povid",
        "povid.json",
        [
            {
                "id": "COCO_1",
                "image": "./data/coco/a.png",
                "conversations": _llava("<image>\nDescribe.", "A cat.") + _llava("More?", "No."),
                "rejected_conversations": _llava("<image>\nDescribe.", "A dog.") + _llava("More?", "Yes."),
            },
            {
                "id": "COCO_1",
                "image": "./data/coco/a.png",
                "conversations": _llava("<image>\nDescribe.", "A."),
                "rejected_conversations": _llava("<image>\nWhat?", "B."),
            },
        ],
        [asked("Describe."), said("Describe.", "A cat.", "More?")],
        [("A cat.", "A dog."), ("No.", "Yes.")],
        [["a.png"], ["a.png"]],
        {"the two conversations ask different questions": 1},
        words=("--strip", "./data/coco/"),
    ),
    Shape(
        "csr",
        "csr.json",
        [
            {
                "id": "1",
                "image": "a.png",
                "conversations": _llava("Describe the following image.\n<image>", "A."),
                "rejected_conversations": _llava("Describe the following image.\n<image>", "B."),
            }
        ],
        [asked("Describe the following image.")],
        [("A.", "B.")],
        [["a.png"]],
    ),
    Shape(
        "re_align",
        "pref_data.json",
        [
            {
                "image": "a.png",
                "retrieved_image": "b.png",
                "chosen": [{"role": "user", "content": "<image>\nQ"}, {"role": "assistant", "content": "A"}],
                "rejected": [
                    {"role": "user", "content": "<image>\nQ"},
                    {"role": "assistant", "content": "B"},
                ],
            }
        ],
        [asked("Q")],
        [("A", "B")],
        [["a.png"]],
    ),
    Shape(
        "ha_dpo_desc",
        "desc_data.json",
        {
            "7": {"chosen": ["A cat.", "One cat."], "rejected": ["A dog.", "One dog."]},
            "8": {"chosen": ["A."], "rejected": [""]},
            "9": {"chosen": ["A."], "rejected": ["B."]},
        },
        [asked("Could you describe the contents of this image for me?")] * 2,
        [("A cat.", "A dog."), ("One cat.", "One dog.")],
        [["VG_100K/7.jpg"]] * 2,
        {"rejected is empty": 1, "missing image": 1},
        [{"image_id": 7}] * 2,
        ("--max_pairs", "3"),
        _VG,
    ),
    Shape(
        "ha_dpo_pope",
        "pope_data.json",
        [
            {"image_id": 8, "question": "Is there a cat?", "chosen": "Yes.", "reject": "No."}
            | {"answer": "yes", "correct": False},
            {
                "image_id": 8,
                "question": "Is there a cat?",
                "chosen": "Yes.",
                "reject": "Yes.",
                "correct": True,
            },
        ],
        [asked("Is there a cat?")],
        [("Yes.", "No.")],
        [["VG_100K_2/8.jpg"]],
        {"the model had answered rightly: no pair": 1},
        [{"answer": "yes", "image_id": 8}],
        others=_VG,
    ),
    Shape(
        "mdpo",
        "sample_data.json",
        [
            {"img_path": "a.png", "prompt": f"{_VICUNA} USER: <image>\nHow? ASSISTANT:"}
            | {"chosen": "So.", "rejected": "Thus."},
            {"img_path": "a.png", "prompt": "Say USER: no more", "chosen": "So.", "rejected": "Thus."},
            {"img_path": "a.png", "prompt": f"{_VICUNA} USER: <image>\nQ ASSISTANT: A</s>USER: R ASSISTANT:"}
            | {"chosen": "So.", "rejected": "Thus."},
        ],
        [asked("How?"), asked("Say USER: no more"), said("Q", "A", "R")],
        [("So.", "Thus.")] * 3,
        [["a.png"]] * 3,
        meta=[{"template_system": _VICUNA}],
    ),
    Shape(
        "mm_rlhf",
        "dpo_pairs.jsonl",
        [
            {"id": "1", "image": "a.png", "prompt": "<image>\nQ", "chosen": "A", "rejected": "B"},
            {"id": "2", "video": "v/1", "prompt": "Q", "chosen": "A", "rejected": "B"},
            {"id": "3", "image": ["a.png", "b.png"], "prompt": "Compare.", "chosen": "A", "rejected": "B"},
        ],
        [asked("Q"), asked("Compare.")],
        [("A", "B")] * 2,
        [["a.png"], ["a.png", "b.png"]],
        {"the row is on a video": 1},
    ),
    Shape(
        "mmpr",
        "mmpr.jsonl",
        [
            {"image": "a.png", "question": "<image>\nQ", "chosen": "A", "rejected": "B"},
            {"image": ["a.png", "b.png"], "question": "<image>\n<image>\nQ", "chosen": "A", "rejected": "B"},
            {
                "image": ["a.png", "b.png"],
                "question": "1: <image>\n2: <image>",
                "chosen": "A",
                "rejected": "B",
            },
            {"image": None, "question": "Q", "chosen": "A", "rejected": "A"},
        ],
        [asked("Q"), asked("Q"), asked("1: [image]\n2: [image]")],
        [("A", "B")] * 3,
        [["a.png"], ["a.png", "b.png"], ["a.png", "b.png"]],
        {"chosen and rejected are the same text": 1},
    ),
    Shape(
        "llava",
        "llava_instruct_150k.json",
        [
            {"id": "1", "image": "a.png", "conversations": _llava("<image>\nQ", "A") + _llava("R", "B")},
            {"id": "1", "image": "a.png", "conversations": _llava("What does <image> mean?\n<image>", "A")},
            {"id": "2", "conversations": _llava("What does <image> mean?", "A tag.")},
            {"id": "3", "image": "a.png", "conversations": _llava("What does <image> mean?", "A tag.")},
            {"id": "4", "image": "gone.png", "conversations": _llava("<image>\nQ", "A")},
            {"id": "5", "image": "a.png", "conversations": _llava("<image>\nQ", "A")[:1]},
        ],
        [
            said("Q", "A", "R", "B"),
            said("What does [image] mean?", "A tag."),
        ],
        None,
        [["a.png"], ["a.png"]],
        {
            "more image placeholders than images": 1,
            "a marker without a picture": 1,
            "missing image": 1,
            "the conversation does not end with an answer": 1,
        },
        [{"source_id": "1"}, {"source_id": "3"}],
    ),
    Shape(
        "sharegpt",
        "sharegpt.json",
        [
            {"id": "x_0", "conversations": [{"from": "gpt", "value": "..."}, *_llava("Q", "A")]},
            {
                "messages": [
                    {"role": "system", "content": "S"},
                    {"role": "user", "content": "<image>Q"},
                    {"role": "assistant", "content": "A"},
                ],
                "images": ["b.png"],
            },
            {"id": "x_2", "conversations": [*_llava("Q", "A"), {"from": "tool", "value": "?"}]},
            {"id": "x_3", "conversations": [*_llava("Q", "A"), {"from": "gpt", "value": "again"}]},
        ],
        [said("Q", "A"), [("system", "S"), *said("Q", "A")]],
        None,
        [[], ["b.png"]],
        {"unknown role": 1, "roles do not alternate": 1},
    ),
    Shape(
        "m3it",
        "train.jsonl",
        [
            {"instruction": "Answer.", "inputs": "What?", "outputs": "A."}
            | {"image_base64_str": [base64.b64encode(RED).decode()]},
            {"instruction": "Answer.", "inputs": "", "outputs": "A.", "image_base64_str": "not base64!"},
        ],
        [said("Answer.\nWhat?", "A.")],
        None,
        [[RED]],
        {"image is not base64": 1},
    ),
    Shape(
        "coco_captions",
        "captions_val2014.json",
        {
            "info": {"year": 2014},
            "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
            "licenses": [],
            "annotations": [
                {"image_id": 1, "id": 11, "caption": "A cat \non a sofa."},
                {"image_id": 2, "id": 12, "caption": "A dog."},
            ],
        },
        [said("Provide a one-sentence caption for the provided image.", "A cat on a sofa.")],
        None,
        [["a.png"]],
        {"a caption of an unknown image": 1},
        [{"source_id": 11, "image_id": 1}],
    ),
    Shape(
        "vqav2",
        "v2_OpenEnded_mscoco_val2014_questions.json",
        {
            "info": {},
            "data_type": "mscoco",
            "data_subtype": "val2014",
            "questions": [
                {"image_id": 5, "question": "Is it?", "question_id": 50},
                {"image_id": 5, "question": "Or?", "question_id": 51},
            ],
        },
        [said("Is it?\nAnswer the question using a single word or phrase.", "yes")],
        None,
        [["val2014/COCO_val2014_000000000005.jpg"]],
        {"a question without an answer": 1},
        [{"source_id": 50}],
        ("--annotations", "answers.json"),
        {
            "val2014/COCO_val2014_000000000005.jpg": RED,
            "answers.json": {
                "annotations": [{"question_id": 50, "image_id": 5, "multiple_choice_answer": "yes"}]
            },
        },
    ),
    Shape(
        "gqa",
        "val_balanced_questions.json",
        {
            "0293": {"imageId": "23", "question": "Red?", "answer": "no", "fullAnswer": "No, blue."} | _GQA,
            "0294": {"imageId": "../a", "question": "Red?", "answer": "no"} | _GQA,
        },
        [said("Red?\nAnswer the question using a single word or phrase.", "no")],
        None,
        [["images/23.jpg"]],
        {"image path leaves the image root": 1},
        [{"source_id": "0293", "fullAnswer": "No, blue."}],
        others={"images/23.jpg": RED},
    ),
    Shape(
        "rows",
        "mine.jsonl",
        [
            {"id": "q", "images": ["a.png"], "prompt": "What?", "chosen": "A", "rejected": "B", "extra": 1},
            {
                "images": [],
                "prompt": [{"role": "user", "content": "Q"}],
                "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
                "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}],
            },
            {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
            {"text": "?"},
        ],
        [asked("What?"), asked("Q")],
        [("A", "B")] * 2,
        [["a.png"], []],
        {"a SFTRow among PreferenceRows": 1, "neither messages nor prompt, chosen and rejected": 1},
        [{"source_id": "q", "extra": 1}],
    ),
]
