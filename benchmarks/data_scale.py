"""Import, preflight, judge, pairs and audit at scale: does memory stay flat, and does twice the data take
twice the time?

    python -m benchmarks.data_scale                              # 100,000 and 200,000 rows
    python -m benchmarks.data_scale --rows 5000 10000 --model DIR
    python -m benchmarks.data_scale --rows 300000 --only audit oracle "pairs, style balanced"

For each number N of rows: N published pairs in MMPR's form are imported, the N rows are counted by preflight,
pairs are built of N judged answers, four a prompt
(with style balance of N pairs, of which 60% have a comma more), the oracle judges N answers, and N pairs
are audited. Rows are generated, no two alike; they share a few hundred small pictures. Every stage is a
process of its own, as a user starts it; memory is its largest resident set, as the kernel counted it.
Prints a Markdown table and, for each stage, the ratio of CPU seconds between the sizes (wall seconds depend
on what else the machine does). Fails where memory passes 1.5 GB or grows by more than a tenth and 100 MB,
or where time grows more than 15% beyond linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.rows.schema import Candidate, Claim, Message, Verdict
from data_tools.material.answer_counts import COUNTS, count_answer
from data_tools.scenes.categories import CATEGORIES

REPO = Path(__file__).resolve().parent.parent
NUM_PICTURES = 300
ANSWERS_A_PROMPT = 4
NUM_KNOWN = 1000
"""Pictures with annotations."""
MOST_BYTES = 1.5e9
_PLACES = (
    "on the table",
    "beside the window",
    "under a tree",
    "in the street",
    "near the wall",
    "on the grass",
)
_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown")


@dataclass(frozen=True)
class Cost:
    """What one stage took at one size: seconds and bytes."""

    wall: float
    cpu: float
    peak: int


def write_pictures(folder: Path) -> list[str]:
    """A few hundred small JPEGs of different sizes; their names."""
    folder.mkdir()
    stream = np.random.default_rng(0)
    names = []
    for k in range(NUM_PICTURES):
        size = (int(stream.integers(96, 320)), int(stream.integers(96, 320)))
        noise = Image.fromarray(stream.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        names.append(f"{k:03d}.jpg")
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / names[-1], quality=80)
    return names


def sentences(stream: np.random.Generator, objects: Sequence[str]) -> str:
    """A caption that names these objects."""
    parts = []
    for name in objects:
        colour, place = _COLOURS[stream.integers(len(_COLOURS))], _PLACES[stream.integers(len(_PLACES))]
        parts.append(f"There is a {colour} {name} {place}.")
    return " ".join(parts)


def drawn(stream: np.random.Generator, number: int) -> list[str]:
    """So many different objects."""
    places = stream.choice(len(CATEGORIES), number, replace=False)
    return [CATEGORIES[place].name for place in places]


def write_published(path: Path, number: int, pictures: Sequence[str]) -> None:
    """Pairs as MMPR publishes them."""
    stream = np.random.default_rng(1)
    with path.open("w") as out:
        for k in range(number):
            objects = drawn(stream, 5)
            row = {
                "image": pictures[k % len(pictures)],
                "question": f"<image>\nWhat is in picture {k}? Name what you see.",
                "chosen": sentences(stream, objects[:4]),
                "rejected": sentences(stream, objects),
            }
            out.write(json.dumps(row) + "\n")


def write_judged(folder: Path, number: int, pictures: Sequence[str]) -> None:
    """Candidates, verdicts and the judge's agreement as the stages `sample` and `judge` write them."""
    folder.mkdir()
    (folder / "agreement.json").write_text(
        json.dumps({"balanced_accuracy": {"value": 0.95, "ci_low": 0.9, "ci_high": 1.0}})
    )
    with (
        (folder / "candidates.jsonl").open("w") as answers,
        (folder / "verdicts.jsonl").open("w") as verdicts,
    ):
        for candidate, verdict in judged(number, pictures):
            answers.write(candidate.model_dump_json() + "\n")
            verdicts.write(verdict.model_dump_json() + "\n")


