"""POPE questions a second: our server path, the same questions one by one, and vLLM given all prompts at
once.

    python -m benchmarks.eval_throughput                                  # 9,000 questions
    python -m benchmarks.eval_throughput --questions 600 --one_by_one 60

All three ask the embedded base about pictures of the embedded world, greedily, with the same engine settings,
in this order and in one run: one by one (questions about pictures that the others do not see, so that no
cache helps or is helped), `align generate`'s own path (many at a time, ordered by picture, every answer put
on disk) on the same server, then `LLM.chat` with all prompts in one call. All questions differ, so asking
equal ones once gains nothing here. Starting and warming up are not counted. Prints one line of JSON.

Besides rates by the clock, which a busy machine spoils, the processor's time a question: of this process and
its children (`cpu_ms`), and of the client alone (`client_cpu_ms`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from align.config.model_ref import ModelRef
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Failure, Reply, ask
from align.serving.engine import offline_engine
from align.serving.server import ServeSettings, serve
from data_tools.scenes.coco_files import write_world
from evals.generate import Recipe, build_requests
from evals.tasks.registry import load_tasks

BASE = Path(__file__).resolve().parents[1] / "assets" / "base"
SETTINGS = ServeSettings(dtype="float32", max_model_len=512, kv_cache_gb=1.0)
QUESTIONS_AN_IMAGE = 6
"""At least so many different ones: three objects in the picture and one absent object for each."""


def main() -> None:
    """Run the three and print their rates and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=9000)
    parser.add_argument("--one_by_one", type=int, default=300, help="how many to ask one by one")
    parser.add_argument("--concurrency", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eval-throughput-") as folder:
        record = run(Path(folder), options.questions, options.one_by_one, options.concurrency)
    print(json.dumps(record))


def run(folder: Path, num_questions: int, num_single: int, concurrency: int) -> dict[str, Any]:
    """Rates in questions a second, their ratios, and how many answers of server and engine are equal."""
    write_world(
        folder / "world",
        train=num_questions // QUESTIONS_AN_IMAGE + 1,
        dev=(num_single + concurrency) // QUESTIONS_AN_IMAGE + 10,
        test=1,
        unseen=1,
        seed=0,
    )
    many = _requests(folder / "world", "train", num_questions)
    single = _requests(folder / "world", "dev", num_single + concurrency)
    warm_up = dict(islice(single.items(), num_single, None))
    single = dict(islice(single.items(), num_single))
    with serve(BASE, SETTINGS, folder / "logs") as server:
        ask(server, list(warm_up.items()), _ignore, concurrency)
        with Stopwatch() as one_by_one:
            ask(server, list(single.items()), _ignore, concurrency=1)
        with AnswerStore(folder / "answers.jsonl") as store, Stopwatch() as ours:
            served = ask_stored(server, store, many, "server path", concurrency)
    with offline_engine(BASE, SETTINGS) as engine:
        engine.ask(list(warm_up.items()), _ignore)
        given: dict[str, Reply | Failure] = {}
        with Stopwatch() as offline:
            engine.ask(list(many.items()), given.__setitem__, batch=len(many))
    alone, path, at_once = (
        count / watch.seconds
        for count, watch in ((len(single), one_by_one), (len(many), ours), (len(many), offline))
    )
    return {
        "questions": len(many),
        "one_by_one_questions": len(single),
        "concurrency": concurrency,
        "one_by_one_per_second": round(alone, 2),
        "server_path_per_second": round(path, 2),
        "offline_per_second": round(at_once, 2),
        "over_one_by_one": round(path / alone, 3),
        "of_offline": round(path / at_once, 3),
        "cpu_ms": {
            "one_by_one": round(1000 * one_by_one.cpu_seconds / len(single), 2),
            "server_path": round(1000 * ours.cpu_seconds / len(many), 2),
            "offline": round(1000 * offline.cpu_seconds / len(many), 2),
        },
        "client_cpu_ms": round(1000 * ours.own_cpu_seconds / len(many), 2),
        "equal_answers": sum(_text(served[key]) == _text(given[key]) for key in many),
        "failed": sum(isinstance(reply, Failure) for reply in [*served.values(), *given.values()]),
        "cpus": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
    }


class Stopwatch:
    """A block by the clock, and the processors' time of this process with its children, and of it alone."""

    def __enter__(self) -> Stopwatch:
        self._started, self._cpu, self._own = time.perf_counter(), _cpu_seconds(), time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = _cpu_seconds() - self._cpu
        self.own_cpu_seconds = time.process_time() - self._own


def _cpu_seconds() -> float:
    """Of this process and its living children, vLLM's among them."""
    mine = psutil.Process()
    times = [process.cpu_times() for process in (mine, *mine.children(recursive=True))]
    return sum(item.user + item.system for item in times)


def _requests(world: Path, part: str, count: int) -> Mapping[str, ChatRequest]:
    """`count` different POPE questions about one part of the world, ordered by picture."""
    section = {
        "type": "pope",
        "image_root": str(world / "images" / part),
        "instances": str(world / "annotations" / f"instances_{part}.json"),
        "num_images": 10**6,
        "min_objects": 1,
        "max_tokens": 8,
    }
    recipe = Recipe(run_dir=world, model=ModelRef.of(BASE), tasks={"pope": section})
    samples = load_tasks(recipe.tasks)["pope"].samples()
    _, requests = build_requests(recipe, "base", [("pope", sample) for sample in samples])
    if len(requests) < count:
        raise SystemExit(f"only {len(requests)} different questions about {part}, {count} wanted")
    return dict(islice(requests.items(), count))


def _ignore(key: str, reply: Reply | Failure) -> None:
    del key, reply


def _text(reply: Reply | Failure) -> str | None:
    return reply.choices[0].text if isinstance(reply, Reply) else None


if __name__ == "__main__":
    main()
