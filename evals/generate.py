"""Ask a checkpoint every sample of every task, through vLLM; nothing is scored here.

Writes `predictions.jsonl`, sorted by task and sample. Samples that ask the same thing share one request;
requests are ordered by image so that the server's prefix cache hits. Every answer is kept on disk as it
arrives, keyed by weights, prompt, image bytes and sampling, so a stopped run asks nothing twice.

  align generate recipes/quickstart/eval.yaml model=runs/quickstart/sft_merged/checkpoint name=predict_sft

Next: `align score`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe
from align.errors import AlignError
from align.inputs.images import image_sha256, resolve_image
from align.progress import say
from align.rows.schema import Prediction, write_rows
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.run.state import Input
from align.serving.answers import AnswerStore, Ask, ask_missing
from align.serving.client import ChatRequest, Decoding, Failure, Reply, Sampling, ask, content_key
from align.serving.server import HOW_KEYS, ServeSettings, serve
from evals.protocol import Sample
from evals.tasks.registry import load_tasks
from evals.tasks.task import Task


class Asking(StageRecipe):
    """How checkpoints are asked, one of them by `align generate` or several by `align eval`."""

    tasks: dict[str, dict[str, Any]] = Field(description="task name -> its section; `type` picks the task")
    sampling: Decoding = Field(
        default=Decoding(), description="greedy by default; max_tokens comes from each task"
    )
    engine: Literal["server", "offline"] = Field(
        default="server",
        description="vLLM's OpenAI server (or serve.endpoint), or vLLM inside this process; same answers",
    )
    serve: ServeSettings = ServeSettings()
    concurrency: int = Field(default=128, ge=1, description="requests asked at the same time")
    max_failed: float = Field(default=0.02, ge=0, le=1, description="share of failed requests to accept")

    @model_validator(mode="after")
    def _one_engine(self) -> Asking:
        if self.engine == "offline" and self.serve.endpoint:
            raise ValueError("engine: offline asks no server, so serve.endpoint must be null")
        return self

    @field_validator("tasks")
    @classmethod
    def _tasks_load(cls, tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        load_tasks(tasks)
        return tasks


class Recipe(Asking):
    """The recipe of `align generate`."""

    how_keys: ClassVar[frozenset[str]] = HOW_KEYS | {"engine", "concurrency"}
    limit_keys: ClassVar[frozenset[str]] = frozenset({"max_failed"})

    name: str = "generate"
    model: ModelRef = Field(description="merged checkpoint folder, or a model's id on the hub")
    adapter: str | None = Field(
        default=None,
        description="ask with this one of serve.adapters on; null asks the model itself. Several such stages "
        "in a row share one server",
    )

    @model_validator(mode="after")
    def _has_the_adapter(self) -> Recipe:
        if self.engine == "offline" and self.adapter:
            raise ValueError("engine: offline answers without adapters; leave engine out")
        if self.adapter is not None and self.adapter not in self.serve.adapters:
            raise ValueError(f"adapter {self.adapter!r} is not one of serve.adapters")
        return self


@dataclass(frozen=True)
class Asked:
    """A task's sample with the content key of its request."""

    task: str
    sample: Sample
    key: str


def run(recipe: Recipe) -> RunFolder:
    """Generate; the output is byte-equal for the same recipe and inputs, also after a kill and resume.

    Raises:
        AlignError: a missing annotation file or image, no samples, a server that dies, or more
            failed requests than `max_failed`.
    """
    tasks = load_tasks(recipe.tasks)
    inputs: dict[str, Input] = {"model": recipe.model}
    if recipe.adapter is not None:
        inputs["adapter"] = recipe.serve.adapters[recipe.adapter]
    for name, task in tasks.items():
        inputs |= {f"{name}.{key}": path for key, path in task.inputs().items()}
    return run_stage(recipe, inputs, lambda folder: _work(recipe, tasks, folder))


def _work(recipe: Recipe, tasks: Mapping[str, Task], folder: RunFolder) -> Done:
    samples = [(name, sample) for name, task in tasks.items() for sample in checked_samples(name, task)]
    with (
        engine(recipe, folder.logs) as (digest, ask_all),
        AnswerStore(folder.scratch / "answers.jsonl") as store,
    ):
        asked, requests = build_requests(recipe, digest, samples)
        say(f"  {len(samples)} samples of {len(tasks)} tasks, {len(requests)} different requests")
        replies = ask_missing(ask_all, store, requests, "generating")
    predictions = sorted(
        (predict(item, replies[item.key]) for item in asked), key=lambda row: (row.task, row.sample_id)
    )
    health = {name: task_health(name, predictions) for name in tasks}
    show_health(health)
    _check_failed(predictions, recipe.max_failed)
    write_rows(folder.work / "predictions.jsonl", predictions)
    metrics = {"samples": len(samples), "requests": len(requests), "health": health}
    return Done(metrics, "align score RECIPE")


