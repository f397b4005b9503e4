"""LoRA for image classification: a vision transformer alone, its classifier trained whole.

Reads a folder with a folder of images for each class (or .jsonl lines of image and label) and a checkpoint
such as google/vit-base-patch16-224-in21k, whose head is replaced by one for these classes. Writes `adapter/`
(LoRA and classifier, PEFT's files), `checkpoint/` (the same merged, a plain checkpoint that was reloaded and
gives the same logits), `held_out.jsonl` (what was predicted for the images not trained on),
`train_log.jsonl` and `quarantine.jsonl`. A killed run resumes and ends with the same adapter.

  align classify recipes/vit_base/classify.yaml data.path=my/images
  accelerate launch -m align classify recipes/vit_base/classify.yaml      # several GPUs

Next: transformers' pipeline("image-classification", model=".../checkpoint").
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.classify.images import ImagesSection, LabelledImage, LabelledImages, read_images
from align.config.library_sections import PEFT_STAGE_OWNS, STAGE_OWNS, section
from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe
from align.errors import AlignError
from align.inputs.images import open_image, resolve_image
from align.models.loading import check_folder, first_line
from align.progress import quiet_libraries, say
from align.run.folder import RunFolder
from align.run.processes import wait_for_main
from align.run.stage import Done, open_quarantine, run_stage
from align.training.loop import (
    build,
    manifest_metrics,
    train,
    trainer_arguments,
)
from align.tuning.placement import placement
from align.tuning.save_trained import save_adapter

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint"
HELD_OUT = "held_out.jsonl"
_TARGETS = r".*\.(?:q_proj|v_proj|query|value|qkv)"
_HEAD = ["classifier"]
_TOLERANCE = 1e-4  # of logits, merged against adapter-on, both in float32
_PROBES = 8


class LoraSection(section("LoraConfig", PEFT_STAGE_OWNS)):
    """PEFT's `LoraConfig` by its own names; by default queries and values, and the classifier whole."""


class TrainerSection(section("TrainingArguments", STAGE_OWNS)):
    """transformers' `TrainingArguments` by its own names."""


class Recipe(StageRecipe):
    """The recipe of `align classify`."""

    name: str = "classify"
    model: ModelRef = Field(description="the vision transformer; loaded in float32")
    data: ImagesSection = Field(description="labelled images")
    lora: LoraSection = Field(default=LoraSection(), description="PEFT's LoraConfig by its own names")
    trainer: TrainerSection = Field(
        default=TrainerSection(), description="transformers' TrainingArguments by its own names"
    )


def run(recipe: Recipe) -> RunFolder:
    """Train, measure, merge.

    Raises:
        AlignError: too few images, a checkpoint that cannot classify, a loss that is not a number, a merged
            checkpoint with other logits.
    """
    inputs = {"model": recipe.model, **recipe.data.inputs()}
    return run_stage(recipe, inputs, lambda folder: _work(recipe, folder))


def _work(recipe: Recipe, folder: RunFolder) -> Done:
    quiet_libraries()
    wait_for_main()
    images = read_images(recipe.data)
    with open_quarantine(folder, "images") as bad:
        for name, why in images.bad.items():
            bad.add(name, "image", why)
    counts = f"{len(images.train)} images to train on, {len(images.held_out)} held out"
    say(f"{len(images.labels)} classes, {counts}, {len(images.bad)} quarantined")
    processor = _load_processor(recipe.model)
    trainer = _trainer(recipe, folder, processor, images)
    where = placement(trainer.model)
    where.show()
    results = train(trainer, folder, "classification")
    save_adapter(trainer, recipe.model, folder)
    metrics = manifest_metrics(results, where, len(images.train), {"image": len(images.bad)})
    if folder.is_main:
        model = trainer.accelerator.unwrap_model(trainer.model).eval()
        metrics |= _measure(model, _Pictures(images.held_out, images.labels, recipe.data, processor), folder)
        probes = _Pictures(images.held_out[:_PROBES], images.labels, recipe.data, processor)
        metrics["merged_logit_difference"] = _merge(model, processor, probes, folder)
    return Done(metrics, f"use {folder.final / CHECKPOINT}")


class _Pictures:
    """A map-style dataset that decodes an image when it is read."""

    def __init__(
        self, items: Sequence[LabelledImage], labels: Sequence[str], section: ImagesSection, processor: Any
    ) -> None:
        self.items = items
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._section, self._processor = section, processor

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """`pixel_values` [3, height, width] and the class's number."""
        item = self.items[place]
        image = open_image(resolve_image(self._section.root, item.image), self._section.max_pixels)
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self._numbers[item.label]}


