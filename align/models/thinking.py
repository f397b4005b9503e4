"""Whether a model thinks before it answers: one setting, `model.thinking`, told to its template everywhere.

Templates that can think read a variable: `enable_thinking` (Qwen3 to 3.8, GLM-4.5V to 4.6V, Gemma 4,
MiniCPM-V, ERNIE-4.5-VL) or `thinking` (Kimi, DeepSeek, Granite). What a template is not told it decides by
itself, and most think; here it is off unless the recipe says otherwise, in training, sampling, judging,
evaluation and serving alike. A template without such a variable is given nothing, and renders as ever.

The setting is a state of the processor (`set_thinking`), as the pixel budget is: whoever renders asks
`template_kwargs`. A server is told with each request (`chat_template_kwargs`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from align.config.model_ref import ModelRef
from align.errors import AlignError
from align.rows.thoughts import SWITCHES, closes_thoughts, is_mark, spells_thoughts, split_thoughts

_STATE = "align_thinking"
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_PROMPT = "add_generation_prompt"


@lru_cache(maxsize=64)
def switch_of(template: str) -> str | None:
    """The variable by which a template is told to think; None where it reads none, or is no template.

    It reads the variable, and a prompt with it on is another than with it off: some have a variable of
    their own by that name.
    """
    from jinja2 import Environment, TemplateSyntaxError, meta

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(_GENERATION.sub("", template))
    except TemplateSyntaxError:
        return None  # whoever renders it says so
    read = meta.find_undeclared_variables(tree)
    return next((name for name in SWITCHES if name in read and _tells_apart(template, name)), None)


def _tells_apart(template: str, name: str) -> bool:
    """Whether prompts with the variable on and off differ; True where the template refuses the question."""
    from transformers.utils import chat_template_utils

    render_template: Any = chat_template_utils.render_jinja_template

    for content in ("a", [{"type": "text", "text": "a"}]):
        turns: Any = [[{"role": "user", "content": content}]]
        try:
            on, off = (
                render_template(turns, chat_template=template, add_generation_prompt=True, **{name: value})
                for value in (True, False)
            )
        except Exception:  # jinja templates raise whatever they like
            continue
        return on != off
    return True


def always_thinks(template: str) -> bool:
    """Whether the template opens a thought in every prompt, and has no switch."""
    start = template.rfind(_PROMPT)
    return switch_of(template) is None and start >= 0 and spells_thoughts(template[start:])


def knows_thoughts(template: str) -> bool:
    """Whether a template has to do with thoughts: it has a switch, or spells their marks."""
    return switch_of(template) is not None or spells_thoughts(template)


def kwargs_of(template: str, thinking: bool | None) -> dict[str, bool]:
    """What the template is told besides messages; nothing where it has no switch.

    Args:
        thinking: the recipe's word; None is off.

    Raises:
        AlignError: the template cannot do what the recipe says.
    """
    if (name := switch_of(template)) is not None:
        return {name: bool(thinking)}
    if thinking is False and always_thinks(template):
        raise AlignError(
            "the chat template opens a thought in every prompt, and has no variable that turns it off",
            where="model.thinking",
            fix="leave the key out, or give the model a chat template that does not",
        )
    if thinking and not always_thinks(template):
        raise AlignError(
            f"the chat template has no variable that turns thinking on ({', '.join(SWITCHES)})",
            where="model.thinking",
            fix="leave the key out: such a model thinks by itself or not at all",
        )
    return {}


def set_thinking(processor: Any, thinking: bool | None) -> None:
    """Write the recipe's setting into a loaded processor (or the tokenizer of a text-only model).

    Raises:
        AlignError: as `kwargs_of`.
    """
    kwargs_of(template_of(processor), thinking)
    setattr(processor, _STATE, thinking)


def template_kwargs(processor: Any) -> dict[str, bool]:
    """What the processor's template is told when it renders; empty for one without a switch."""
    return kwargs_of(template_of(processor), getattr(processor, _STATE, None))


def is_thinking(processor: Any) -> bool:
    """Whether an answer may have thoughts: as the setting says where there is a switch, else wherever the
    template knows them."""
    told = template_kwargs(processor)
    return any(told.values()) if told else knows_thoughts(template_of(processor))


def template_of(processor: Any) -> str:
    """The processor's template as text; of several named ones the default. Empty without one."""
    return _as_text(getattr(processor, "chat_template", None))


def served_kwargs(model: ModelRef) -> dict[str, bool]:
    """What a server of this checkpoint is told with each request.

    Of a hub model whose files are not here nothing is known: without the key nothing is sent, with it both
    names are, of which vLLM keeps those that the template reads.

    Raises:
        AlignError: as `kwargs_of`.
    """
    template = _template_file(model)
    if template:
        return kwargs_of(template, model.thinking)
    return {} if model.thinking is None else dict.fromkeys(SWITCHES, model.thinking)


def served_thinking(model: ModelRef) -> bool:
    """Whether the checkpoint's template opens a thought in every prompt."""
    return always_thinks(_template_file(model))


def special_marks(model: ModelRef) -> bool:
    """Whether the tokenizer counts marks of thoughts as special tokens, so that a server must be asked to
    leave them in its text (Gemma 4, Mistral, gpt-oss, Cohere)."""
    added = list(_read_json(model, "tokenizer.json").get("added_tokens", ()))
    added += list(_read_json(model, "tokenizer_config.json").get("added_tokens_decoder", {}).values())
    return any(item.get("special") and is_mark(str(item.get("content"))) for item in added)


def spoken_answer(tokenizer: Any, ids: Sequence[int]) -> str:
    """What generated ids say behind their thoughts; empty where those do not end.

    Marks that are special tokens are looked for among the ids, since decoding leaves them out.
    """
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    # gpt-oss' token says by the word behind it which of both it is, and that word is kept
    special = {number: token for number, token in added.items() if is_mark(token) and token != "<|channel|>"}
    marks = [(place, special[number]) for place, number in enumerate(ids) if number in special]
    if marks:
        place, mark = marks[-1]
        ids = ids[place + 1 :] if closes_thoughts(mark) else []
    said = split_thoughts(tokenizer.decode(ids, skip_special_tokens=True))
    return said.answer.strip()


def _template_file(model: ModelRef) -> str:
    """The checkpoint's template as its files have it, in the order in which transformers looks."""
    path = _file(model, "chat_template.jinja")
    if path is not None:
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if found := _as_text(_read_json(model, name).get("chat_template")):
            return found
    return ""


def _as_text(template: Any) -> str:
    if isinstance(template, list):  # as tokenizer_config.json has several
        template = {item["name"]: item["template"] for item in template}
    if isinstance(template, Mapping):
        template = template.get("default")
    return template if isinstance(template, str) else ""


def _read_json(model: ModelRef, name: str) -> dict[str, Any]:
    path = _file(model, name)
    return json.loads(path.read_text(encoding="utf-8")) if path is not None else {}


def _file(model: ModelRef, name: str) -> Path | None:
    """A file of the checkpoint: in its folder, or in the hub's cache."""
    path = Path(model.path) / name
    if not model.is_local:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model.path, name, revision=model.revision)
        path = Path(found) if isinstance(found, str) else path
    return path if path.is_file() else None