@contextmanager
def engine(recipe: Recipe, logs: Path) -> Iterator[tuple[str, Ask]]:
    """What answers for the length of the block: the weights' digest, and how to ask."""
    if recipe.engine == "offline":
        from align.serving.engine import offline_engine

        with offline_engine(recipe.model, recipe.serve) as running:
            yield running.digest, running.ask
        return
    with serve(recipe.model, recipe.serve, logs, recipe.adapter) as server:
        yield server.digest, lambda requests, keep: ask(server, requests, keep, recipe.concurrency)


def checked_samples(name: str, task: Task) -> list[Sample]:
    """A task's samples: ids unique, images there (before a server is started for them).

    Raises:
        AlignError: no samples, an id that occurs twice, a missing image.
    """
    task.prepare()
    samples = task.samples()
    if not samples:
        raise AlignError("the task has no samples", where=f"tasks.{name}")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise AlignError(f"duplicate sample id {sample.id!r}", where=f"tasks.{name}")
        seen.add(sample.id)
        for image in sample.images:
            resolve_image(sample.image_root, image)
    return samples


def build_requests(
    recipe: Recipe, digest: str, samples: Sequence[tuple[str, Sample]]
) -> tuple[list[Asked], dict[str, ChatRequest]]:
    """Every sample's content key, and each different request once, ordered by image."""
    decoding = recipe.sampling.model_dump()
    seed = recipe.seed if recipe.sampling.temperature else 0  # greedy answers are the same for all seeds
    shas: dict[Path, str] = {}
    asked, requests, order = [], {}, {}
    for name, sample in samples:
        images = [resolve_image(sample.image_root, image) for image in sample.images]
        for image in images:
            shas.setdefault(image, "")
            shas[image] = shas[image] or image_sha256(image)
        sampling = Sampling(**decoding, max_tokens=sample.max_tokens, seed=seed)
        request = ChatRequest(sample.messages, images, sampling)
        digests = [shas[image] for image in images]
        key = content_key(digest, request, digests)
        asked.append(Asked(name, sample, key))
        requests[key] = request
        order[key] = (digests, sample.max_tokens, key)
    return asked, {key: requests[key] for key in sorted(requests, key=order.__getitem__)}


def predict(asked: Asked, reply: Reply | Failure) -> Prediction:
    """The answer to one sample: the text as the server gave it, or the reason why there is none."""
    row = Prediction(key=asked.key, task=asked.task, sample_id=asked.sample.id)
    if isinstance(reply, Failure):
        return row.model_copy(update={"error": reply.reason})
    choice = reply.choices[0]
    return row.model_copy(
        update=choice.model_dump(include={"text", "reasoning", "unclosed", "finish_reason", "num_tokens"})
    )


def task_health(name: str, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Counts of one task's failed, empty and truncated answers, and their mean length in tokens; where
    answers had thoughts, how many, and how many of those did not end.
    """
    rows = [row for row in predictions if row.task == name]
    answered = [row for row in rows if row.text is not None]
    thought = sum(bool(row.reasoning) or row.unclosed for row in answered)
    unclosed = sum(row.unclosed for row in answered)
    thoughts = {"thoughts": thought, "unclosed": unclosed} if thought else {}
    return {
        "samples": len(rows),
        "failed": len(rows) - len(answered),
        "empty": sum(not (row.text or "").strip() for row in answered),
        "truncated": sum(row.finish_reason == "length" for row in answered),
        "mean_tokens": round(sum(row.num_tokens for row in answered) / max(len(answered), 1), 2),
        **thoughts,
    }


def show_health(health: Mapping[str, Mapping[str, float]]) -> None:
    """Print the health of all tasks as a table."""
    width = max(len(name) for name in health)
    say(f"  {'task':<{width}} samples  failed   empty  truncated  mean tokens")
    for name, row in health.items():
        counts = f"{row['samples']:>7} {row['failed']:>7} {row['empty']:>7} {row['truncated']:>10}"
        say(f"  {name:<{width}} {counts} {row['mean_tokens']:>12.1f}")
    thoughts, unclosed = (sum(row.get(key, 0) for row in health.values()) for key in ("thoughts", "unclosed"))
    if thoughts:
        say(f"  {thoughts} answers had thoughts, kept apart as `reasoning`; {unclosed} were cut off in them")


def _check_failed(predictions: Sequence[Prediction], max_failed: float) -> None:
    failed = [row for row in predictions if row.error is not None]
    if len(failed) > max_failed * len(predictions):
        raise AlignError(
            f"{len(failed)} of {len(predictions)} samples got no answer, such as {failed[0].sample_id}: "
            f"{failed[0].error}",
            fix="mend the cause and run again (answers are kept), or raise max_failed",
        )