def judged(number: int, pictures: Sequence[str]) -> Iterator[tuple[Candidate, Verdict]]:
    """Answers to one prompt name four true objects or fewer, and up to three more."""
    stream = np.random.default_rng(2)
    for k in range(number // ANSWERS_A_PROMPT):
        prompt_id, objects = f"p{k:08d}", drawn(stream, 7)
        for answer in range(ANSWERS_A_PROMPT):
            true = objects[: int(stream.integers(3, 5))]
            false = objects[4 : 4 + int(stream.integers(0, 4))]
            text = sentences(stream, [*true, *false])
            candidate = Candidate(
                id=f"{prompt_id}#{answer}",
                prompt_id=prompt_id,
                images=[pictures[k % len(pictures)]],
                prompt=[Message(role="user", content="Describe the picture.")],
                text=text,
                finish_reason="stop" if stream.random() < 0.95 else "length",
                num_tokens=len(text.split()),
                meta={"split": "train" if k % 100 else "dev", "image_id": k % NUM_KNOWN, "count": 1},
            )
            claims = [
                Claim(text=name, question=f"Is there a {name}?", p_yes=yes, p_no=1 - yes)
                for names, yes in ((true, 0.9), (false, 0.1))
                for name in names
            ]
            yield (
                candidate,
                Verdict(
                    candidate_id=candidate.id,
                    prompt_id=prompt_id,
                    judge="claims/benchmark",
                    prompt_sha256="0" * 64,
                    score=-float(len(false)),
                    claims=claims,
                    meta={COUNTS: count_answer(text)._asdict()},
                ),
            )


def write_truth(path: Path) -> None:
    """COCO instances of `NUM_KNOWN` pictures, five objects each."""
    stream, names = np.random.default_rng(3), [category.name for category in CATEGORIES]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 90, "height": 90} for k in range(NUM_KNOWN)]
    annotations = [
        {"id": 5 * k + n, "image_id": k, "category_id": int(place), "bbox": [10 * n, 0, 9, 9], "iscrowd": 0}
        for k in range(NUM_KNOWN)
        for n, place in enumerate(stream.choice(len(names), 5, replace=False))
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_commas(folder: Path, number: int, pictures: Sequence[str]) -> None:
    """Two judged answers to each of `number` prompts; in 60% of the pairs the better one has more commas."""
    folder.mkdir()
    sure = {"balanced_accuracy": {"value": 0.95, "ci_low": 0.9, "ci_high": 1.0}}
    (folder / "agreement.json").write_text(json.dumps(sure))
    stream = np.random.default_rng(4)
    with (
        (folder / "candidates.jsonl").open("w") as answers,
        (folder / "verdicts.jsonl").open("w") as verdicts,
    ):
        for k in range(number):
            objects, more = drawn(stream, 4), int(stream.random() < 0.4)
            for answer in range(2):
                text = sentences(stream, objects)
                text = text.replace(" is a", ", surely, is a", 1 + (answer == more))
                candidate = Candidate(
                    id=f"p{k:08d}#{answer}",
                    prompt_id=f"p{k:08d}",
                    images=[pictures[k % len(pictures)]],
                    prompt=[Message(role="user", content="Describe the picture.")],
                    text=text,
                    finish_reason="stop",
                    num_tokens=len(text.split()),
                    meta={"split": "train", "image_id": k % NUM_KNOWN, "count": 1},
                )
                verdict = Verdict(
                    candidate_id=candidate.id,
                    prompt_id=candidate.prompt_id,
                    judge="benchmark",
                    prompt_sha256="0" * 64,
                    score=-float(answer),
                    meta={COUNTS: count_answer(text)._asdict()},
                )
                answers.write(candidate.model_dump_json() + "\n")
                verdicts.write(verdict.model_dump_json() + "\n")


def measured(words: Sequence[str]) -> Cost:
    """Run `align WORDS` and measure it.

    Raises:
        RuntimeError: it failed; says what it printed.
    """
    command = [sys.executable, "-c", "import sys; from align.cli import main; sys.exit(main())", *words]
    environment = os.environ | {
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"align {' '.join(words)}\n{printed.read()}")
    return Cost(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def stages(
    folder: Path, number: int, pictures: Sequence[str], model: Path, only: Sequence[str]
) -> dict[str, Cost]:
    """The stages on so many rows, all or only some of them; their files are removed again."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        published, rows, images = work / "published.jsonl", work / "rows.parquet", folder / "images"
        write_published(published, number, pictures)
        write_judged(work / "judged", number, pictures)
        write_truth(work / "truth.json")
        costs = {
            "import": measured(["import", "mmpr", str(published), str(rows), "--image_root", str(images)])
        }
        words = ["preflight", str(rows), "--model", str(model), "--image_root", str(images)]
        words += ["--max_length", "4096", "--out", str(work / "fit.parquet")]
        commands = {"preflight": words, "pairs": _pairs(work / "judged", work / "run")}
        commands["audit"] = ["audit", str(rows), "--image_root", str(images), "--run_dir", str(work / "run")]
        candidates = work / "judged" / "candidates.jsonl"
        oracle = {"kind": "oracle", "candidates": candidates, "run_dir": work / "run", "image_root": images}
        oracle["truth"] = f"[{{instances: {work / 'truth.json'}}}]"
        commands["oracle"] = ["judge", *(f"{key}={value}" for key, value in oracle.items())]
        balanced = "pairs, style balanced"
        commands[balanced] = [*_pairs(work / "commas", work / "styled"), "style_tolerance=0.02"]
        commands[balanced] += ["max_more_repeats=null", "min_pairs=1"]
        if not only or balanced in only:
            write_commas(work / "commas", number, pictures)
        costs |= {stage: measured(line) for stage, line in commands.items() if not only or stage in only}
        _check(work, number, only)
    return costs


def _pairs(judged: Path, run_dir: Path) -> list[str]:
    inputs = {name: judged / f"{name}.jsonl" for name in ("candidates", "verdicts")}
    inputs |= {"agreement": judged / "agreement.json", "run_dir": run_dir}
    return ["pairs", *(f"{key}={value}" for key, value in inputs.items())]


def _check(work: Path, number: int, only: Sequence[str]) -> None:
    """Nothing was lost on the way."""
    import pyarrow.parquet as pq

    for name in ("rows.parquet", *(["fit.parquet"] if not only or "preflight" in only else [])):
        assert pq.ParquetFile(work / name).metadata.num_rows == number, name
    if not only or "pairs" in only:
        assert pq.ParquetFile(work / "run" / "pairs" / "pairs.parquet").metadata.num_rows > number // 20


def linear(small: Cost, large: Cost, times: float) -> bool:
    """Whether CPU seconds grew no more than 15% beyond the rows (starting up makes it less)."""
    return large.cpu / small.cpu <= 1.15 * times


def flat(small: Cost, large: Cost) -> bool:
    """Whether memory stayed below the limit and nearly where it was."""
    return large.peak < MOST_BYTES and large.peak - small.peak < 0.1 * small.peak + 100e6


def main() -> int:
    """Measure and print; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000], metavar="N")
    parser.add_argument("--model", type=Path, default=REPO / "assets" / "base", help="whose processor counts")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="import and these alone")
    parser.add_argument("--folder", type=Path, help="where the files are written for the time being")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="data-scale-", dir=given.folder) as name:
        folder = Path(name)
        pictures = write_pictures(folder / "images")
        found: dict[int, dict[str, Cost]] = {}
        print("| stage | rows | wall s | CPU s | rows / CPU s | peak memory |\n|---|---|---|---|---|---|")
        for number in given.rows:
            found[number] = stages(folder, number, pictures, given.model, given.only)
            for stage, cost in found[number].items():
                times = f"{cost.wall:.1f} | {cost.cpu:.1f} | {number / cost.cpu:,.0f}"
                print(f"| {stage} | {number:,} | {times} | {cost.peak / 1e6:,.0f} MB |", flush=True)
    return judge(found)


def judge(found: dict[int, dict[str, Any]]) -> int:
    """Compare neighbouring sizes; 1 where a bound is missed."""
    missed = 0
    for small, large in zip(list(found)[:-1], list(found)[1:], strict=True):
        for stage in found[small]:
            one, other = found[small][stage], found[large][stage]
            verdicts = {"linear": linear(one, other, large / small), "flat": flat(one, other)}
            missed += not all(verdicts.values())
            words = ", ".join(name if good else f"NOT {name}" for name, good in verdicts.items())
            grown = f"{large / small:g} times the rows, {other.cpu / one.cpu:.2f} times the CPU time"
            print(f"{stage}: {grown}: {words}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
