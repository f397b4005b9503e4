"""A question and its answer as plain texts: flat rows, alpaca's and ms-swift's query and response.

https://github.com/tatsu-lab/stanford_alpaca (`instruction`, `input`, `output`), LLaMA-Factory's "alpaca" rows
(`history`, `system`, `chosen`, `rejected`) and ms-swift's "Custom dataset" page (`query`, `response`,
`rejected_response`), each with or without pictures.
"""

from __future__ import annotations

from data_tools.importers.flat_rows import convert
from data_tools.importers.published import Format

FORMATS = (
    Format(
        "flat",
        "a question and its answer, with or without a picture: instruction rows",
        '{"image": path, "question" or "prompt", "answer" or "response" or "output"}',
        convert,
        needs=("question|prompt|text_input", "answer|answers|response|output|text_output"),
    ),
    Format(
        "flat_pairs",
        "a question and two answers, with or without a picture: pairs",
        '{"image": path or [path, ...], "question" or "prompt", "chosen", "rejected"}',
        convert,
        needs=(
            "question|instruction|query",
            "chosen|answer|response|output",
            "rejected|rejected_response|rejected_answer",
        ),
        tells=lambda row: all(isinstance(row.get(name, ""), str) for name in ("chosen", "rejected")),
    ),
    Format(
        "alpaca",
        "alpaca's form, with or without pictures: instruction rows, or pairs with chosen and rejected",
        '{"instruction", "input", "output", "system", "history": [[question, answer]], "images": [path]}',
        convert,
        needs=("instruction", "output|chosen|response"),
    ),
    Format(
        "query_response",
        "ms-swift's query and response: instruction rows, or pairs with rejected_response",
        '{"query", "response", "rejected_response", "system", "history": [[question, answer]], '
        '"images": [path]}',
        convert,
        needs=("query", "response"),
    ),
)
