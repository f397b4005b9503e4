"""Write the embedded world as files that COCO, POPE, CHAIR and VQAv2 code reads unchanged.

    images/<split>/%012d.png
    annotations/instances_<split>.json      objects, with `attributes: {"color": ...}` where they have one;
                                            images also carry `context` and `style`
    annotations/captions_<split>.json       five true captions an image
    annotations/captions_web_train.json     train only: five web captions an image, noise included
    annotations/questions_<split>.json      VQAv2 questions
    annotations/vqa_<split>.json            VQAv2 annotations

Scenes are made, written and forgotten one by one; the JSON is streamed, so a million scenes need
no more memory than one. The same arguments give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from data_tools.scenes.categories import BY_NAME, CATEGORIES
from data_tools.scenes.language import NOISE_SHARE, WRONG_PER_NOISE, caption, web_caption
from data_tools.scenes.questions import Question, questions
from data_tools.scenes.render import IMAGE_SIZE, SPLITS, Scene, make_scene, scene_rng

PARTS = ("images", "annotations")
NUM_CAPTIONS = 5
NUM_ANSWERS = 10
_FIRST_ID = {split: 100_000_000 * (number + 1) for number, split in enumerate(SPLITS)}
_ANSWER_TYPE = {"exists": "yes/no", "verify": "yes/no", "how many": "number"}
"""Kind of question -> VQAv2's answer type; `other` for the rest."""
Progress = Callable[[int, int], None]


class JsonArrays:
    """One JSON object of long arrays, written item by item, in the order of `names`."""

    def __init__(self, path: Path, names: tuple[str, ...], fields: dict[str, object]) -> None:
        self._path, self._fields = path, fields
        self._parts = {name: path.with_suffix(f".{name}.part") for name in names}
        self._files = {name: part.open("w") for name, part in self._parts.items()}
        self._empty = dict.fromkeys(names, True)

    def add(self, name: str, item: Mapping[str, object]) -> None:
        """Append one item to the array `name`."""
        if not self._empty[name]:
            self._files[name].write(",\n")
        self._files[name].write(json.dumps(item))
        self._empty[name] = False

    def close(self) -> None:
        """Join the arrays into the one file."""
        with self._path.open("w") as out:
            out.write("{" + json.dumps(self._fields)[1:-1])
            for name, part in self._parts.items():
                self._files[name].close()
                out.write(f',\n"{name}": [\n')
                with part.open() as items:
                    shutil.copyfileobj(items, out)
                out.write("\n]")
                part.unlink()
            out.write("}\n")


def image_id(split: str, index: int) -> int:
    """Unique over all splits."""
    if index >= 100_000_000:
        raise ValueError(f"a split holds at most 100,000,000 scenes, asked for number {index}")
    return _FIRST_ID[split] + index


def vqa_pair(question: Question, image: int, number: int) -> tuple[dict, dict]:
    """One question and its annotation in VQAv2's format; all ten answers agree."""
    question_id = image * 100 + number
    asked = {"question_id": question_id, "image_id": image, "question": question.text}
    answers = [
        {"answer": question.answer, "answer_confidence": "yes", "answer_id": i + 1}
        for i in range(NUM_ANSWERS)
    ]
    told = {
        "question_id": question_id,
        "image_id": image,
        "question_type": question.kind,
        "answer_type": _ANSWER_TYPE.get(question.kind, "other"),
        "multiple_choice_answer": question.answer,
        "answers": answers,
    }
    return asked, told


