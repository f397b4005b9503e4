"""The chat template that vLLM is given where the checkpoint's own would not do.

For most families vLLM replaces the template's image token by as many as the image takes. For PaliGemma it
puts them in front itself (vllm/model_executor/models/paligemma.py, 0.32), and an image token of the template
would stay behind them, as a word that the model never saw in training.
"""

from __future__ import annotations

import json
from pathlib import Path

from align.config.model_ref import ModelRef
from align.models.families import FAMILIES
from align.models.image_words import image_words
from align.models.thinking import served_kwargs


def served_template(model: ModelRef) -> str | None:
    """The template without image tokens; None where vLLM takes the checkpoint's own."""
    folder = Path(model.path)
    config, own = folder / "config.json", folder / "chat_template.jinja"
    if not config.is_file() or not own.is_file():
        return None
    family = FAMILIES.get(str(json.loads(config.read_text(encoding="utf-8")).get("model_type")))
    if family is None or family.serving.template != "without image tokens":
        return None
    template = own.read_text(encoding="utf-8")
    for word in image_words(model):
        template = template.replace(word, "")
    return template


def template_args(model: ModelRef, beside: Path) -> list[str]:
    """The server's argument for `served_template`, which is written beside its log, none without one; and for
    whether the model thinks, for whoever asks it without saying so."""
    kwargs = served_kwargs(model)
    default = ["--default-chat-template-kwargs", json.dumps(kwargs)] if kwargs else []
    template = served_template(model)
    if template is None:
        return default
    path = beside.with_suffix(".jinja")
    path.write_text(template, encoding="utf-8")
    return ["--chat-template", str(path), *default]
