"""Predicted memory of the shipped recipes: writes docs/memory.md.

    python -m benchmarks.memory_table                 # all; half a minute a recipe on one core
    python -m benchmarks.memory_table qwen2_5_vl_7b   # these rows anew, the others as they stand

No weights are needed: `align plan` on configs whose numbers are published (`benchmarks.published_configs`).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from align.config.recipe import load_recipe
from align.planning.command import GPUS, RESERVE
from align.planning.planned_batch import RowShape, image_processor_of
from benchmarks.published_configs import CONFIGS

_REPO = Path(__file__).resolve().parent.parent
_STAGES = ("sft", "sft_qlora", "dpo", "dpo_qlora")
_HEIGHT, _WIDTH = 480, 640
_PROMPT, _ANSWER = 64, 256
_HEAD = f"""# Memory of the recipes

Predicted by `align plan`, not measured: no GPU was at hand. Peak bytes of tensors in a training step with
the recipe's own settings (batch, LoRA ranks, checkpointing, bf16), each row a picture of {_WIDTH} x {_HEIGHT}
pixels with {_PROMPT} tokens of question and {_ANSWER} of (each) answer. On a CPU the prediction agrees with
the same count over real steps (docs/results.md). The device's context, its allocator's reserve and what
kernels take inside are not in it: *fits* leaves {RESERVE} GiB for them, an assumption. Larger pictures,
longer answers and more rows cost more:
`align plan RECIPE --image 1280x960 --answer_tokens 512 trainer.per_device_train_batch_size=4`.

*At the start*, where it is more than the peak: both paths are compared on the first rows, 16-bit weights in a
copy in fp32 that has the embeddings, the tower and the first layers; what it takes at least. Where that does
not fit, the copy goes to the CPU.

The sizes are those of papers and code named below; `align plan RECIPE --config DIR` reads them from the
`config.json` of a checkpoint. Made by `python -m benchmarks.memory_table`.

| recipe | weights | optimizer | activations, gradients | peak | at the start | fits GB |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Predict one recipe after the other; the page is written after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="folders in recipes/; default: all known")
    given = parser.parse_args()
    page = _Page.read(_REPO / "docs" / "memory.md")
    for model, stage in product(given.models or CONFIGS, _STAGES):
        found = _plan(model, stage)
        print(model, stage, f"{found['peak'] / 2**30:.1f} GiB", flush=True)
        page.rows[f"{model}/{stage}.yaml"] = _line(found)
        page.sources[model] = _source(found)
        page.write()


@dataclass
class _Page:
    """The page's lines by recipe and by model, as they stand there."""

    path: Path
    rows: dict[str, str]
    sources: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> _Page:
        text = path.read_text() if path.is_file() else ""
        rows = {found[1]: found[0] for found in re.finditer(r"^\| (\w+/\w+\.yaml) \|.*\n", text, re.M)}
        sources = {found[1]: found[0] for found in re.finditer(r"^- (\w+): .*\n", text, re.M)}
        return cls(path, rows, sources)

    def write(self) -> None:
        names = [f"{model}/{stage}.yaml" for model, stage in product(CONFIGS, _STAGES)]
        rows = "".join(self.rows[name] for name in names if name in self.rows)
        sources = "".join(self.sources[model] for model in CONFIGS if model in self.sources)
        self.path.write_text(_HEAD + rows + "\nSizes are from:\n\n" + sources)


def _plan(model: str, stage: str) -> dict[str, Any]:
    from align import dpo, sft
    from align.planning.memory_plan import Request, predict

    kind = "sft" if stage.startswith("sft") else "dpo"
    path = _REPO / "recipes" / model / f"{stage}.yaml"
    recipe: Any = load_recipe({"sft": sft, "dpo": dpo}[kind].Recipe, path)
    with tempfile.TemporaryDirectory() as folder:
        config = CONFIGS[model][0]()
        config.save_pretrained(folder)
        section = recipe.model.model_copy(update={"path": folder, "chat_template": None})
        row = RowShape(_PROMPT, (_ANSWER,) * (1 if kind == "sft" else 2), ((_HEIGHT, _WIDTH),))
        request = Request(kind, section, recipe.lora, recipe.trainer.given(), row)
        plan = predict(request, image_processor_of(config))
    fits = [size for size in GPUS if plan.fits(size, RESERVE)]
    return {**plan.to_json(), "model": model, "stage": stage, "fits": fits}


def _line(one: dict[str, Any]) -> str:
    parts = {name: size / 2**30 for name, size in one["parts"].items()}
    fits = ", ".join(map(str, one["fits"])) or "none"
    step = parts["activations"] + parts["gradients"]
    start = f"{one['check'] / 2**30:.1f}" if one["check"] > one["peak"] else ""
    peak = f"{one['peak'] / 2**30:.1f} GiB | {start}"
    numbers = f"{parts['weights']:.1f} | {parts['optimizer']:.2f} | {step:.1f} | {peak}"
    return f"| {one['model']}/{one['stage']}.yaml | {numbers} | {fits} |\n"


def _source(one: dict[str, Any]) -> str:
    billions = (one["total"] - one["trainable"]) / 1e9
    return f"- {one['model']}: {billions:.2f} billion parameters; {CONFIGS[one['model']][1]}\n"


if __name__ == "__main__":
    main()
