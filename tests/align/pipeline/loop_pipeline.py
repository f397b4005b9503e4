"""A pipeline whose rounds are real stages that take no model: an oracle judge, pairs, and cleaned rows in the
place of a checkpoint. For tests of rounds, of reasons and of kills."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from align.rows.schema import Candidate, Message, PreferenceRow, write_rows

TEXT = """
run_dir: {root}/run
seed: 3
rounds: 1
round:
  stages: [judge, pairs, clean]
  start: {root}/start.parquet
  result: ${{run_dir}}/clean/rows.parquet
  min_agreement: 0.6
  by_round: {{pairs: {{max_pairs_per_prompt: [1, 2]}}}}
world: {{stage: scenes, train: 1, dev: 1, test: 1, unseen: 0, about: three small pictures, minutes: 1}}
judge:
  kind: oracle
  candidates: {root}/candidates.jsonl
  image_root: {root}/images
  truth: [{{instances: {root}/instances.json}}]
pairs:
  candidates: {root}/candidates.jsonl
  verdicts: ${{run_dir}}/judge/verdicts.jsonl
  agreement: ${{run_dir}}/judge/agreement.json
  length_tolerance: null
  mention_tolerance: null
clean: {{stage: decontaminate, data: "${{round.model}}", image_root: "{root}/images",
  against: ["{root}/bench"]}}
last: {{stage: decontaminate, data: "${{run_dir}}/clean/rows.parquet", image_root: "{root}/images",
  against: ["{root}/bench", "${{run_dir}}/judge/verdicts.jsonl"], text_fields: [prompt_id]}}
"""
"""`last` stands behind the loop: one path of a round, and one in a list."""


def write_loop(root: Path) -> Path:
    """The pipeline file, and beside it the pictures, answers and annotations that it reads."""
    (root / "images").mkdir(parents=True)
    (root / "bench").mkdir()
    names = ("dog", "cat")
    instances = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 8} for n in range(4)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2 + 1, "bbox": [0, 0, 4, 4], "iscrowd": 0, "area": 16}
            for n in range(4)
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (root / "instances.json").write_text(json.dumps(instances))
    for n in range(4):
        _picture(n * 60).save(root / "images" / f"{n}.png")
    _picture(7, stripes=3).save(root / "bench" / "other.png")
    texts = ["a {0}", "a {0} and a {1}", "a {0}, a {1} and a car", "a {0} and a bus"]
    candidates = [
        _candidate(n, number, text.format(names[n % 2], names[1 - n % 2]))
        for n in range(4)
        for number, text in enumerate(texts)
    ]
    write_rows(root / "candidates.jsonl", candidates)
    write_rows(root / "start.parquet", [_pair(n) for n in range(4)])
    path = root / "pipeline.yaml"
    path.write_text(TEXT.format(root=root))
    return path


def tell_kept(stage_dir: Path, nothing: bool, why: str) -> None:
    """Put into a finished folder's manifest what a keep rule tells; metrics are no part of its digest."""
    path = stage_dir / "manifest.json"
    record = json.loads(path.read_text())
    record["metrics"]["kept"] = {"step": 0 if nothing else 40, "why": why, "nothing": nothing}
    path.write_text(json.dumps(record))


def digests(run_dir: Path) -> dict[str, str]:
    """Of every finished stage in a run, and of the pipeline's own file."""
    found = {
        path.parent.name: json.loads(path.read_text())["output_digest"]
        for path in sorted(run_dir.glob("*/manifest.json"))
        if not path.parent.name.endswith(".partial")
    }
    return found | {"rounds.json": (run_dir / "rounds.json").read_text()}


def _candidate(image: int, number: int, text: str) -> Candidate:
    split = "train" if image < 2 else "dev"
    return Candidate(
        id=f"{split}-{image}#{number}",
        prompt_id=f"{split}-{image}",
        images=[f"{image}.png"],
        prompt=[Message(role="user", content="Describe.")],
        text=text,
        finish_reason="stop",
        num_tokens=len(text.split()),
        meta={"split": split, "image_id": image, "count": 1},
    )


def _pair(image: int) -> PreferenceRow:
    said = [[Message(role="assistant", content=text)] for text in ("a dog", "a dog and a car")]
    prompt = [Message(role="user", content="Describe.")]
    return PreferenceRow(
        id=f"start-{image}", images=[f"{image}.png"], prompt=prompt, chosen=said[0], rejected=said[1]
    )


def _picture(shade: int, stripes: int = 0) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (shade, 128, 255 - shade))
    for x in range(64):
        for y in range(64):
            value = (x * (shade + 1) + y * y) % 256 if not stripes else (x * x * stripes + y) % 256
            picture.putpixel((x, y), (value, value, value))
    return picture
