"""What a model thinks before it answers, told from the answer: how thoughts are spelled is known here alone.

    <think>I count one, two.</think>\n\n2         reasoning "I count one, two.", answer "2"
    I count one, two.</think>\n\n2                the same: the chat template opened the block in the prompt
    <think>I count one,                           no answer: cut off in its thoughts
    <think>\n\n</think>\n\n2                      no reasoning, answer "2"
    2                                             untouched

The spellings are those of the models' chat templates and of vLLM's reasoning parsers (vllm/reasoning and
vllm/parser, 0.32): tags (`<think>` of Qwen, GLM, MiniCPM, DeepSeek, ERNIE and Step, `<seed:think>`,
`<mm:think>`, `[THINK]` of Mistral, `◁think▷` of Kimi-VL), channels (Gemma 4, gpt-oss, Muse-Glimmer, Kimi K3,
Inkling), Cohere's and OpenThinker's tokens, and the words of Granite 3.2. What stands behind the last mark is
the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

SWITCHES: tuple[str, ...] = ("enable_thinking", "thinking")
"""Variables by which chat templates are told whether to think, the more common one first."""

# Tags that no answer spells: a mark wherever they stand.
_TAGS = r"(?:think|thinking|seed:think|mm:think|ifm\|think(?:_fast|_faster)?|think:[\w.-]+)"
# Words that a text may have as a tag of its own: a mark at the very beginning alone, and where it is closed.
_WORDS = r"(?:thoughts?|reasoning|analysis|reflection|scratchpad)"
_OPENED = re.compile(
    rf"(?<!`)(?:<{_TAGS}>|\[think\]|◁think▷"
    r"|<\|channel\|>(?:analysis|commentary)(?:<\|message\|>)?"  # gpt-oss
    r"|<\|channel>(?:thought\b\n?)?"  # Gemma 4
    r"|to=self<\|message\|>"  # Muse-Glimmer
    r"|<\|open\|>think<\|sep\|>"  # Kimi K3
    r"|<\|(?:start_thinking|begin_of_thought|content_thinking)\|>)(?!`)",
    re.I,
)
_CLOSED = re.compile(
    rf"(?<!`)(?:</{_TAGS}>|\[/think\]|◁/think▷"
    r"|<\|channel\|>final(?:<\|message\|>)?"
    r"|<channel\|>"
    r"|to=user<\|message\|>"
    r"|<\|close\|>think<\|sep\|>"
    r"|<\|(?:end_thinking|end_of_thought|content_text)\|>)(?!`)",
    re.I,
)
_WORD_OPENED = re.compile(rf"\s*<({_WORDS})>", re.I)
# gpt-oss where the special tokens were left out; Granite 3.2, which says it in words; LLaVA-CoT's four parts.
_SPOKEN = re.compile(
    r"\A\s*(?:analysis(?P<harmony>.*)assistantfinal"
    r"|Here(?:'s| is) my thought process:(?P<granite>.*?)Here(?:'s| is) my response:"
    r"|<SUMMARY>(?P<cot>.*<REASONING>.*)(?=<CONCLUSION>))",
    re.S,
)
# Gemma 4 with the special tokens left out writes the name of its channel, also before no thoughts at all.
_LABEL = re.compile(r"\Athought\n(?=\s*\S)")
# What opens and ends turns and channels, at either end of what is said.
_BEFORE = (
    r"\s|<\|start\|>assistant|<\|open\|>response"
    r"|<\|(?:message|sep|start_response|start_text|begin_of_solution)\|>"
)
_AFTER = (
    r"\s|<\|start\|>assistant|<\|close\|>(?:response|message)|</s>|<eos>|<turn\|>"
    r"|<\|(?:end|return|eot|eom|im_end|endoftext|user|sep|end_message|end_response|end_text|end_of_solution)\|>"
)
_AROUND = re.compile(rf"\A(?:{_BEFORE}|{_AFTER})+|(?:{_AFTER})+\Z", re.I)
_BOX = re.compile(r"\A\s*<\|begin_of_box\|>(.*)<\|end_of_box\|>\s*\Z", re.S)
_WRAPPED = re.compile(r"\A\s*<(answer|final|response|conclusion)>(.*?)(?:</\1>\s*)?\Z", re.I | re.S)
_FIRST = ("<think>", "<thinking>", "<seed:think>", "<mm:think>", "<reasoning>", "[think]", "◁think▷")
_FIRST_TOKENS = ("<|channel|>analysis", "<|channel>thought", "<|start_thinking|>", "<|begin_of_thought|>")


@dataclass(frozen=True)
class Said:
    """A reply in its two parts.

    Attributes:
        reasoning: the thoughts without their marks; empty where there are none, or an empty block.
        answer: what stands behind them; empty where nothing does. A text without marks is all answer, and
            untouched.
        is_marked: whether marks of thoughts stand in it.
        is_closed: False where the thoughts do not end: the reply was cut off, and there is no answer.
    """

    reasoning: str
    answer: str
    is_marked: bool = False
    is_closed: bool = True


def split_thoughts(text: str) -> Said:
    """A reply as thoughts and answer.

    A whole block, several, only the closing mark (the prompt had opened the block), or an unclosed one. Marks
    within backticks are talked about and count as text. An answer that is nothing but a tag (`<answer>`) or
    box (GLM's) is what stands in it.

    >>> split_thoughts("<think>One, two.</think>\\n\\n2")
    Said(reasoning='One, two.', answer='2', is_marked=True, is_closed=True)
    >>> split_thoughts("<think>One,").is_closed, split_thoughts("Two").is_marked
    (False, False)
    """
    if (spoken := _SPOKEN.match(text)) is not None:
        thought = next((part for part in spoken.groups() if part), "")
        return Said(re.sub(r"</?[A-Z]+>", "", thought).strip(), _bare(text[spoken.end() :]), is_marked=True)
    if (label := _LABEL.match(text)) is not None and not (_OPENED.search(text) or _CLOSED.search(text)):
        return Said("", text[label.end() :].strip(), is_marked=True)
    end = _last_end(text)
    behind = text[end:]
    if _OPENED.search(behind) is not None or (end == 0 and _WORD_OPENED.match(text) is not None):
        return Said(_thoughts(text), "", is_marked=True, is_closed=False)
    if end == 0:
        box = _BOX.match(text)
        return Said("", text if box is None else box[1].strip())
    return Said(_thoughts(text[:end]), _bare(behind), is_marked=True)


def opens_thoughts(text: str) -> bool:
    """Whether a text begins as thoughts do, or as the first piece of their mark (`<`, `<th`, `<|channel`)."""
    start = text.strip().lower()
    if not start:
        return False
    whole = _OPENED.match(start) or _WORD_OPENED.match(start)
    return whole is not None or any(mark.startswith(start) for mark in (*_FIRST, *_FIRST_TOKENS))


def spells_thoughts(text: str) -> bool:
    """Whether a text, such as a chat template, holds a mark of thoughts."""
    return _OPENED.search(text) is not None or _CLOSED.search(text) is not None


def is_mark(token: str) -> bool:
    """Whether a token is a mark of thoughts, or the piece of one that is a token by itself."""
    return token in ("<|channel|>", "<|channel>") or any(
        mark.fullmatch(token) is not None for mark in (_OPENED, _CLOSED)
    )


def closes_thoughts(token: str) -> bool:
    """Whether a token is a mark that ends thoughts."""
    return _CLOSED.fullmatch(token) is not None


class Spoken(Protocol):
    """A row that holds what a model said."""

    text: Any
    reasoning: str
    unclosed: bool
    finish_reason: str
    num_tokens: int


def set_apart(row: Spoken) -> None:
    """Take the thoughts out of a row's text into its `reasoning`; a row without any stays as it is.

    A block that does not end is a truncation, whatever ended it: the row is `unclosed`, its `finish_reason`
    becomes `length`, and the text is empty. `num_tokens`, which counted both, becomes the answer's share of
    the characters.
    """
    if not row.text:
        return
    said = split_thoughts(row.text)
    if not said.is_marked:
        row.text = said.answer
        return
    if said.reasoning:
        row.num_tokens = share_of_tokens(row.num_tokens, said)
    row.text = said.answer
    row.reasoning = "\n".join(filter(None, (row.reasoning, said.reasoning)))
    if not said.is_closed:
        row.unclosed, row.finish_reason = True, "length"


def share_of_tokens(num_tokens: int, said: Said) -> int:
    """The answer's share of a reply's tokens, by characters; at least one where there is an answer."""
    whole = len(said.answer) + len(said.reasoning)
    share = round(num_tokens * len(said.answer) / whole) if whole else 0
    return max(share, min(num_tokens, bool(said.answer)))


def _last_end(text: str) -> int:
    """Where the last closing mark ends; 0 without one. A word's tag closes only what it has opened."""
    ends = [found.end() for found in _CLOSED.finditer(text)]
    place = 0
    while (opened := _WORD_OPENED.match(text, place)) is not None:
        closed = re.compile(rf"</{opened[1]}>", re.I).search(text, opened.end())
        if closed is None:
            break
        place = closed.end()
    return max([place, *ends])


def _thoughts(text: str) -> str:
    """Thoughts without marks; several blocks a line apart."""
    inside = text
    for mark in (_OPENED, _CLOSED, re.compile(rf"</?{_WORDS}>", re.I)):
        inside = mark.sub("\0", inside)
    parts = (re.sub(r"\Athought\n", "", _AROUND.sub("", part)) for part in inside.split("\0"))
    return "\n".join(part for part in map(str.strip, parts) if part)


def _bare(text: str) -> str:
    """An answer behind thoughts, without the tokens and the tag around it."""
    text = _AROUND.sub("", text).strip()
    if (box := _BOX.match(text)) is not None:
        return box[1].strip()
    wrapped = _WRAPPED.match(text)
    return text if wrapped is None else wrapped[2].strip()
