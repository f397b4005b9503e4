"""Chat templates that can think, in own words, with the behaviour of the published ones of 2026.

What they share: an assistant's turn may have `reasoning_content`, or hold its thoughts in its text; only the
turns behind the last question keep them. What tells them apart is how a prompt says that none are wanted.
"""

from __future__ import annotations

from typing import Any

_WORDS = """\
{%- macro words(content) -%}
    {%- if content is string %}{{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part['type'] == 'image' %}{{- '@image' }}
            {%- elif part['type'] == 'text' %}{{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro -%}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
"""
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

QWEN3_5 = (
    _WORDS.replace("@image", _IMAGE)
    + """\
{%- for message in messages %}
    {%- set content = words(message['content'])|trim %}
    {%- if message['role'] == 'assistant' %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content|trim %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].split('<think>')[-1]|trim %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last %}{{- '<think>\\n' + thoughts + '\\n</think>\\n\\n' }}{%- endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
)
"""Thoughts off: an empty block, closed, in the prompt. On: the prompt opens the block."""

GLM4_6V = (
    _WORDS.replace("@image", _IMAGE)
    + """\
{{- '[gMASK]<sop>' }}
{%- for message in messages %}
    {%- set content = words(message['content']) %}
    {%- if message['role'] == 'assistant' %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1] %}
        {%- endif %}
        {{- '<|assistant|>\\n<think>' }}
        {%- if loop.index0 > ns.last %}{{- thoughts|trim }}{%- endif %}
        {{- '</think>\\n' + content|trim }}
    {%- elif message['role'] == 'system' %}
        {{- '<|system|>\\n' + content }}
    {%- else %}
        {{- '<|user|>\\n' + content }}
        {%- if enable_thinking is defined and not enable_thinking %}{{- '/nothink' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '\\n<think></think>' }}{%- endif %}
{%- endif %}
"""
)
"""Thoughts off: a word in the question too. No turn has an end of its own: the next one begins it."""

GEMMA4 = (
    _WORDS.replace("@image", _IMAGE)
    + """\
{{- bos_token }}
{%- set said = messages[0]['role'] == 'system' %}
{%- if said or enable_thinking %}
    {{- '<|turn>system\\n' }}
    {%- if enable_thinking %}{{- '<|think|>\\n' }}{%- endif %}
    {%- if said %}{{- words(messages[0]['content'])|trim }}{%- endif %}
    {{- '<turn|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = words(message['content'])|trim %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|turn>model\\n' }}
        {%- set thoughts = message.reasoning or message.reasoning_content %}
        {%- if thoughts and loop.index0 > ns.last %}
            {{- '<|channel>thought\\n' + thoughts + '\\n<channel|>' }}
        {%- endif %}
        {{- content.split('<channel|>')[-1] + '<turn|>\\n' }}
    {%- elif message['role'] == 'user' %}
        {{- '<|turn>user\\n' + content + '<turn|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|turn>model\\n' }}{%- endif %}
"""
)
"""Thoughts on: a token in the system's turn. The prompt ends alike; the model opens its channel itself."""

TEMPLATES = {"qwen3_5": QWEN3_5, "glm4_6v": GLM4_6V, "gemma4": GEMMA4}

TOKENS = {
    "qwen3_5": {"plain": ["<think>", "</think>"], "special": ["<|im_start|>", "<|im_end|>"]},
    "glm4_6v": {
        "plain": ["<think>", "</think>", "/nothink"],
        "special": ["[gMASK]", "<sop>", "<|assistant|>", "<|user|>", "<|system|>"],
    },
    "gemma4": {
        "plain": [],
        "special": ["<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"],
    },
}
"""Of each template, the added tokens that decoding keeps, and those that it leaves out."""

ENDS = {"qwen3_5": "<|im_end|>", "glm4_6v": "<|user|>", "gemma4": "<turn|>"}
"""The token that ends an answer."""


def set_template(processor: Any, family: str) -> None:
    """Give a twin's processor (or tokenizer) a family's template and tokens; its embedding has the room."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = TOKENS[family]
    tokenizer.add_tokens(tokens["plain"])
    tokenizer.add_tokens(tokens["special"], special_tokens=True)
    tokenizer.eos_token = ENDS[family]
    if family == "gemma4":
        tokenizer.bos_token = "<bos>"
    for owner in (processor, tokenizer):
        owner.chat_template = TEMPLATES[family]
