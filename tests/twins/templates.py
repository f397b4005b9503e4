"""Each family's turns as a Jinja chat template with `{% generation %}` around what the assistant says."""

from __future__ import annotations

from dataclasses import dataclass

from tests.repository import REPO

_BODY = """\
{%- macro words(content) -%}
    {%- if content is string %}{{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part['type'] == 'image' %}{{- @image }}
            {%- elif part['type'] == 'text' %}{{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro -%}
{{- @start }}
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- @assistant }}
        {%- generation %}{{- words(message['content']) + @end_answer }}{%- endgeneration %}
        {{- @after_answer }}
    {%- elif message['role'] == 'system' %}
        {{- @system + words(message['content']) + @end_system }}
    {%- else %}
        {{- @user + words(message['content']) + @end_user }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- @assistant }}{%- endif %}
"""


@dataclass(frozen=True)
class Turns:
    """What stands around the words of each role, as the family was trained.

    Attributes:
        image: one image's placeholder in the text, before the processor expands it.
        start: begins the whole conversation.
        assistant: opens an answer, and is the generation prompt.
        end_answer: ends an answer and is trained on; `after_answer` follows it and is not.
    """

    image: str
    user: str
    end_user: str
    assistant: str
    end_answer: str
    after_answer: str = ""
    system: str = ""
    end_system: str = "\n"
    start: str = ""

    def template(self) -> str:
        """The Jinja source; markers are inserted as string literals."""
        body = _BODY
        # the longest names first: `@end_answer` must not be taken for `@end`
        for name in sorted(self.__dataclass_fields__, key=len, reverse=True):
            body = body.replace(f"@{name}", _literal(getattr(self, name)))
        return body


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def shipped(name: str) -> str:
    """A template of recipes/base, for a family whose turns `Turns` cannot say."""
    return (REPO / "recipes" / "base" / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def chatml(image: str) -> Turns:
    """`<|im_start|>role ... <|im_end|>`, which Qwen, InternVL and LLaVA-OneVision share."""
    return Turns(
        image=image,
        user="<|im_start|>user\n",
        end_user="<|im_end|>\n",
        assistant="<|im_start|>assistant\n",
        end_answer="<|im_end|>",
        after_answer="\n",
        system="<|im_start|>system\n",
        end_system="<|im_end|>\n",
    )


VICUNA = Turns("<image>\n", "USER: ", " ", "ASSISTANT: ", "</s>", start="<s>")
MISTRAL = Turns("<image>\n", "[INST] ", " [/INST] ", "", "</s>", start="<s>")
QWEN_VL = chatml("<|vision_start|><|image_pad|><|vision_end|>")
ONEVISION = chatml("<image>\n")
INTERNVL = chatml("<IMG_CONTEXT>\n")
CHATML = chatml("")
GEMMA = Turns(
    image="<start_of_image>",
    user="<start_of_turn>user\n",
    end_user="<end_of_turn>\n",
    assistant="<start_of_turn>model\n",
    end_answer="<end_of_turn>",
    after_answer="\n",
    start="<bos>",
)
# PaliGemma has no turns: a prefix and an answer. Its processor adds <bos> after the image itself.
PALIGEMMA = Turns("<image>", "", "\n", "", "<eos>")
IDEFICS = Turns(
    image="<image>",
    user="User:",
    end_user="<end_of_utterance>\n",
    assistant="Assistant: ",
    end_answer="<end_of_utterance>",
    after_answer="\n",
    system="System: ",
    end_system="<end_of_utterance>\n",
    start="<s>",
)
IDEFICS3 = Turns(**{**IDEFICS.__dict__, "start": "<|begin_of_text|>"})
SMOLVLM = Turns(**{**IDEFICS.__dict__, "start": "<|im_start|>"})
# BLIP-2's processor puts the image before all text, so its placeholder is nothing.
BLIP2 = Turns("", "Question: ", " ", "Answer: ", "</s>")
GPT2 = Turns("", "USER: ", "\n", "ASSISTANT: ", "<|endoftext|>", after_answer="\n")
