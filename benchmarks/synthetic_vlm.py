"""A LLaVA of chosen sizes with random weights, and preference pairs of chosen lengths, for timings.

P is the number of prompt tokens (a square image, the rest words), C about the number of completion
tokens, V the vocabulary. Weights and words are random: timings do not depend on what they say.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from PIL import Image

PATCH = 14
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}{% for p in m['content'] %}"
    "{{ '<image>' if p['type'] == 'image' else ' ' + p['text'] }}{% endfor %}"
    "{{ ' </s>' if m['role'] == 'assistant' }}{% endfor %}"
)


def image_side(prompt_tokens: int) -> int:
    """Patches on a side of the largest square image that leaves at least 12 words of the prompt."""
    return math.isqrt(prompt_tokens - 12)


def write_model(folder: Path, prompt_tokens: int, vocabulary: int) -> None:
    """Llama of 6 layers, d=256, and a CLIP tower of 6 layers, d=192, in float32, with their processor."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = SPECIAL + [f"w{number}" for number in range(vocabulary - len(SPECIAL))]
    model = WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    plain = Tokenizer(model)
    plain.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    side = image_side(prompt_tokens)
    pixels = side * PATCH
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=pixels,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, image_seq_length=side * side
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": pixels, "width": pixels}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": pixels}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def pairs(count: int, prompt_tokens: int, completion_tokens: int, vocabulary: int, seed: int = 0) -> Any:
    """A dataset of `count` pairs; completions vary by a fifth around their length, images are noise."""
    from datasets import Dataset

    generator = random.Random(seed)
    side = image_side(prompt_tokens)

    def words(number: int) -> str:
        return " ".join(f"w{generator.randrange(vocabulary - len(SPECIAL))}" for _ in range(number))

    def answer() -> list[dict[str, str]]:
        length = round(completion_tokens * generator.uniform(0.8, 1.2))
        return [{"role": "assistant", "content": words(length - 1)}]  # and the end of turn

    rows = [
        {
            "images": [Image.frombytes("RGB", (48, 48), generator.randbytes(48 * 48 * 3))],
            "prompt": [{"role": "user", "content": words(prompt_tokens - side * side)}],
            "chosen": answer(),
            "rejected": answer(),
        }
        for _ in range(count)
    ]
    return Dataset.from_list(rows)
