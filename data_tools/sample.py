"""Sample several answers to every prompt from a checkpoint, through vLLM.

Writes `candidates.jsonl`: the distinct answers of each prompt with their finish reason, sorted by id;
`meta.count` says how often an answer was drawn. Every answer is kept on disk as it arrives, keyed by
weights, prompt, image bytes and sampling, so a stopped run asks nothing twice. Seeds come from
the prompt's content: a resumed run draws the same answers.

  align sample recipes/quickstart/sample.yaml n=4 sampling.temperature=1.0

Next: `align judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe, Strict
from align.digest import digest_json
from align.errors import AlignError
from align.inputs.images import image_sha256
from align.inputs.training_data import image_file
from align.progress import say
from align.rows.messages import said
from align.rows.schema import Candidate, PromptRow, read_rows, write_rows
from align.rows.tally import Tally
from align.run.folder import RunFolder
from align.run.stage import Done, run_stage
from align.serving.answers import AnswerStore, ask_stored
from align.serving.client import ChatRequest, Decoding, Failure, Reply, Sampling, content_key
from align.serving.server import HOW_KEYS, Server, ServeSettings, serve
from data_tools.material.seeded_order import seeded_place


class Drawing(Decoding):
    """How answers are drawn; the seed of each prompt comes from the recipe's seed and what is asked."""

    temperature: float = Field(default=0.7, gt=0, description="0.7 to 1.0; 0 would draw one answer n times")
    max_tokens: int = Field(default=128, ge=1, description="longest answer, in tokens")


class Part(Strict):
    """One of several equal parts of the train prompts, so that each round of training asks others."""

    number: int = Field(ge=1, description="which part, such as ${round.number}; beyond `of` they start over")
    of: int = Field(ge=1, description="how many parts")


class Recipe(StageRecipe):
    """The recipe of `align sample`."""

    how_keys: ClassVar[frozenset[str]] = HOW_KEYS | {"concurrency"}
    limit_keys: ClassVar[frozenset[str]] = frozenset({"max_failed"})

    name: str = "sample"
    model: ModelRef = Field(description="checkpoint folder to sample from, or a model's id on the hub")
    prompts: Path = Field(description="prompts.parquet of the instructions stage")
    part: Part | None = Field(
        default=None, description="ask a part of the train prompts, by their pictures; null: all of them"
    )
    image_root: Path | None = Field(
        default=None, description="folder that image paths are relative to; null: no prompt has images"
    )
    n: int = Field(default=8, ge=2, description="answers a prompt")
    sampling: Drawing = Field(default=Drawing(), description="how answers are drawn")
    serve: ServeSettings = ServeSettings()
    concurrency: int = Field(default=32, ge=1, description="prompts asked at the same time")
    max_failed: float = Field(default=0.02, ge=0, le=1, description="share of failed requests to accept")


@dataclass(frozen=True)
class Asked:
    """A prompt with its request and content key."""

    row: PromptRow
    key: str
    request: ChatRequest


def run(recipe: Recipe) -> RunFolder:
    """Sample; the output is byte-equal for the same recipe and inputs, also after a kill and resume.

    Raises:
        AlignError: no prompts, a missing image, a server that dies, or more failed
            requests than `max_failed`.
    """

    def work(folder: RunFolder) -> Done:
        prompts = in_part(read_prompts(recipe.prompts), recipe.part)
        say(f"  {len(prompts)} prompts, {recipe.n} answers each")
        with (
            serve(recipe.model, recipe.serve, folder.logs) as server,
            AnswerStore(folder.scratch / "answers.jsonl") as store,
        ):
            asked = [build_request(recipe, server, row) for row in prompts]
            requests = {item.key: item.request for item in asked}
            replies = ask_stored(server, store, requests, "sampling", recipe.concurrency)
        check_failures(replies, recipe.max_failed)
        candidates = [candidate for item in asked for candidate in distinct(item.row, replies[item.key])]
        candidates.sort(key=lambda candidate: candidate.id)
        if not candidates:
            raise AlignError("no answers", where=str(recipe.prompts))
        write_rows(folder.work / "candidates.jsonl", candidates)
        metrics = _metrics(replies, candidates)
        say(
            f"  {metrics['candidates']} distinct answers of {metrics['answers']}, "
            f"{metrics['truncated']} truncated, {metrics['mean_tokens']:.1f} tokens on average"
        )
        if metrics.get("thoughts"):
            say(f"  {metrics['thoughts']} had thoughts, kept apart; {metrics['unclosed']} of them do not end")
        return Done(metrics, "align judge RECIPE", seeds={"sampling": recipe.seed})

    return run_stage(recipe, {"model": recipe.model, "prompts": recipe.prompts}, work)


