"""What is robust: pairs and DPO settings compared by their path over a run, on dev pictures alone.

    python -m benchmarks.preference_variants runs/quickstart --only strength,gain --seeds 0,1,2

Needs the quickstart's run up to `judge`. Each variant makes its own pairs from the same judged answers and
trains on them; its dev check writes how every measure moves. Prints one Markdown table and writes it, with
every check, to RUN_DIR/variants/. What is done is not done again. Test pictures are not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.config.recipe import StageRecipe, validate
from align.errors import AlignError
from align.pipeline import load_pipeline
from align.pipeline.stages import load_stage
from benchmarks.dev_table import SHOWN, cells, markdown

PIPELINE = "recipes/quickstart/pipeline.yaml"
_SFT_TERM = ("dpo.trainer.loss_type=[sigmoid,sft]", "dpo.trainer.loss_weights=[1.0,0.2]")
_SIGMOID = ("dpo.trainer.loss_type=[sigmoid]", "dpo.trainer.loss_weights=[1.0]")
_RATE = "dpo.trainer.learning_rate"
_NO_REPETITION = "pairs.altered={}"
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "recipe": (),
    # how hard the same pairs are pressed, without pairs that differ in a repetition alone
    "strength/sigmoid_6e-5": (_NO_REPETITION, *_SIGMOID, f"{_RATE}=6e-5"),
    "strength/sigmoid_2.4e-4": (_NO_REPETITION, *_SIGMOID, f"{_RATE}=2.4e-4"),
    "strength/sft_term_6e-5": (_NO_REPETITION, *_SFT_TERM, f"{_RATE}=6e-5"),
    "strength/sft_term_2.4e-4": (_NO_REPETITION, *_SFT_TERM, f"{_RATE}=2.4e-4"),
    "strength/beta_0.3": (_NO_REPETITION, "dpo.trainer.beta=0.3"),
    # what chosen must confirm more than rejected for each fault that it has fewer
    "gain/0": (_NO_REPETITION, "pairs.min_confirmed_gain=0"),
    "gain/1": (_NO_REPETITION, "pairs.min_confirmed_gain=1.0"),
    "gain/any": (_NO_REPETITION, "pairs.min_confirmed_gain=null"),
    # pairs that differ in a repetition alone
    "repetition/quarter_gain_1": ("pairs.min_confirmed_gain=1.0",),
    "repetition/half": ("pairs.altered={repetition: 0.5}",),
    # how much the likelihood of chosen weighs
    "sft_weight/0.3": ("dpo.trainer.loss_weights=[1.0,0.3]",),
    "sft_weight/0.2": ("dpo.trainer.loss_weights=[1.0,0.2]",),
    "sft_weight/1": ("dpo.trainer.loss_weights=[1.0,1.0]",),
    "sft_weight/1_gain_1": ("dpo.trainer.loss_weights=[1.0,1.0]", "pairs.min_confirmed_gain=1.0"),
    "sft_weight/1_swap": (
        "dpo.trainer.loss_weights=[1.0,1.0]",
        "pairs.altered={repetition: 0.25, swap: 0.5}",
    ),
    "sft_weight/1_gain_1_lr_5e-4": (
        "dpo.trainer.loss_weights=[1.0,1.0]",
        "pairs.min_confirmed_gain=1.0",
        f"{_RATE}=5e-4",
    ),
    "sft_weight/1_gain_1_four": (
        "dpo.trainer.loss_weights=[1.0,1.0]",
        "pairs.min_confirmed_gain=1.0",
        "pairs.max_pairs_per_prompt=4",
    ),
    "sft_weight/0.5_gain_1_two_epochs": (
        "dpo.trainer.loss_weights=[1.0,0.5]",
        "pairs.min_confirmed_gain=1.0",
        "dpo.trainer.num_train_epochs=2",
    ),
    # a chosen answer in which the judge denies nothing
    "clean/0.2": ("pairs.max_chosen_faults=0", "dpo.trainer.loss_weights=[1.0,0.2]"),
    "clean/1": ("pairs.max_chosen_faults=0", "dpo.trainer.loss_weights=[1.0,1.0]"),
    "clean/1_four": (
        "pairs.max_chosen_faults=0",
        "pairs.max_pairs_per_prompt=4",
        "dpo.trainer.loss_weights=[1.0,1.0]",
    ),
    "clean/1_four_gain_1": (
        "pairs.max_chosen_faults=0",
        "pairs.max_pairs_per_prompt=4",
        "pairs.min_confirmed_gain=1.0",
        "dpo.trainer.loss_weights=[1.0,1.0]",
    ),
    "clean/1_four_two_epochs": (
        "pairs.max_chosen_faults=0",
        "pairs.max_pairs_per_prompt=4",
        "dpo.trainer.loss_weights=[1.0,1.0]",
        "dpo.trainer.num_train_epochs=2",
    ),
    "clean/0.5_four": (
        "pairs.max_chosen_faults=0",
        "pairs.max_pairs_per_prompt=4",
        "dpo.trainer.loss_weights=[1.0,0.5]",
    ),
    "clean/one_0.5": ("pairs.max_chosen_faults=1", "dpo.trainer.loss_weights=[1.0,0.5]"),
    # looking: the picture counts by a term of its own (mDPO), or the tower and connector are trained too
    "look/conditional": (
        "dpo.trainer.loss_weights=[1.0,0.5]",
        "dpo.objective.conditional=[{image: cropped, variant: released}]",
    ),
    "look/connector": (
        "dpo.trainer.loss_weights=[1.0,0.5]",
        "dpo.lora.components=[language,connector]",
    ),
    "look/vision": (
        "dpo.trainer.loss_weights=[1.0,0.5]",
        "dpo.lora.components=[language,connector,vision]",
    ),
    # pairs that differ in one phrase, beside those
    "altered/swap": ("pairs.altered={repetition: 0.25, swap: 0.25}",),
    "altered/swap_all": ("pairs.altered={repetition: 0.25, swap: 1.0}",),
    "altered/omission": ("pairs.altered={repetition: 0.25, omission: 0.25}",),
    "altered/both": ("pairs.altered={repetition: 0.25, swap: 0.5, omission: 0.25}",),
    # other pairs
    "pairs/unbalanced": (
        "pairs.mention_tolerance=null",
        "pairs.repetition_tolerance=null",
        "pairs.number_word_tolerance=null",
    ),
    "pairs/best_worst": ("pairs.strategy=best_worst", "pairs.max_pairs_per_prompt=1"),
    "pairs/minimal_edit": ("pairs.strategy=minimal_edit",),
}
"""Name -> overrides of the pipeline's recipe."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument(
        "--only", default="recipe,strength,gain,repetition,pairs", help="beginnings of variants' names"
    )
    parser.add_argument("--seeds", default="0", help="of DPO's order of pairs and of LoRA's start")
    args = parser.parse_args(argv)
    names = [name for name in VARIANTS if name.startswith(tuple(args.only.split(",")))]
    rows: list[dict[str, Any]] = []
    table = ""
    for name in names:
        for seed in map(int, args.seeds.split(",")):
            try:
                rows.append(run_variant(args.run_dir, name, seed))
            except AlignError as error:
                rows.append({"variant": name, "seed": seed, "error": str(error).splitlines()[0]})
            table = show(rows)
            (args.run_dir / "variants" / "table.md").write_text(table)
    print(table)


