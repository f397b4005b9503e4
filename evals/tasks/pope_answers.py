"""Whose answer belongs to which POPE question: files of answers as people publish them.

An answer is joined by image and question where it names its image, else by question id, else (POPE's own
format has neither) by line, and then only if every question text agrees. Three variants number their
questions alike; what variant an answer is about follows from its category, its id (LLaVA counts random
from 10,000,000 and popular from 20,000,000), the file's name, or the questions themselves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from align.errors import AlignError
from align.rows.schema import Prediction
from evals.answer_files.join import join_blocks, join_lines, plain_question
from evals.answer_files.rows import (
    TEXT_FIELDS,
    Row,
    answer_text,
    is_own,
    make_prediction,
    own_predictions,
    read_answer_rows,
    read_whole,
)
from evals.protocol import Sample

ANSWER_FORMAT = (
    "POPE's answers ({question, answer} a line, in the order of the questions), LLaVA's ({question_id, "
    "prompt, text} a line), the same with `image` or `category`, RePOPE's "
    "{variant: {id: {response}}}, or predictions.jsonl of `align generate`"
)

_LLAVA_VARIANTS = {0: "adversarial", 1: "random", 2: "popular"}
_LLAVA_STEP = 10_000_000
_QUESTION_FIELDS = ("question", "prompt", "query")
_ID_FIELDS = ("question_id", "questionId", "id")

Samples = Mapping[str, Sequence[Sample]]
"""Variant -> its questions in the published order."""
Joined = dict[str, list[tuple[Row, str]]]
"""Variant -> rows, each with a sample's id."""


def read_pope_answers(
    path: Path, task: str, samples: Sequence[Sample], variants: Sequence[str]
) -> tuple[list[Prediction], set[str]]:
    """The answers of a file, and the variants that they are about; those to no question keep an id of
    their own.

    Raises:
        AlignError: another format, answers that could be to several variants, or lines that don't follow
            the questions.
    """
    rows = _rows_of_variants(path) or read_answer_rows(path, ANSWER_FORMAT)
    if is_own(rows):
        return _own(own_predictions(rows, task), samples)
    by_variant: dict[str, list[Sample]] = {name: [] for name in variants}
    for sample in samples:
        for variant in sample.subsets:
            by_variant[variant].append(sample)
    joined = (
        _by_category(rows, by_variant) or _by_content(rows, by_variant) or _by_fit(path, rows, by_variant)
    )
    predictions = [
        make_prediction(task, sample_id, answer_text(row.need(TEXT_FIELDS, ANSWER_FORMAT), row.where))
        for pairs in joined.values()
        for row, sample_id in pairs
    ]
    return predictions, set(joined)


def _rows_of_variants(path: Path) -> list[Row]:
    """Rows of a JSON object variant -> answers by question id, as RePOPE's script writes it; else none."""
    whole = read_whole(path)
    if not isinstance(whole, dict) or not whole or whole.keys() - set(_LLAVA_VARIANTS.values()):
        return []
    return [
        Row(f"{path} {variant} {number}", {"category": variant, "question_id": number, **answer})
        for variant, answers in whole.items()
        for number, answer in answers.items()
    ]