def read_prompts(path: Path) -> list[PromptRow]:
    """Prompts by id.

    Raises:
        AlignError: none, or an id that occurs twice.
    """
    tally = Tally("prompts")
    rows = sorted(read_rows(PromptRow, path, tally.quarantine), key=lambda row: row.id)
    tally.keep(len(rows))
    if tally.dropped:
        tally.show()
    for first, second in pairwise(rows):
        if first.id == second.id:
            raise AlignError(f"duplicate prompt id {first.id!r}", where=str(path))
    if not rows:
        raise AlignError("no prompts", where=str(path), fix="run the instructions stage again")
    return rows


def in_part(prompts: Sequence[PromptRow], part: Part | None) -> list[PromptRow]:
    """The prompts of a part, and all that are not for training: those measure the judge in every round.

    Prompts on one picture are in one part; which one does not depend on what other prompts there are.

    Raises:
        AlignError: no train prompt is in it.
    """
    if part is None:
        return list(prompts)
    wanted = (part.number - 1) % part.of
    found = [
        row
        for row in prompts
        if row.meta.get("split") != "train"
        or int(seeded_place(0, row.images[0] if row.images else row.id)[:12], 16) % part.of == wanted
    ]
    if not any(row.meta.get("split") == "train" for row in found):
        raise AlignError(f"no train prompt in part {part.number} of {part.of}", fix="take fewer parts")
    return found


def build_request(recipe: Recipe, server: Server, row: PromptRow) -> Asked:
    """The request of one prompt: its seed is drawn from what is asked, not from its place in a list."""
    images = [image_file(recipe.image_root, image) for image in row.images]
    shas = [image_sha256(image) for image in images]
    # 2^20 apart, so that seed + i of one request is never seed + j of another.
    seed = int(digest_json([recipe.seed, said(row.prompt), shas])[:8], 16) * 2**20
    sampling = Sampling(**recipe.sampling.model_dump(), n=recipe.n, seed=seed)
    request = ChatRequest(row.prompt, images, sampling)
    return Asked(row, content_key(server.digest, request, shas), request)


def distinct(row: PromptRow, reply: Reply | Failure) -> list[Candidate]:
    """A prompt's answers without repeats, numbered by their first draw; none for a failed request.

    Where the same text once ended by itself and once was cut at the limit, it counts as ended. Thoughts that
    differ make no other answer: the first ones stay with it.
    """
    found: dict[tuple[str, bool], Candidate] = {}
    for number, choice in enumerate(reply.choices if isinstance(reply, Reply) else []):
        text = choice.text.strip()
        earlier = found.get(said := (text, choice.unclosed))
        if earlier is None:
            found[said] = Candidate(
                id=f"{row.id}#{number}",
                prompt_id=row.id,
                images=row.images,
                prompt=row.prompt,
                text=text,
                finish_reason=choice.finish_reason,
                num_tokens=choice.num_tokens,
                reasoning=choice.reasoning,
                unclosed=choice.unclosed,
                meta={**row.meta, "count": 1},
            )
            continue
        earlier.meta["count"] += 1
        if earlier.finish_reason != "stop" and choice.finish_reason == "stop":
            earlier.finish_reason, earlier.num_tokens = choice.finish_reason, choice.num_tokens
            earlier.reasoning = choice.reasoning
    return list(found.values())


def check_failures(replies: dict[str, Reply | Failure], max_failed: float) -> int:
    """How many requests failed.

    Raises:
        AlignError: more than the share `max_failed`.
    """
    failures = [reply.reason for reply in replies.values() if isinstance(reply, Failure)]
    if len(failures) > max_failed * len(replies):
        raise AlignError(
            f"{len(failures)} of {len(replies)} requests failed, such as: {failures[0]}",
            fix="mend the cause and run again (answers are kept), or raise max_failed",
        )
    if failures:
        say(f"  {len(failures)} of {len(replies)} requests failed, such as: {failures[0]}")
    return len(failures)


def _metrics(replies: dict[str, Reply | Failure], candidates: Sequence[Candidate]) -> dict[str, float]:
    choices = [choice for reply in replies.values() if isinstance(reply, Reply) for choice in reply.choices]
    thoughts = [bool(choice.reasoning) or choice.unclosed for choice in choices]
    unclosed = sum(choice.unclosed for choice in choices)
    return {
        "prompts": len(replies),
        "failed": sum(isinstance(reply, Failure) for reply in replies.values()),
        "answers": len(choices),
        "candidates": len(candidates),
        "empty": sum(not choice.text.strip() for choice in choices),
        "truncated": sum(choice.finish_reason == "length" for choice in choices),
        "mean_tokens": round(sum(choice.num_tokens for choice in choices) / max(len(choices), 1), 2),
        **({"thoughts": sum(thoughts), "unclosed": unclosed} if any(thoughts) else {}),
    }