class _SplitWriter:
    """The open annotation files of one split."""

    def __init__(self, out_dir: Path, split: str, seed: int, noise_share: float) -> None:
        self.split, self.seed, self.noise_share = split, seed, noise_share
        self.image_dir = out_dir / "images" / split
        self.image_dir.mkdir(parents=True)
        folder = out_dir / "annotations"
        folder.mkdir(exist_ok=True)
        info = {
            "description": "align's embedded world of icon scenes",
            "split": split,
            "seed": seed,
        }
        plain = {"info": info, "licenses": []}
        captioned = ("images", "annotations")
        self.instances = JsonArrays(
            folder / f"instances_{split}.json", ("images", "annotations", "categories"), plain
        )
        for category in CATEGORIES:
            entry = {"id": category.id, "name": category.name}
            self.instances.add("categories", entry | {"supercategory": category.supercategory})
        self.captions = JsonArrays(folder / f"captions_{split}.json", captioned, plain)
        self.web = None
        if split == "train":
            shares = {"noise_share": noise_share, "wrong_claim_share": WRONG_PER_NOISE * noise_share}
            noisy = {"info": info | shares, "licenses": []}
            self.web = JsonArrays(folder / "captions_web_train.json", captioned, noisy)
        self.questions = JsonArrays(folder / f"questions_{split}.json", ("questions",), plain)
        self.vqa = JsonArrays(folder / f"vqa_{split}.json", ("annotations",), plain)

    def write(self, index: int) -> None:
        """One scene: its image and everything said about it."""
        scene = make_scene(self.seed, self.split, index)
        image = image_id(self.split, index)
        name = f"{image:012d}.png"
        Image.fromarray(scene.pixels).save(self.image_dir / name)
        size = {"width": IMAGE_SIZE, "height": IMAGE_SIZE}
        entry: dict[str, object] = {"id": image, "file_name": name, **size}
        entry |= {"context": scene.context, "style": scene.style}
        for file in (self.instances, self.captions, self.web):
            if file is not None:
                file.add("images", entry)
        for number, item in enumerate(scene.objects):
            told: dict[str, object] = {
                "id": image * 10 + number, "image_id": image, "iscrowd": 0,
                "category_id": BY_NAME[item.category].id,
                "bbox": list(item.bbox), "area": item.area,
            }  # fmt: skip
            if item.color is not None:
                told["attributes"] = {"color": item.color}
            self.instances.add("annotations", told)
        self._write_language(scene, image, index)

    def _write_language(self, scene: Scene, image: int, index: int) -> None:
        # One generator a file: a change of the questions leaves the captions as they are.
        said, noisy, asked = (
            scene_rng(self.seed, f"{self.split}/{part}", index) for part in ("captions", "web", "questions")
        )
        for number in range(NUM_CAPTIONS):
            entry = {"id": image * 10 + number, "image_id": image}
            text = caption(scene.context, scene.objects, said)
            self.captions.add("annotations", entry | {"caption": text})
            if self.web is not None:
                text, _ = web_caption(scene.context, scene.objects, noisy, self.noise_share)
                self.web.add("annotations", entry | {"caption": text})
        for number, question in enumerate(questions(scene.context, scene.objects, asked)):
            ask, tell = vqa_pair(question, image, number)
            self.questions.add("questions", ask)
            self.vqa.add("annotations", tell)

    def close(self) -> None:
        """Finish every file of the split."""
        for file in (self.instances, self.captions, self.web, self.questions, self.vqa):
            if file is not None:
                file.close()


def write_world(
    out_dir: Path,
    *,
    train: int,
    dev: int,
    test: int,
    unseen: int,
    seed: int = 0,
    noise_share: float = NOISE_SHARE,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write all splits into the fresh folder `out_dir`; counts are images a split.

    Args:
        out_dir: must not hold a world already; the caller renames it when this returns.
        noise_share: share of train's web captions that name an absent object, 0..1.
        progress: called with (images done, images in all).

    Returns:
        Images a split, by the split's name.

    Raises:
        FileExistsError: `out_dir` has images or annotations.
        ValueError: a count is negative or `noise_share` is not in 0..1.
    """
    sizes = dict(zip(SPLITS, (train, dev, test, unseen), strict=True))
    if min(sizes.values()) < 0 or not 0 <= noise_share <= 1:
        raise ValueError(f"counts must be >= 0 and noise_share in 0..1: {sizes}, {noise_share}")
    for part in PARTS:
        if (out_dir / part).exists():
            raise FileExistsError(f"{out_dir / part} exists; write_world wants a fresh folder")
    done, total = 0, sum(sizes.values())
    for split, size in sizes.items():
        writer = _SplitWriter(out_dir, split, seed, noise_share)
        for index in range(size):
            writer.write(index)
            done += 1
            if progress is not None:
                progress(done, total)
        writer.close()
    return {str(split): size for split, size in sizes.items()}
