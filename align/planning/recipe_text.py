"""Whole recipes for one model, as text: recipes/base with its values put in and every comment kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from align.config.model_table import TABLE, KnownModel

TEMPLATE = "chat_template.jinja"
_BASE = TABLE.parent / "base"
_PLAIN = re.compile(r"[A-Za-z_/$.][\w/${}.+-]*( [\w.()+-]+)*")
_YAML_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def sft_text(model: KnownModel, folder: Path, changes: Mapping[str, Any], why: Sequence[str]) -> str:
    """`sft.yaml`; `changes` are dotted keys of the variant that fits, `why` the lines that say so."""
    head = [
        f"{_method(changes)} SFT of {model.title} on your instruction rows.",
        f"  align plan {folder}/sft.yaml",
        f"  align sft {folder}/sft.yaml data.path=my/instructions.jsonl data.image_root=my/images",
        f"  accelerate launch --num_processes 4 -m align sft {folder}/sft.yaml   # several GPUs",
        *why,
    ]
    return _training_text("sft", model, changes, head)


def dpo_text(model: KnownModel, folder: Path, changes: Mapping[str, Any], why: Sequence[str]) -> str:
    """`dpo.yaml`, as `sft_text`."""
    head = [
        f"{_method(changes)} DPO of the merged SFT checkpoint of {model.title}.",
        "A fresh adapter; the reference is the same model with it off.",
        f"  align plan {folder}/dpo.yaml model.path={model.path}",
        f"  align dpo {folder}/dpo.yaml",
        f"  align dpo {folder}/dpo.yaml model.path={model.path}   # without an SFT before",
        *why,
    ]
    return _training_text("dpo", model, changes, head)


def eval_text(model: KnownModel, folder: Path) -> str:
    """`eval.yaml`: what each checkpoint is asked."""
    run = f"runs/{model.name}"
    head = [
        f"What each checkpoint of {model.title} is asked, behind vLLM's server. Run it once a checkpoint:",
        f"  align generate {folder}/eval.yaml name=generate_base",
        f"  align generate {folder}/eval.yaml model={run}/sft_merged/checkpoint name=generate_sft",
        f"  align generate {folder}/eval.yaml model={run}/dpo_merged/checkpoint name=generate_dpo",
        "then `align score` over the three folders. To fetch first:",
        "  data/coco: val2014 images and annotations_trainval2014 (cocodataset.org)",
        "  data/pope: output/coco of github.com/AoiDragon/POPE",
        "  data/vqav2: validation questions and annotations (visualqa.org)",
    ]
    values = {"run_dir": run, "model": model.path, "serve.max_model_len": model.max_model_len}
    return _with_head(head, with_values((_BASE / "eval.yaml").read_text(), values))


def pipeline_text(model: KnownModel, folder: Path, gigabytes: float) -> str:
    """`pipeline.yaml`: the road of recipes/pipeline.yaml over the other files of the folder."""
    text = (TABLE.parent / "pipeline.yaml").read_text()
    fetch = text[text.index("# To fetch first") : text.index("\nmodel:")]
    head = [
        f"The whole road for {model.title} on COCO, its training made for a GPU of {gigabytes:g} GB.",
        f"  align run {folder}/pipeline.yaml --dry-run",
        f"  align run {folder}/pipeline.yaml",
        *(line.removeprefix("# ") for line in fetch.splitlines()),
    ]
    values = {
        "model": None,
        "models": None,
        "run_dir": f"runs/{model.name}",
        "vars.model.name": model.name,
        "vars.model.title": model.title,
        "vars.model.path": model.path,
        "vars.model.max_model_len": model.max_model_len,
    }
    text = with_values(text, values).replace("recipe: base/", "recipe: ")
    return _with_head(head, text)


def _method(changes: Mapping[str, Any]) -> str:
    return "QLoRA" if changes.get("model.quantization") == "nf4" else "LoRA"


def _training_text(
    stage: Literal["sft", "dpo"], model: KnownModel, changes: Mapping[str, Any], head: Sequence[str]
) -> str:
    values = dict(flat({"run_dir": f"runs/{model.name}", **model.over_base(stage)}))
    text = (_BASE / f"{stage}.yaml").read_text()
    return _with_head(head, with_values(text, {**values, **changes}))


def _with_head(lines: Sequence[str], text: str) -> str:
    """`lines` as comments, instead of those at the text's start."""
    body = text.splitlines()
    while body and body[0].startswith("#"):
        body.pop(0)
    return "\n".join([*(f"# {line}" for line in lines), *body]) + "\n"


def flat(values: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings.

    >>> list(flat({"a": {"b": 1}, "c": 2}))
    [('a.b', 1), ('c', 2)]
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """YAML text with dotted keys set: in place where they are, else at their section's end; None takes out.

    Comments and order stay. For block mappings alone, which is what recipes/base is made of.

    >>> with_values("a:\\n  b: 1   # why\\nc: 2\\n", {"a.b": 3, "a.d": "x", "c": None})
    'a:\\n  b: 3   # why\\n  d: x\\n'
    """
    lines = text.splitlines()
    for key, value in values.items():
        _set(lines, key.split("."), value)
    return "\n".join(lines) + "\n"


def _set(lines: list[str], parts: Sequence[str], value: Any) -> None:
    start, end = 0, len(lines)
    for depth, part in enumerate(parts):
        indent = "  " * depth
        found = next((n for n in range(start, end) if lines[n].startswith(f"{indent}{part}:")), None)
        if found is None:
            if value is not None:
                place = _last_filled(lines, start, end)
                nested = [f"{'  ' * level}{name}:" for level, name in enumerate(parts)][depth:]
                nested[-1] += f" {_scalar(value)}"
                lines[place:place] = nested
            return
        start, end = found + 1, _end_of(lines, found, end, indent)
    if value is None:
        del lines[start - 1 : end]
    else:
        lines[start - 1] = _line(lines[start - 1], value)


def _end_of(lines: Sequence[str], first: int, end: int, indent: str) -> int:
    """Behind the section that starts in line `first`."""
    for number in range(first + 1, end):
        if lines[number].strip() and not lines[number].startswith(f"{indent} "):
            return number
    return end


def _last_filled(lines: Sequence[str], start: int, end: int) -> int:
    """Behind the last line that is not blank."""
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _line(line: str, value: Any) -> str:
    """The line with another value, its comment in the column where it was."""
    key, _, rest = line.partition(":")
    start = f"{key}: {_scalar(value)}"
    comment = re.search(r"\s#.*$", rest)
    if comment is None:
        return start
    column = len(key) + 1 + comment.start() + 1
    said = comment[0].strip()
    return f"{start.ljust(column - 1)} {said}"


def _scalar(value: Any) -> str:
    """As people write it: 2e-4, true, plain words, lists on one line.

    >>> [_scalar(one) for one in (0.0002, 0.5, True, 4096, "nf4", "a: b", ["mlp.gate", 2])]
    ['2e-4', '0.5', 'true', '4096', 'nf4', '"a: b"', '[mlp.gate, 2]']
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e4 or not math.isfinite(value):
            return f"{value:g}"
        digits, _, power = f"{value:.6e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    text = str(value)
    if isinstance(value, int) or (_PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS):
        return text
    return json.dumps(text)
