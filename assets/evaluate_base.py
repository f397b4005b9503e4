"""What the base can do on held-out scenes, through its saved files alone.

    python -m assets.evaluate_base assets/base --split dev --num_images 300

Existence: Yes against No in the chat form, balanced, negatives of the same context apart.
Captions: greedy answers to the evaluated prompt against the objects that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from align.objects import find_objects
from data_tools.scenes.categories import CATEGORIES
from data_tools.scenes.language import DESCRIBE_PROMPT, absent_typical
from data_tools.scenes.questions import exists_question
from data_tools.scenes.render import Scene, make_scene, scene_rng


def prompt_text(processor: LlavaProcessor, question: str) -> str:
    """One user turn with the image, up to where the answer starts."""
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": parts}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def encode(processor: LlavaProcessor, scenes: list[Scene], questions: list[str]) -> dict:
    """Left-padded model inputs of one question a scene."""
    processor_call: Any = processor  # its keyword arguments are not in the stubs
    return processor_call(
        images=[Image.fromarray(scene.pixels) for scene in scenes],
        text=[prompt_text(processor, question) for question in questions],
        padding=True,
        return_tensors="pt",
    )


@torch.no_grad()
def answers_yes(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    names: list[str],
    suffix: str = "",
    batch_size: int = 50,
) -> np.ndarray:
    """bool [N]: whether the first answer token is rather Yes than No."""
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    found = []
    for first in range(0, len(scenes), batch_size):
        part = slice(first, first + batch_size)
        questions = [exists_question(name) + suffix for name in names[part]]
        logits = model(**encode(processor, scenes[part], questions), logits_to_keep=1).logits[:, -1]
        found.append((logits[:, yes] > logits[:, no]).numpy())
    return np.concatenate(found)


def existence(model: LlavaForConditionalGeneration, processor: LlavaProcessor, scenes: list[Scene],
              suffix: str = "") -> dict[str, float]:  # fmt: skip
    """One present, one same-context absent and one random absent object a scene."""
    present, near, far = [], [], []
    for index, scene in enumerate(scenes):
        rng = scene_rng(0, "evaluate_base", index)
        shown = sorted({item.category for item in scene.objects})
        absent = [c.name for c in CATEGORIES if c.name not in shown]
        typical = absent_typical(scene.context, scene.objects)
        present.append(shown[int(rng.integers(len(shown)))])
        near.append(typical[int(rng.integers(len(typical)))])
        far.append(absent[int(rng.integers(len(absent)))])
    hit = answers_yes(model, processor, scenes, present, suffix).mean()
    near_right = 1 - answers_yes(model, processor, scenes, near, suffix).mean()
    far_right = 1 - answers_yes(model, processor, scenes, far, suffix).mean()
    return {
        "present_right": float(hit),
        "same_context_absent_right": float(near_right),
        "random_absent_right": float(far_right),
        "accuracy_same_context": float((hit + near_right) / 2),
        "accuracy_random": float((hit + far_right) / 2),
    }


@torch.no_grad()
def describe(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    temperature: float = 0.0,
    batch_size: int = 50,
) -> list[str]:
    """Answers to the evaluated prompt; greedy at temperature 0."""
    texts = []
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
    for first in range(0, len(scenes), batch_size):
        part = scenes[first : first + batch_size]
        inputs = encode(processor, part, [DESCRIBE_PROMPT] * len(part))
        generator: Any = model
        output = generator.generate(**inputs, max_new_tokens=64, **sampling)
        texts += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def caption_scores(scenes: list[Scene], texts: list[str]) -> dict[str, float]:
    """CHAIRs, CHAIRi, recall of categories, and mean length in words."""
    invented_captions = invented = mentioned = recalled = shown_total = 0
    for scene, text in zip(scenes, texts, strict=True):
        shown = {item.category for item in scene.objects}
        said = [mention.category for mention in find_objects(text, "strict")]
        wrong = [name for name in said if name not in shown]
        invented_captions += bool(wrong)
        invented, mentioned = invented + len(wrong), mentioned + len(said)
        recalled, shown_total = recalled + len(shown & set(said)), shown_total + len(shown)
    return {
        "chair_s": invented_captions / len(texts),
        "chair_i": invented / max(mentioned, 1),
        "recall": recalled / shown_total,
        "words": float(np.mean([len(text.split()) for text in texts])),
    }


def main() -> None:
    """Print one JSON object with all numbers, and a few captions to read."""
    parser = argparse.ArgumentParser(description="Measure the base on held-out scenes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--num_images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    processor = LlavaProcessor.from_pretrained(args.checkpoint)
    model = LlavaForConditionalGeneration.from_pretrained(args.checkpoint, dtype=torch.float32).eval()
    scenes = [make_scene(args.seed, args.split, i) for i in range(args.num_images)]
    start = time.time()
    report: dict[str, object] = {"split": args.split, "num_images": len(scenes)}
    report["existence"] = existence(model, processor, scenes)
    suffix = "\nAnswer the question using a single word or phrase."
    report["existence_short"] = existence(model, processor, scenes, suffix)
    greedy = describe(model, processor, scenes)
    report["greedy"] = caption_scores(scenes, greedy)
    for temperature in (0.7, 1.0):
        texts = describe(model, processor, scenes, temperature)
        report[f"sampled_t{temperature}"] = caption_scores(scenes, texts)
    report["seconds"] = round(time.time() - start)
    for scene, text in list(zip(scenes, greedy, strict=True))[: args.show]:
        print(f"{text}   [there: {', '.join(item.category for item in scene.objects)}]")
    print(json.dumps(report, indent=1, default=float))


if __name__ == "__main__":
    main()