def _trainer(recipe: Recipe, folder: RunFolder, processor: Any, images: LabelledImages) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments, set_seed

    arguments = build(TrainingArguments, **trainer_arguments(recipe.trainer, recipe.seed, folder))
    set_seed(recipe.seed)  # the new classifier is drawn when the model is loaded
    given = {"target_modules": _TARGETS, "modules_to_save": _HEAD, **recipe.lora.given()}
    model = _load_model(recipe.model, images.labels, given["modules_to_save"] or [])
    try:
        wrapped = get_peft_model(model, LoraConfig(**given))
    except (TypeError, ValueError) as error:
        linear = [name for name, module in model.named_modules() if hasattr(module, "in_features")]
        raise AlignError(
            f"PEFT refuses the `lora` section: {first_line(error)}",
            fix=f"modules are named like {', '.join(linear[:1] + linear[-2:])}",
        ) from error
    dataset: Any = _Pictures(images.train, images.labels, recipe.data, processor)
    return build(Trainer, model=wrapped, args=arguments, train_dataset=dataset)


def _load_processor(section: ModelRef) -> Any:
    from transformers import AutoImageProcessor

    check_folder(section)
    try:
        return AutoImageProcessor.from_pretrained(
            section.path, revision=section.revision, local_files_only=section.is_local
        )
    except (OSError, ValueError, KeyError) as error:
        fix = "copy preprocessor_config.json from the base model"
        what = f"cannot load an image processor: {first_line(error)}"
        raise AlignError(what, where=section.path, fix=fix) from error


def _load_model(section: ModelRef, labels: Sequence[str], whole: Sequence[str]) -> Any:
    """The frozen model with a head for these classes, in float32.

    Raises:
        AlignError: no image classifier, or weights that would start at random and are not trained.
    """
    import torch
    from transformers import AutoModelForImageClassification

    check_folder(section)
    try:
        loaded: Any = AutoModelForImageClassification.from_pretrained(
            section.path,
            revision=section.revision,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=section.is_local,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        fix = "`align classify` takes image classifiers (ViT, DeiT, Swin, DINOv2) with safetensors"
        what = f"cannot load an image classifier: {first_line(error)}"
        raise AlignError(what, where=section.path, fix=fix) from error
    model, info = loaded
    drawn = sorted(
        {str(key) for key in [*info["missing_keys"], *(item[0] for item in info["mismatched_keys"])]}
    )
    untrained = [name for name in drawn if not set(name.split(".")) & set(whole)]
    if untrained:
        what = f"weights that the checkpoint lacks would stay random: {', '.join(untrained[:3])}"
        raise AlignError(what, where=section.path, fix="name them in lora.modules_to_save")
    return model.requires_grad_(False)


def _logits(model: Any, pictures: _Pictures) -> list[torch.Tensor]:
    """float32 [classes] of each image, on the CPU."""
    import torch

    found = []
    with torch.no_grad():
        for place in range(len(pictures)):
            pixels = pictures[place]["pixel_values"][None].to(model.device)
            found.append(model(pixel_values=pixels).logits[0].float().cpu())
    return found


def _measure(model: Any, pictures: _Pictures, folder: RunFolder) -> dict[str, float]:
    """Accuracy on the held-out images, beside that of always naming their commonest class."""
    labels = model.config.id2label
    right = 0
    with (folder.work / HELD_OUT).open("w", encoding="utf-8") as out:
        for item, logits in zip(pictures.items, _logits(model, pictures), strict=True):
            predicted = labels[int(logits.argmax())]
            right += predicted == item.label
            out.write(json.dumps({**item.model_dump(), "predicted": predicted}) + "\n")
    commonest = Counter(item.label for item in pictures.items).most_common(1)[0][1]
    accuracy, chance = right / len(pictures), commonest / len(pictures)
    say(f"  right on {accuracy:.1%} of {len(pictures)} held-out images (commonest class: {chance:.1%})")
    return {"held_out_accuracy": accuracy, "held_out_commonest": chance, "held_out": len(pictures)}


def _merge(model: Any, processor: Any, probes: _Pictures, folder: RunFolder) -> float:
    """Write `checkpoint/`; returns the largest logit difference between it, reloaded, and adapter-on.

    Raises:
        AlignError: more than rounding.
    """
    from transformers import AutoModelForImageClassification

    path: Path = folder.work / CHECKPOINT
    wanted = _logits(model, probes)
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(path), safe_serialization=True)
    processor.save_pretrained(str(path))
    reloaded = AutoModelForImageClassification.from_pretrained(str(path), local_files_only=True).eval()
    found = _logits(reloaded, probes)
    difference = max(float((a - b).abs().max()) for a, b in zip(wanted, found, strict=True))
    if difference > _TOLERANCE:
        raise AlignError(
            f"the merged checkpoint's logits differ by {difference:.1e} (limit {_TOLERANCE:.0e})",
            where=str(path),
            fix="this kind of adapter does not merge exactly; use the adapter",
        )
    say(f"  merged and reloaded: logits within {difference:.1e}")
    return difference


if __name__ == "__main__":
    raise SystemExit("run it as: python -m align classify RECIPE")