def run_variant(run_dir: Path, name: str, seed: int) -> dict[str, Any]:
    """One variant of one seed: its pairs, its training, and the log of its dev check."""
    steps = {step.recipe.name: step for step in load_pipeline(PIPELINE, [f"run_dir={run_dir}"])}
    out = run_dir / "variants" / name.replace("/", "_")
    overrides = VARIANTS[name]
    pairs = run_stage(steps["pairs"].recipe, "pairs", overrides, {"run_dir": str(out)})
    data = {"run_dir": str(out), "name": f"dpo_seed{seed}", "seed": seed}
    data["data"] = {"path": str(pairs / "pairs.parquet")}
    dpo = run_stage(steps["dpo"].recipe, "dpo", overrides, data)
    log = [json.loads(line) for line in (dpo / "dev_log.jsonl").read_text().splitlines()]
    manifest = json.loads((dpo / "manifest.json").read_text())
    count = json.loads((pairs / "manifest.json").read_text())["metrics"]
    return {
        "variant": name,
        "seed": seed,
        "pairs": count,
        "log": log,
        "kept": manifest["metrics"].get("kept"),
    }


def run_stage(recipe: StageRecipe, stage: str, overrides: Sequence[str], changes: Mapping[str, Any]) -> Path:
    """Run a stage with its recipe changed; the folder that it wrote."""
    values = OmegaConf.create(recipe.model_dump(mode="json", by_alias=True, exclude_unset=True))
    values = OmegaConf.merge(values, changes)
    for text in overrides:
        key, _, value = text.partition("=")
        if key.startswith(f"{stage}."):
            OmegaConf.update(
                values, key.removeprefix(f"{stage}."), OmegaConf.select(OmegaConf.create(f"x: {value}"), "x")
            )
    plain: Any = OmegaConf.to_container(values)
    return load_stage(stage).run(validate(type(recipe), plain, where=stage)).final


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: of each run its start, what is kept, and its last check."""
    told: list[list[str]] = []
    for row in rows:
        name = [row["variant"], str(row["seed"])]
        if "error" in row:
            told.append([*name, row["error"]])
            continue
        name.append(str(row["pairs"].get("train", row["pairs"].get("pairs", ""))))
        kept = (row["kept"] or {}).get("step")
        for line in row["log"]:
            last = line["step"] == row["log"][-1]["step"]
            mark = "kept" if kept and line["step"] == kept else "last" if last else ""
            if mark or not line["step"]:
                step = f"{line['step']} {mark}".strip()
                told.append([*name, step, *cells(line["all"], delta=bool(line["step"]))])
    return markdown(["variant", "seed", "pairs", "check", *SHOWN.values()], told)


if __name__ == "__main__":
    main()
