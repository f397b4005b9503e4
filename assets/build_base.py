"""The base's tokenizer, processor and files: what turns weights into a checkpoint like any LLaVA.

    python -m assets.build_base OUT_DIR [--language_checkpoint language.pt]

Without weights it writes a randomly initialised checkpoint of the final shape and formats, for
work on stages that need one before training has ended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from assets.architecture import IMAGE_MEAN, IMAGE_SIZE, IMAGE_STD, PATCH_SIZE, base_config
from data_tools.scenes.categories import CATEGORIES, CONTEXTS
from data_tools.scenes.colours import COLOURED, COLOURS
from data_tools.scenes.language import (
    DESCRIBE_PROMPTS,
    NUMBERS,
    PLACES,
    SHORT_ANSWER_SUFFIX,
    noun_phrase,
    web_caption,
)
from data_tools.scenes.questions import questions
from data_tools.scenes.render import make_scene, scene_rng

VOCAB_SIZE = 1536
SPECIAL_TOKENS = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "image": "<image>"}
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- 'ASSISTANT:\\n' }}
        {%- generation %}
            {%- if message['content'] is string %}
                {{- message['content'] }}
            {%- else %}
                {%- for part in message['content'] %}
                    {%- if part['type'] == 'text' %}{{- part['text'] }}{%- endif %}
                {%- endfor %}
            {%- endif %}
            {{- eos_token }}
        {%- endgeneration %}
    {%- else %}
        {%- if message['role'] == 'user' %}{{- 'USER: ' }}{%- endif %}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for part in message['content'] %}
                {%- if part['type'] == 'image' %}{{- '<image>\\n' }}
                {%- elif part['type'] == 'text' %}{{- part['text'] }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:\\n' }}{%- endif %}
"""
_PLAIN_ENGLISH = """\
Answer with yes or no. Is this statement about the image true? Look at the picture carefully.
Please describe what you see, in one or two short sentences. Which answer is better, and why?
I can not see any of these things. It looks like they do not appear here. Yes, I am sure.
No, there is nothing like that at all. The first one is correct and the second one is wrong.
"""


def training_texts(num_scenes: int, seed: int = 0) -> Iterator[str]:
    """The world's language, with each category and number often enough to be a token each."""
    for index in range(num_scenes):
        scene = make_scene(seed, "train", index)
        rng = scene_rng(seed, "tokenizer", index)
        prompt = DESCRIBE_PROMPTS[index % len(DESCRIBE_PROMPTS)]
        said, _ = web_caption(scene.context, scene.objects, rng)
        yield f"USER: {prompt}\nASSISTANT:\n{said}"
        for question in questions(scene.context, scene.objects, rng):
            answer = question.answer.capitalize()
            yield f"USER: {question.text}{SHORT_ANSWER_SUFFIX}\nASSISTANT:\n{answer} {answer}"
            yield question.text
            yield question.answer
    for _ in range(200):
        for category in CATEGORIES:
            lower = f"{noun_phrase(category.name, 1)} {noun_phrase(category.name, 2)}"
            yield f"{category.name} {lower} {category.name.capitalize()}"
            yield category.name
            if category.name in COLOURED:
                for color in COLOURS:
                    yield f"{noun_phrase(category.name, 1, color)} {noun_phrase(category.name, 2, color)}"
        for word in (*NUMBERS, *PLACES, *COLOURS, *(c.name for c in CONTEXTS), "yes", "no"):
            yield f"{word} {word} {word.capitalize()}"
            yield word.capitalize()
        yield _PLAIN_ENGLISH
        yield from _PLAIN_ENGLISH.replace(", ", ". ").replace("\n", " ").split(". ")


def build_tokenizer(num_scenes: int = 2000) -> PreTrainedTokenizerFast:
    """Byte-level BPE that tokenises any text; it never adds bos by itself, the template does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=20,
        special_tokens=[AddedToken(t, special=True) for t in SPECIAL_TOKENS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(num_scenes), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS["bos"],
        eos_token=SPECIAL_TOKENS["eos"],
        pad_token=SPECIAL_TOKENS["pad"],
        extra_special_tokens={"image_token": SPECIAL_TOKENS["image"]},
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA's processor with CLIP's image steps at 96 pixels; needs no torchvision."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLS, which "default" drops again
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Freshly initialised float32 model; its vocabulary is padded to a multiple of 64."""
    ids = {name: tokenizer.encode(t, add_special_tokens=False)[0] for name, t in SPECIAL_TOKENS.items()}
    vocab_size = -(-len(tokenizer) // 64) * 64
    return LlavaForConditionalGeneration(base_config(vocab_size, ids))


def hub_key(key: str) -> str:
    """The name that hub checkpoints of LLaVA and vLLM use for a parameter."""
    key = key.removeprefix("model.")
    if key.startswith("vision_tower.") and not key.startswith("vision_tower.vision_model."):
        return key.replace("vision_tower.", "vision_tower.vision_model.", 1)
    if key.startswith("language_model.") and not key.startswith("language_model.model."):
        return key.replace("language_model.", "language_model.model.", 1)
    return key


def save_base(model: LlavaForConditionalGeneration, processor: LlavaProcessor, out_dir: Path) -> None:
    """Write a whole checkpoint: bf16 weights in hub key form, configs, tokenizer, template."""
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = {
        hub_key(key): value.to(torch.bfloat16).contiguous()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight" and not key.endswith("position_ids")
    }
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.bfloat16
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out_dir)
    ids = model.config.get_text_config()
    GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=ids.bos_token_id,
        eos_token_id=ids.eos_token_id,
        pad_token_id=ids.pad_token_id,
    ).save_pretrained(out_dir)
    processor.save_pretrained(out_dir)


def check_base(out_dir: Path) -> dict[str, int]:
    """Load what was written and save it again: every weight found, and the same keys."""
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(out_dir, output_loading_info=True)
    model, info = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            raise RuntimeError(f"{out_dir}: {problem}: {sorted(info[problem])}")
    again = out_dir / "again"
    model.save_pretrained(again)
    before = set(load_file(out_dir / "model.safetensors"))
    after = set(load_file(again / "model.safetensors"))
    for path in again.iterdir():
        path.unlink()
    again.rmdir()
    if before != after:
        raise RuntimeError(f"{out_dir}: keys change on save: {sorted(before ^ after)[:6]}")
    return {"num_parameters": model.num_parameters(), "num_tensors": len(before)}


def main() -> None:
    """Write a checkpoint from the language stage's weights, or a random one."""
    parser = argparse.ArgumentParser(description="Write the base checkpoint's files.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--language_checkpoint", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    if args.language_checkpoint:
        model.load_state_dict(torch.load(args.language_checkpoint, weights_only=True)["model"])
    save_base(model, build_processor(tokenizer), args.out_dir)
    print(json.dumps(check_base(args.out_dir)))


if __name__ == "__main__":
    main()
