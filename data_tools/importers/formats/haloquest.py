"""HaloQuest: questions with a false premise, too little to see, or hard to see; CSV files.

https://github.com/google/haloquest. `groundtruth responses` holds right answers, parted by semicolons; the
first one is the row's answer, all of them stand in `meta`.
"""

from __future__ import annotations

from data_tools.importers.published import Format, Published, Row
from data_tools.importers.turns import answer_turn, question_turn, text_of
from data_tools.importers.unusable import Unusable

_TRUTH = "groundtruth responses"


def _convert(published: Published) -> list[Row]:
    images = published.pictures.of(published.first("image", "image_name", "url"))
    if not images:
        raise Unusable("no image")
    answers = [one.strip() for one in text_of(published.get(_TRUTH), _TRUTH).split(";") if one.strip()]
    if not answers:
        raise Unusable(f"{_TRUTH} is empty")
    if len(answers) > 1:
        published.note("the first of several right answers; all of them in meta")
    turns = [*question_turn(published.text("question"), len(images), marked=False), *answer_turn(answers[0])]
    return [published.instruction(images, turns, published.kept(True) | published.origin(_TRUTH))]


FORMATS = (
    Format(
        "haloquest",
        "google/haloquest's CSV files: instruction rows",
        '{"image_name", "url", "image type", "hallucination type", "question", "groundtruth responses"}',
        _convert,
        needs=("question", _TRUTH),
    ),
)
