"""RePOPE: POPE's questions about COCO, labelled again, ambiguous ones left out (Neuhaus & Hein 2025,
arXiv:2504.15707; https://github.com/YanNeu/RePOPE, src/eval_utils.py).

The questions keep POPE's ids, so that answers to POPE are answers to RePOPE; those to dropped questions are
counted as unknown and not scored.

Edge cases: the official reading is yes where `yes` stands anywhere in the answer, so in `Eyes` too, else no
where `no` does; an answer with neither is left out of every count. `strict` counts it as wrong. Precision
without a yes is 0 and listed as undefined; the script divides by zero.
"""

from __future__ import annotations

from typing_extensions import override

from evals.scoring.yes_no import Answer, parse_containing
from evals.tasks import pope
from evals.tasks.facts import Facts


class Config(pope.Config):
    """POPE's configuration; `files` are `coco_repope_*.json`."""


class RePope(pope.Pope):
    """See the module; values of a sample as `yes_no_values` has them."""

    label = "RePOPE"
    facts = Facts()
    stem = "*repope"
    source = "RePOPE (arXiv:2504.15707)"
    parser = (
        "official: yes if `yes` stands anywhere, else no if `no` does, else left out; "
        "strict: the leading yes or no, or a plain statement; anything else is unparsed and wrong"
    )

    @override
    def parse(self, text: str) -> Answer | None:
        return parse_containing(text)


TASK = RePope
