"""the_cauldron and FineVision: pictures and a list of questions with their answers.

https://huggingface.co/datasets/HuggingFaceM4/the_cauldron and
https://huggingface.co/datasets/HuggingFaceM4/FineVision; all pictures stand before the first question.
"""

from __future__ import annotations

from data_tools.importers.dialogue import convert
from data_tools.importers.published import Format

FORMATS = (
    Format(
        "finevision",
        "HuggingFaceM4/FineVision and the_cauldron: instruction rows",
        '{"images": [{"bytes"}], "texts": [{"user", "assistant"}], "source"}',
        convert,
        embeds=True,
        needs=("images", "texts"),
    ),
)
