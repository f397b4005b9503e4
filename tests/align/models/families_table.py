"""The table of docs/families.md: written by the tests from what they saw, and held against it."""

from __future__ import annotations

import os
import re

from tests.repository import REPO

DOC = REPO / "docs" / "families.md"
COLUMNS = ("SFT", "DPO", "QLoRA", "merge, reload", "preflight", "vLLM")
UPDATE = "ALIGN_UPDATE_FAMILIES"
NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_5": "Qwen3.5, 3.6, 3.8",
    "qwen3_vl_moe": "Qwen3-VL MoE",
    "qwen3_5_moe": "Qwen3.5 MoE",
    "llava": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision",
    "idefics2": "Idefics2",
    "idefics3": "Idefics3",
    "smolvlm": "SmolVLM",
    "internvl": "InternVL",
    "internvl3_5": "InternVL3.5",
    "gemma3": "Gemma 3",
    "gemma4": "Gemma 4",
    "gemma4_unified": "Gemma 4 12B",
    "paligemma": "PaliGemma 2",
    "blip-2": "BLIP-2",
    "glm4v": "GLM-4.1V",
    "glm46v": "GLM-4.6V-Flash",
    "mistral3": "Mistral Small 3",
    "ministral3": "Ministral 3",
    "lfm2_vl": "LFM2-VL, LFM2.5-VL",
    "exaone4_5": "EXAONE 4.5",
    "cohere2_vision": "Command A Vision",
    "minicpmv4_6": "MiniCPM-V 4.6",
    "minicpmv4_7": "MiniCPM-V 4.7",
    "muse_glimmer": "Muse Glimmer",
    "llama": "Llama",
    "qwen2": "Qwen2",
    "gpt2": "GPT-2",
}
"""model_type -> the first column, in the table's order."""
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
_EMPTY = "not run"


def check(model_type: str, seen: dict[str, str]) -> None:
    """The family's row says what was just seen; with ALIGN_UPDATE_FAMILIES=1 it is made to.

    Args:
        seen: column -> cell; columns left out keep what they say.

    Raises:
        AssertionError: the document says something else.
    """
    before, rows, after = _read()
    family = NAMES[model_type]
    row = rows.setdefault(family, dict.fromkeys(COLUMNS, _EMPTY))
    if os.environ.get(UPDATE):
        row.update(seen)
        DOC.write_text(before + _BEGIN + _table(rows) + _END + after, encoding="utf-8")
    said = {column: row[column] for column in seen}
    assert said == seen, f"{DOC.name} says otherwise of {family}; {UPDATE}=1 writes what was seen"


def families() -> list[str]:
    """The first column."""
    return list(_read()[1])


def missing_footnotes() -> set[str]:
    """Marks that the table has and no footnote explains."""
    _, rows, after = _read()
    marks = {
        mark for row in rows.values() for cell in row.values() for mark in re.findall(r"\[\^[^]]+\]", cell)
    }
    return {mark for mark in marks if f"\n{mark}: " not in after}


def _read() -> tuple[str, dict[str, dict[str, str]], str]:
    """What stands before the table, its rows, and what stands after it."""
    before, rest = DOC.read_text(encoding="utf-8").split(_BEGIN)
    table, after = rest.split(_END)
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]
    return before, {line[0]: dict(zip(COLUMNS, line[1:], strict=True)) for line in lines}, after


def _table(rows: dict[str, dict[str, str]]) -> str:
    lines = [["family", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    order = [name for name in NAMES.values() if name in rows]
    lines += [[family, *(rows[family][column] for column in COLUMNS)] for family in order]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
