"""Whether a dev check measured what is served: its answers at the kept step against the merged checkpoint's.

    python -m benchmarks.dev_vs_served runs/quickstart/dpo runs/quickstart/dpo_merged/checkpoint

Every dev question is asked of the checkpoint behind vLLM, greedily, as the check asked the policy in the
training process. Printed: equal answers, and equal tokens at equal places of the longer answer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import dpo, sft
from align.config.recipe import load_recipe
from align.dev_check.asked import Asked, read_asked
from align.errors import AlignError
from align.inputs.chat import tokenizer_of
from align.models.loading import load_processor
from align.run.folder import RECIPE
from align.serving.client import ChatRequest, Failure, Reply, Sampling, ask
from align.serving.server import ServeSettings, serve


@dataclass(frozen=True)
class Agreement:
    """How far two lists of answers are the same.

    Attributes:
        tokens, equal_tokens: of the longer answer of each question, and those that stand in both there.
    """

    answers: int
    equal_answers: int
    tokens: int
    equal_tokens: int


def compare(trained: list[list[int]], served: list[list[int]]) -> Agreement:
    """Answers as token ids, question by question.

    >>> compare([[1, 2, 3], [4]], [[1, 2], [4]])
    Agreement(answers=2, equal_answers=1, tokens=4, equal_tokens=3)
    """
    pairs = list(zip(trained, served, strict=True))
    return Agreement(
        len(pairs),
        sum(one == two for one, two in pairs),
        sum(max(len(one), len(two)) for one, two in pairs),
        sum(a == b for one, two in pairs for a, b in zip(one, two, strict=False)),
    )


def main() -> None:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", type=Path, metavar="STAGE", help="folder of an SFT or DPO stage with `dev`")
    parser.add_argument("checkpoint", type=Path, help="what its adapter was merged into")
    parser.add_argument("--max-model-len", type=int, default=512, metavar="N")
    given = parser.parse_args()
    step = json.loads((given.stage / "manifest.json").read_text())["metrics"]["kept"]["step"]
    log = (given.stage / "logs" / "dev_answers" / f"step-{step}.jsonl").read_text().splitlines()
    logged = {line["id"]: line["answer"] for line in map(json.loads, log)}
    recipe = _recipe(given.stage / RECIPE)
    processor = load_processor(recipe.model)
    asked = read_asked(recipe.dev, recipe.data.image_root, processor)
    replies = _served(asked, recipe.data.image_root, given.checkpoint, given.max_model_len)
    tokenizer = tokenizer_of(processor)
    kinds = ["all", *dict.fromkeys(item.kind for item in asked)]
    for kind in kinds:
        own = [item for item in asked if kind in ("all", item.kind)]
        found = compare(
            *(
                [tokenizer.encode(texts[item.id].strip(), add_special_tokens=False) for item in own]
                for texts in (logged, replies)
            )
        )
        print(
            f"{kind}: step {step}, {found.equal_answers} of {found.answers} answers equal, "
            f"{found.equal_tokens / found.tokens:.2%} of {found.tokens} tokens"
        )


def _recipe(path: Path) -> Any:
    cls = dpo.Recipe if "stage: dpo" in path.read_text() else sft.Recipe
    recipe = load_recipe(cls, path, [])
    if recipe.dev is None:
        raise AlignError("the stage had no dev check", where=str(path), fix="train with a `dev` section")
    return recipe


def _served(asked: list[Asked], root: Path, checkpoint: Path, longest: int) -> dict[str, str]:
    """Question id -> the served checkpoint's greedy answer."""
    texts: dict[str, str] = {}

    def keep(key: str, reply: Reply | Failure) -> None:
        if isinstance(reply, Failure):
            raise AlignError(f"{key} got no answer: {reply.reason}")
        texts[key] = reply.choices[0].text

    requests = [
        (
            item.id,
            ChatRequest(
                item.messages,
                [root / name for name in item.images],
                Sampling(temperature=0.0, max_tokens=item.max_new_tokens),
            ),
        )
        for item in asked
    ]
    with tempfile.TemporaryDirectory() as logs:
        settings = ServeSettings(dtype="float32", max_model_len=longest)
        with serve(checkpoint, settings, Path(logs)) as server:
            ask(server, requests, keep)
    return texts


if __name__ == "__main__":
    main()
