"""Predicted memory of training each model of recipes/models.yaml: writes docs/memory.md.

    python -m benchmarks.memory_table                 # all; half a minute a row on one core
    python -m benchmarks.memory_table qwen2_5_vl_7b   # these rows anew, the others as they stand

No weights are needed: recipes/models.yaml records sizes that are published.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from align.config.model_table import KnownModel, read_table
from align.planning.command import GPUS, RESERVE
from align.planning.fitting import LORA, QLORA, ROW, Shapes, predict_step, recorded_config
from align.planning.memory_plan import Stage
from align.planning.planned_batch import image_processor_of

_REPO = Path(__file__).resolve().parent.parent
_TRAININGS: dict[str, tuple[Stage, Any]] = {
    "sft": ("sft", LORA),
    "sft_qlora": ("sft", QLORA),
    "dpo": ("dpo", LORA),
    "dpo_qlora": ("dpo", QLORA),
}
((_HEIGHT, _WIDTH),) = ROW.images
(_ANSWER,) = ROW.answers
_HEAD = f"""# Memory of the recipes

Predicted by `align plan`, not measured: no GPU was at hand. Peak bytes of tensors in a training step with
the settings of recipes/base and recipes/models.yaml (batch, LoRA ranks, checkpointing, bf16), each row a
picture of {_WIDTH} x {_HEIGHT} pixels with {ROW.prompt} tokens of question and {_ANSWER} of (each)
answer. On a CPU the prediction agrees with the same count over real steps (docs/results.md). The device's
context, its allocator's reserve and what kernels take inside are not in it: *fits* leaves {RESERVE} GiB for
them, an assumption. Larger pictures, longer answers and more rows cost more:
`align plan RECIPE --image 1280x960 --answer_tokens 512 trainer.per_device_train_batch_size=4`.

*At the start*, where it is more than the peak: both paths are compared on the first rows, 16-bit weights in a
copy in fp32 that has the embeddings, the tower and the first layers; what it takes at least. Where that does
not fit, the copy goes to the CPU.

The sizes are those of papers and code named below; `align plan RECIPE --config DIR` reads them from the
`config.json` of a checkpoint, and `align init MODEL --gpu 24` writes recipes that fit.
Made by `python -m benchmarks.memory_table`.

| model | training | weights | optimizer | activations, gradients | peak | at the start | fits GB |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Predict one recipe after the other; the page is written after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="of recipes/models.yaml; default: all")
    given = parser.parse_args()
    page = _Page.read(_REPO / "docs" / "memory.md")
    for name, training in product(given.models or read_table(), _TRAININGS):
        found = _plan(read_table()[name], training)
        print(name, training, f"{found['peak'] / 2**30:.1f} GiB", flush=True)
        page.rows[name, training] = _line(found)
        page.sources[name] = _source(found)
        page.write()


@dataclass
class _Page:
    """The page's lines by model and training, and by model, as they stand there."""

    path: Path
    rows: dict[tuple[str, str], str]
    sources: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> _Page:
        text = path.read_text() if path.is_file() else ""
        rows = {
            (found[1], found[2]): found[0] for found in re.finditer(r"^\| (\w+) \| (\w+) \|.*\n", text, re.M)
        }
        sources = {found[1]: found[0] for found in re.finditer(r"^- (\w+): .*\n", text, re.M)}
        return cls(path, rows, sources)

    def write(self) -> None:
        names = product(read_table(), _TRAININGS)
        rows = "".join(self.rows[name] for name in names if name in self.rows)
        sources = "".join(self.sources[model] for model in read_table() if model in self.sources)
        self.path.write_text(_HEAD + rows + "\nSizes are from:\n\n" + sources)


def _plan(model: KnownModel, training: str) -> dict[str, Any]:
    stage, variant = _TRAININGS[training]
    config = recorded_config(model.config or {})
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        shapes = Shapes(Path(folder), image_processor_of(config), model.source)
        row = replace(ROW, answers=ROW.answers * (1 if stage == "sft" else 2))
        plan = predict_step(stage, model, variant.changes, shapes, row)
    fits = [size for size in GPUS if plan.fits(size, RESERVE)]
    about = {"model": model.name, "training": training, "source": model.source}
    return {**plan.to_json(), **about, "fits": fits}


def _line(one: dict[str, Any]) -> str:
    parts = {name: size / 2**30 for name, size in one["parts"].items()}
    fits = ", ".join(map(str, one["fits"])) or "none"
    step = parts["activations"] + parts["gradients"]
    start = f"{one['check'] / 2**30:.1f}" if one["check"] > one["peak"] else ""
    peak = f"{one['peak'] / 2**30:.1f} GiB | {start}"
    numbers = f"{parts['weights']:.1f} | {parts['optimizer']:.2f} | {step:.1f} | {peak}"
    return f"| {one['model']} | {one['training']} | {numbers} | {fits} |\n"


def _source(one: dict[str, Any]) -> str:
    billions = (one["total"] - one["trainable"]) / 1e9
    return f"- {one['model']}: {billions:.2f} billion parameters; {one['source']}\n"


if __name__ == "__main__":
    main()
