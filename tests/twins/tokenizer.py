"""A tokenizer of a few hundred tokens, trained here: byte-level BPE with a family's special tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = (
    "Describe the image. What is this? Is there a cat in the picture? How many dogs do you see?\n"
    "A small red ball lies on the grass, and a brown dog runs after it. Two birds sit on a tree.\n"
    "Yes, there is a cat on the table. No, there is no dog. There are three. The kitchen has a sink.\n"
    "USER: ASSISTANT: User: Assistant: system user assistant model Question: Answer:\n"
)


def build_tokenizer(
    eos: str,
    pad: str,
    bos: str | None = None,
    named: dict[str, str] | None = None,
    others: Sequence[str] = (),
    lowest: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Train the tokenizer; like the hub's VLM tokenizers it tokenises any text.

    Args:
        named: attribute -> token, such as `image_token: <image>`; processors look these up.
        others: further special tokens of the family.
        lowest: those of all these that have the ids 0, 1 and so on; the rest follow as named here.
    """
    special = dict.fromkeys(t for t in (*lowest, bos, eos, pad, *(named or {}).values(), *others) if t)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384 + len(special),
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS] * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=named or {},
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def padded_vocab_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows of the embedding: the next multiple of 64, as checkpoints on the hub have it."""
    return -(-len(tokenizer) // 64) * 64
