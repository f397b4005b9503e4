"""Two checkouts of this repository at the same work: does one of them train or score slower?

    git worktree add ../old COMMIT
    python -m benchmarks.two_trees ../old . --repeats 5

SFT and DPO of the embedded base, and scoring of answers (CHAIR, VQA): equal rows, recipes and files for both,
one thread, each round a process of its own, the trees in turn (A B B A ...), so that a slow minute hits both.
What is timed is `Trainer.train` and `score_file.main` inside the process, neither imports nor the model's
loading. The processor's time is what counts on a machine that has other work; the clock's is beside it.
Prints a Markdown table: medians over the rounds, the ratio second to first, its lowest and highest, and the
ratio of the fastest rounds, which other work disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from align.progress import track

REPO = Path(__file__).resolve().parents[1]
_JOBS = ("sft", "dpo", "chair", "vqa")
# Runs in either tree, hence only what both have: the stages by name, and the command that scores a file.
_CHILD = """
import json, sys, time
job, *words = sys.argv[1:]
times = []

def timed(function):
    def call(*args, **kwargs):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
        return result
    return call

if job in ("chair", "vqa"):
    from evals.score_file import main
    timed(main)(words)
else:
    import transformers
    transformers.Trainer.train = timed(transformers.Trainer.train)
    from align.cli import main
    main([job, *words])
print("TIMES " + json.dumps(times[-1]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs=2, type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--images", type=int, default=1000, help="captions to score")
    options = parser.parse_args()
    trees = [tree.resolve() for tree in options.trees]
    found: dict[str, list[list[tuple[float, float]]]] = {job: [[], []] for job in _JOBS}
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder), options.images)
        rounds = [
            (job, number, place)
            for number in range(options.repeats)
            for job in _JOBS
            for place in ((0, 1) if number % 2 == 0 else (1, 0))
        ]
        for job, number, place in track(rounds, "rounds", len(rounds)):
            words = work[job]
            if job in ("sft", "dpo"):
                words = [
                    *words,
                    f"run_dir={folder}/{job}_{number}_{place}",
                    f"trainer.max_steps={options.steps}",
                ]
            found[job][place].append(run(trees[place], job, words))
    print(table(found))


def prepare(folder: Path, num_images: int) -> dict[str, list[str]]:
    """The words of each job: recipes over the embedded world's rows, captions with their annotations."""
    from data_tools.scenes.coco_files import write_world
    from tests.training_recipes import captions, dpo_recipe, sft_recipe

    world, base = folder / "world", REPO / "assets" / "base"
    write_world(world, train=num_images, dev=1, test=1, unseen=1, seed=0)
    many = {"trainer__save_steps": 1000, "trainer__max_steps": 1}
    found = {
        "sft": [str(sft_recipe(folder / "sft", base, world, **many))],
        "dpo": [str(dpo_recipe(folder / "dpo", base, world, **many))],
    }
    kinds = {"chair": ("instances", "captions"), "vqa": ("questions", "vqa")}
    names = {"questions": "questions_val2014", "vqa": "val2014_annotations"}
    for job, files in kinds.items():
        (folder / job).mkdir()
        for name in files:
            text = (world / "annotations" / f"{name}_train.json").read_text()
            (folder / job / f"{names.get(name, f'{name}_val2014')}.json").write_text(text)
    said = {
        str(int("".join(c for c in Path(image).stem if c.isdigit()))): f"{caption} A dog and a cat are there."
        for image, caption in captions(world)
    }
    asked = json.loads((folder / "vqa" / "questions_val2014.json").read_text())["questions"]
    answered = [{"question_id": row["question_id"], "answer": "two"} for row in asked]
    for job, answers in {"chair": said, "vqa": answered}.items():
        (folder / f"{job}.json").write_text(json.dumps(answers))
        found[job] = [job, "--predictions", str(folder / f"{job}.json"), "--data", str(folder / job)]
    return found


def run(tree: Path, job: str, words: list[str]) -> tuple[float, float]:
    """The job in a process of its own, in this tree: seconds of the processor and of the clock."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _CHILD, job, *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TIMES ")]
    if done.returncode or not lines:
        raise SystemExit(f"{tree}: {job} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    cpu, wall = json.loads(lines[0].removeprefix("TIMES "))
    return cpu, wall


def table(found: dict[str, list[list[tuple[float, float]]]]) -> str:
    """A line a job."""
    lines = [
        "| work | processor s, first tree | second | ratio (lowest, highest) | fastest | by the clock |",
        "|---|---|---|---|---|---|",
    ]
    for job, (first, second) in found.items():
        cpu = [[item[0] for item in side] for side in (first, second)]
        wall = [median(item[1] for item in side) for side in (first, second)]
        ratios = [b / a for a, b in zip(*cpu, strict=True)]
        spread = f"{median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})"
        fastest = f"{min(cpu[1]) / min(cpu[0]):.3f}"
        seconds = " | ".join(f"{median(side):.2f}" for side in cpu)
        lines.append(f"| {job} | {seconds} | {spread} | {fastest} | {wall[1] / wall[0]:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