def _own(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> tuple[list[Prediction], set[str]]:
    """`align generate` asks a question that several variants share once; here it answers all of them."""
    places: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        for name in (sample.id, f"{Path(sample.images[0]).stem}:{sample.meta['question']}"):
            places[name][sample.id] = sample
    found: list[Prediction] = []
    variants: set[str] = set()
    for prediction in predictions:
        asked = places.get(prediction.sample_id, {}).values()
        variants.update(variant for sample in asked for variant in sample.subsets)
        found += [prediction.model_copy(update={"sample_id": sample.id}) for sample in asked] or [prediction]
    return found, variants


def _by_category(rows: Sequence[Row], by_variant: Samples) -> Joined | None:
    """Rows by the variant that they name, or that LLaVA's numbering tells; None if they tell none."""
    named = [str(row.fields.get("category", "")).lower() for row in rows]
    if not all(name in _LLAVA_VARIANTS.values() for name in named):
        ids = [int(_id) for _id in (_id_of(row) for row in rows) if _id.isdigit()]
        if len(ids) != len(rows) or max(ids) < _LLAVA_STEP:
            return None
        named = [_LLAVA_VARIANTS.get(number // _LLAVA_STEP, "") for number in ids]
    return {
        variant: _join(
            [row for row, name in zip(rows, named, strict=True) if name == variant], samples, variant
        )
        for variant, samples in by_variant.items()
        if variant in named
    }


def _by_content(rows: Sequence[Row], by_variant: Samples) -> Joined | None:
    """Rows that name image and question, to every variant that they answer in full; one that they all belong
    to will do. None if they name none, or no variant fits.

    Variants share questions: a question with one answer has it in each of them, one with several has them in
    the order of the variants.
    """
    if not all(_names_content(row) for row in rows):
        return None
    pools: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        pools[_content(row)].append(row)
    joined: Joined = {}
    for variant, samples in by_variant.items():
        keys = {
            sample.id: (Path(sample.images[0]).stem, plain_question(sample.meta["question"]))
            for sample in samples
        }
        answered = {sample_id: key for sample_id, key in keys.items() if key in pools}
        if len(answered) == len(samples) or pools.keys() <= set(keys.values()):
            earlier = Counter(key for pairs in joined.values() for row, _ in pairs for key in [_content(row)])
            joined[variant] = [
                (pools[key][min(earlier[key], len(pools[key]) - 1)], sample_id)
                for sample_id, key in answered.items()
            ]
    used = {row.where for pairs in joined.values() for row, _ in pairs}
    for variant in list(joined)[-1:]:
        joined[variant] += [(row, f"{variant}?{row.where}") for row in rows if row.where not in used]
    return joined or None


def _by_fit(path: Path, rows: Sequence[Row], by_variant: Samples) -> Joined:
    """All rows, to the variant of the file's name, or to the only one whose questions they answer."""
    named = [variant for variant in by_variant if variant in path.stem.lower()]
    if len(named) == 1 or len(by_variant) == 1:
        variant = (named or [*by_variant])[0]
        return {variant: _join(rows, by_variant[variant], variant)}
    fitting: Joined = {}
    for variant, samples in by_variant.items():
        with suppress(AlignError):
            pairs = _join(rows, samples, variant)
            known = {sample.id for sample in samples} & {sample_id for _, sample_id in pairs}
            if len(known) in (len(samples), len(rows)):
                fitting[variant] = pairs
    if len(fitting) == 1:
        return fitting
    raise AlignError(
        f"these {len(rows)} answers could be to {' or '.join(fitting)}"
        if fitting
        else f"these {len(rows)} answers follow the questions of none of {', '.join(by_variant)}",
        where=str(path),
        fix="put the variant into the answer file's name, or name its questions alone with --option "
        f"files.VARIANT=FILE instead of --data; expected {ANSWER_FORMAT}",
    )


def _join(rows: Sequence[Row], samples: Sequence[Sample], variant: str) -> list[tuple[Row, str]]:
    """Each row with the id of its sample; rows of no sample get an id that none has."""
    if all(_names_content(row) for row in rows):
        ids = {
            (Path(sample.images[0]).stem, plain_question(sample.meta["question"])): sample.id
            for sample in samples
        }
        return [(row, ids.get(_content(row), f"{variant}?{row.where}")) for row in rows]
    by_number = {str(sample.meta.get("question_id", sample.id)): sample for sample in samples}
    pairs = [(row, by_number.get(_number(row))) for row in rows]
    if all(_number(row) and (sample is None or _agree(row, sample)) for row, sample in pairs):
        return [(row, sample.id if sample else f"{variant}?{row.where}") for row, sample in pairs]
    # LLaVA's answers are to an older random file, which lacks 90 questions about absent objects.
    partly = _join_pictures(rows, samples) if len(rows) < len(samples) else None
    return partly or join_lines(rows, samples, _asked, ANSWER_FORMAT)


def _join_pictures(rows: Sequence[Row], samples: Sequence[Sample]) -> list[tuple[Row, str]] | None:
    pictures: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        pictures[sample.images[0]].append(sample)
    blocks = [{plain_question(item.meta["question"]): item.id for item in part} for part in pictures.values()]
    present = [
        [plain_question(item.meta["question"]) for item in part if item.reference["label"] == "yes"]
        for part in pictures.values()
    ]
    return join_blocks(rows, blocks, present, _asked)


def _number(row: Row) -> str:
    value = _id_of(row)
    return str(int(value) % _LLAVA_STEP) if value.isdigit() else value


def _id_of(row: Row) -> str:
    return "" if row.first(_ID_FIELDS) is None else row.need_id(_ID_FIELDS, ANSWER_FORMAT)


def _asked(row: Row) -> str:
    """The question that a row tells; its `text` is the answer where nothing else is."""
    told = row.first(_QUESTION_FIELDS)
    if told is None and row.first(TEXT_FIELDS[:-1]) is not None:
        told = row.fields.get("text")
    return plain_question(str(told or ""))


def _agree(row: Row, sample: Sample) -> bool:
    """Whether the row tells no question, or the sample's."""
    return not _asked(row) or _asked(row) == plain_question(sample.meta["question"])


def _names_content(row: Row) -> bool:
    return "image" in row.fields and bool(_asked(row))


def _content(row: Row) -> tuple[str, str]:
    return Path(str(row.fields["image"])).stem, _asked(row)
