"""vLLM inside this process, for machines where a server may not listen: the same answers, without HTTP.

Answers come in batches, each whole before the next is asked, so a kill costs at most one batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.config.model_ref import ModelRef
from align.digest import digest_json
from align.errors import AlignError
from align.inputs.chat import openai_messages
from align.models.image_words import image_words
from align.models.thinking import served_kwargs, special_marks
from align.progress import say
from align.serving.client import ChatRequest, Choice, Failure, Reply, spells_image
from align.serving.server import ServeSettings, engine_args
from align.serving.template import served_template
from align.serving.vllm_install import require_vllm, vllm_environment

BATCHES_OF_SEQUENCES = 8
"""A batch holds this many times the requests that are decoded together; the rest keeps the engine fed."""

OnReply = Callable[[str, Reply | Failure], None]


class OfflineEngine:
    """A running engine.

    Attributes:
        digest: sha256 of the weights' folder; part of every content key.
        image_words: texts that the model would take for an image; requests that spell one are not asked.
    """

    def __init__(self, llm: Any, model: ModelRef, digest: str, batch: int) -> None:
        self._kwargs: dict[str, Any] = dict(served_kwargs(model))
        self.digest = digest_json([digest, self._kwargs]) if self._kwargs else digest
        self._keeps_marks = special_marks(model)
        self.image_words = image_words(model)
        self._template = served_template(model)
        self._llm = llm
        self._batch = batch

    def ask(
        self, requests: Sequence[tuple[str, ChatRequest]], on_reply: OnReply, batch: int | None = None
    ) -> None:
        """Ask every request, in order of the list; `on_reply` gets each key and reply.

        Args:
            batch: requests that the engine gets at once; by default a few times what it decodes together.

        A request that the engine refuses is a `Failure`. Log-probabilities are not returned.
        """
        size = batch or self._batch
        asked: list[tuple[str, ChatRequest]] = []
        for key, request in requests:
            if (spelled := spells_image(request, self.image_words)) is not None:
                on_reply(key, spelled)
            else:
                asked.append((key, request))
        for start in range(0, len(asked), size):
            self._ask_batch(asked[start : start + size], on_reply)

    def _ask_batch(self, batch: Sequence[tuple[str, ChatRequest]], on_reply: OnReply) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            answers = self._chat([request for _, request in batch])
        except (ValueError, VLLMClientError) as error:  # one refused prompt refuses its batch: halve it
            if len(batch) == 1:
                on_reply(batch[0][0], Failure(reason=f"refused: {str(error)[:300]}"))
                return
            middle = len(batch) // 2
            self._ask_batch(batch[:middle], on_reply)
            self._ask_batch(batch[middle:], on_reply)
            return
        for (key, _), reply in zip(batch, answers, strict=True):
            on_reply(key, reply)

    def _chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        from vllm import SamplingParams

        conversations = [
            openai_messages(
                request.messages,
                [image if isinstance(image, bytes) else image.read_bytes() for image in request.images],
            )
            for request in requests
        ]
        skips: dict[str, Any] = {"skip_special_tokens": False} if self._keeps_marks else {}
        sampling = [SamplingParams(**request.sampling.model_dump(), **skips) for request in requests]
        outputs = self._llm.chat(
            conversations,
            sampling,
            chat_template=self._template,
            chat_template_kwargs=self._kwargs or None,
            use_tqdm=False,
        )
        return [Reply(choices=[_choice(part) for part in output.outputs]) for output in outputs]


@contextmanager
def offline_engine(checkpoint: ModelRef | str | Path, settings: ServeSettings) -> Iterator[OfflineEngine]:
    """An engine on `checkpoint` for the length of the block, with the settings of the server's engine.

    Raises:
        AlignError: no such checkpoint, vLLM not installed, or an engine that does not start.
    """
    require_vllm()
    model = ModelRef.of(checkpoint)
    digest = model.answering_digest()
    os.environ.update(vllm_environment(model))
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    say(f"  starting vLLM's engine on {model.name} in this process")
    llm = _start(model, settings)
    try:
        yield OfflineEngine(llm, model, digest, BATCHES_OF_SEQUENCES * settings.max_num_seqs)
    finally:
        llm.llm_engine.engine_core.shutdown()


def _start(model: ModelRef, settings: ServeSettings) -> Any:
    from vllm import LLM, EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(conflict_handler="resolve"))
    try:
        words: Any = parser.parse_args(engine_args(model, settings))
    except SystemExit as error:
        raise AlignError(
            "vLLM's engine knows not all of these arguments (it says which above)",
            where="serve.extra_args",
            fix="leave out what only a server understands",
        ) from error
    try:
        return LLM.from_engine_args(EngineArgs.from_cli_args(words))
    except (RuntimeError, ValueError, OSError) as error:
        raise AlignError(
            f"vLLM's engine did not start: {error}",
            where=model.name,
            fix="`align doctor` checks the installation; engine: server keeps vLLM's log",
        ) from error


def _choice(part: Any) -> Choice:
    return Choice(
        text=part.text,
        finish_reason=str(part.finish_reason),
        num_tokens=len(part.token_ids),
        token_ids=list(part.token_ids),
    )
