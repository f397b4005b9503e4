"""Recipes for a model and a GPU: `align init MODEL` writes a folder that is ready to run.

MODEL is a name of recipes/models.yaml, an id on the hub, or a checkpoint's folder, of any family that align
knows. Written are sft.yaml, dpo.yaml, eval.yaml and pipeline.yaml (and a chat template where the model needs
one): whole files with comments, no reference to others, yours to change. How they train is what `align plan`
predicts to fit: LoRA; LoRA with one row a step; QLoRA with a paged optimizer of 8 bits; with gradient
checkpointing unless even the longest row fits without. Each file's head says why. A text-only model gets
sft.yaml and dpo.yaml.

  align init qwen3_vl_8b                              # made for a GPU of 24 GB, in recipes/qwen3_vl_8b
  align init Qwen/Qwen3-VL-8B-Instruct --gpu 80 --out my/recipes
  align init runs/mine/sft_merged/checkpoint --out my/round2
  align init qwen3_vl_8b --gpu 16 --force             # the same files anew

Models of the table need no network. Then:

  align run recipes/qwen3_vl_8b/pipeline.yaml --dry-run
  align sft recipes/qwen3_vl_8b/sft.yaml data.path=my/instructions.jsonl data.image_root=my/images
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.config.model_table import KnownModel, find_model
from align.errors import AlignError
from align.planning.command import RESERVE
from align.planning.recipe_text import TEMPLATE, dpo_text, eval_text, pipeline_text, sft_text
from align.progress import say

if TYPE_CHECKING:
    from align.planning.fitting import Fit

GPU = 24.0


def main(words: Sequence[str]) -> int:
    """The command; returns the exit code.

    Raises:
        AlignError: an unknown model or family, files that are there already, or nothing that fits.
    """
    given = _parse(words)
    model = find_model(given.model)
    folder = given.out or Path("recipes") / model.name
    start(model, folder, given.gpu, given.reserve, force=given.force)
    return 0


def start(model: KnownModel, folder: Path, gpu: float, reserve: float = RESERVE, force: bool = False) -> None:
    """Choose what fits a GPU of `gpu` GB, and write the folder.

    Raises:
        AlignError: as `main`; nothing is written then.
    """
    from align.planning.fitting import choose, shapes_of

    if not force:
        _refuse_to_overwrite(folder)
    with tempfile.TemporaryDirectory() as scratch:
        shapes = shapes_of(model, Path(scratch))
        say(f"{model.title}: sizes from {shapes.origin}")
        sft = choose("sft", model, shapes, gpu, reserve, say)
        dpo = choose("dpo", model, shapes, gpu, reserve, say)
    sees = shapes.processor is not None
    write_folder(model, folder, gpu, {"sft": sft, "dpo": dpo}, sees)
    say(f"sft: {sft.variant.words} is chosen\ndpo: {dpo.variant.words} is chosen")
    after = f"align run {folder}/pipeline.yaml --dry-run" if sees else f"align plan {folder}/sft.yaml"
    say(f"{folder} is written; next: {after}")


def write_folder(
    model: KnownModel, folder: Path, gpu: float, fits: Mapping[str, Fit], sees: bool = True
) -> None:
    """Write the files, and the chat template that the table gives the model; others in the folder stay.

    Args:
        fits: of sft and dpo, what was found to fit.
        sees: whether the model reads images; if not, no eval.yaml and pipeline.yaml, whose tasks show some.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model.chat_template is not None:
        shutil.copyfile(model.chat_template, folder / TEMPLATE)
        model = model.model_copy(update={"chat_template": folder / TEMPLATE})
    blind = {} if sees else {"data.image_root": None}
    texts = {}
    for stage, text in (("sft", sft_text), ("dpo", dpo_text)):
        changes = {**fits[stage].variant.changes, **blind}
        texts[stage] = text(model, folder, changes, _reasons(fits[stage], gpu, sees))
    if sees:
        texts["eval"] = eval_text(model, folder)
        texts["pipeline"] = pipeline_text(model, folder, gpu)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _reasons(fit: Fit, gpu: float, sees: bool) -> list[str]:
    """Comment lines on the choice, and what it was predicted for."""
    row = "a 640x480 picture, 64 tokens" if sees else "64 tokens"
    return [
        f"Made for a GPU of {gpu:g} GB. {fit.variant.words} is chosen, by what `align plan` predicts:",
        *(f"  {words} needs {peak / 2**30:.2f} of {gpu:g} GiB" for words, peak in fit.tried),
        f"A row is taken as {row} of question and 256 of (each) answer; without gradient",
        "checkpointing as max_length. Longer rows: align plan with --answer_tokens.",
    ]


def _refuse_to_overwrite(folder: Path) -> None:
    names = ("sft.yaml", "dpo.yaml", "eval.yaml", "pipeline.yaml", TEMPLATE)
    found = [name for name in names if (folder / name).exists()]
    if found:
        raise AlignError(
            f"{', '.join(found)} would be overwritten",
            where=str(folder),
            fix="another folder: --out DIR, or --force to write them anew",
        )


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in GB")
    return size


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align init", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a name of recipes/models.yaml, a hub id, or a folder")
    parser.add_argument(
        "--gpu", type=_size, default=GPU, metavar="GB", help=f"memory of the GPU (default {GPU:g})"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: recipes/NAME")
    parser.add_argument("--force", action="store_true", help="write over files of these names")
    parser.add_argument(
        "--reserve",
        type=float,
        default=RESERVE,
        metavar="GIB",
        help=f"left to the device (default {RESERVE})",
    )
    return parser.parse_args(words)
