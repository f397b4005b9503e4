"""What the base can do on held-out scenes, through its saved files alone.

    python -m assets.evaluate_base assets/base --split dev --num_images 300

Existence: Yes against No in the chat form, balanced, negatives of the same context apart.
Questions: greedy answers to VQAv2's prompt, by kind; and right ones among those that take the bare form.
Captions: greedy and sampled answers to the evaluated prompt, CHAIR's numbers and `align.claims`' measures.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from align.claims import MEASURES, Box, PictureTruth, measure_answer
from align.claims.truth import places_of
from align.objects.mentions import find_objects
from data_tools.scenes.categories import CATEGORIES
from data_tools.scenes.language import DESCRIBE_PROMPT, SHORT_ANSWER_SUFFIX, absent_typical
from data_tools.scenes.questions import exists_question, questions
from data_tools.scenes.render import IMAGE_SIZE, Scene, make_scene, scene_rng

_ARTICLES = re.compile(r"\b(a|an|the)\b")


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
def answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    scenes: list[Scene],
    prompts: list[str],
    temperature: float = 0.0,
    max_new_tokens: int = 96,
    batch_size: int = 50,
) -> list[str]:
    """One answer a scene and prompt; greedy at temperature 0."""
    texts = []
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
    generator: Any = model
    for first in range(0, len(scenes), batch_size):
        part = slice(first, first + batch_size)
        inputs = encode(processor, scenes[part], prompts[part])
        output = generator.generate(**inputs, max_new_tokens=max_new_tokens, **sampling)
        texts += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def plain(text: str) -> str:
    """An answer without case, full stop and articles, as VQAv2 compares them."""
    return " ".join(_ARTICLES.sub(" ", text.lower().rstrip(".")).split())


def question_scores(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, scenes: list[Scene]
) -> dict[str, dict[str, float]]:
    """By kind of question: number, accuracy, and accuracy among the answers that are no phrase."""
    shown, asked = [], []
    for index, scene in enumerate(scenes):
        for question in questions(scene.context, scene.objects, scene_rng(0, "evaluate_base/vqa", index)):
            shown.append(scene)
            asked.append(question)
    prompts = [question.text + SHORT_ANSWER_SUFFIX for question in asked]
    texts = answer(model, processor, shown, prompts, max_new_tokens=10)
    totals, right, bare, bare_right = (Counter[str]() for _ in range(4))
    for question, text in zip(asked, texts, strict=True):
        totals[question.kind] += 1
        is_right, is_bare = plain(text) == question.answer, not text.endswith(".")
        right[question.kind] += is_right
        bare[question.kind] += is_bare
        bare_right[question.kind] += is_bare and is_right
    return {
        kind: {
            "questions": total,
            "accuracy": right[kind] / total,
            "accuracy_of_bare": bare_right[kind] / max(bare[kind], 1),
        }
        for kind, total in totals.items()
    }


def truth_of(scene: Scene) -> PictureTruth:
    """What `align.claims` compares captions with."""
    grouped = {
        name: [item for item in scene.objects if item.category == name]
        for name in dict.fromkeys(item.category for item in scene.objects)
    }
    boxes = {name: tuple(Box(*item.bbox) for item in items) for name, items in grouped.items()}
    return PictureTruth(
        counts={name: len(items) for name, items in grouped.items()},
        places={
            name: frozenset[str]().union(*(places_of(box, IMAGE_SIZE, IMAGE_SIZE) for box in found))
            for name, found in boxes.items()
        },
        colours={
            name: frozenset(str(item.color) for item in items)
            for name, items in grouped.items()
            if items[0].color is not None
        },
        boxes=boxes,
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
    )


def caption_scores(scenes: list[Scene], texts: list[str]) -> dict[str, float | None]:
    """CHAIRs, CHAIRi and recall of categories, and all measures of claims, in percent but `words`."""
    invented_captions = invented = mentioned = recalled = shown_total = 0
    for scene, text in zip(scenes, texts, strict=True):
        shown = {item.category for item in scene.objects}
        said = [mention.category for mention in find_objects(text, "strict")]
        wrong = [name for name in said if name not in shown]
        invented_captions += bool(wrong)
        invented, mentioned = invented + len(wrong), mentioned + len(said)
        recalled, shown_total = recalled + len(shown & set(said)), shown_total + len(shown)
    values = [measure_answer(text, truth_of(scene)) for scene, text in zip(scenes, texts, strict=True)]
    published = {
        "chair_s": 100 * invented_captions / len(texts),
        "chair_i": 100 * invented / max(mentioned, 1),
        "recall": 100 * recalled / shown_total,
    }
    claims = {f"{kind}_claims": sum(v[f"{kind}_claims"] for v in values) / len(values)
              for kind in ("number", "place", "colour", "relation")}  # fmt: skip
    return published | {measure.name: measure.of(values) for measure in MEASURES} | claims


def rounded(value: object) -> object:
    """The report with four digits behind the point."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


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
    report["existence_short"] = existence(model, processor, scenes, SHORT_ANSWER_SUFFIX)
    report["questions"] = question_scores(model, processor, scenes)
    prompts = [DESCRIBE_PROMPT] * len(scenes)
    greedy = answer(model, processor, scenes, prompts)
    report["greedy"] = caption_scores(scenes, greedy)
    for temperature in (0.7, 1.0):
        texts = answer(model, processor, scenes, prompts, temperature)
        report[f"sampled_t{temperature}"] = caption_scores(scenes, texts)
    report["seconds"] = round(time.time() - start)
    for scene, text in list(zip(scenes, greedy, strict=True))[: args.show]:
        there = ", ".join(f"{item.color or ''} {item.category}".strip() for item in scene.objects)
        print(f"{text}   [there: {there}]")
    print(json.dumps(rounded(report), indent=1, default=float))


if __name__ == "__main__":
    main()
