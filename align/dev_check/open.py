"""From a training recipe to its dev check; all that can be wrong is said before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.chat import sees_images
from align.dev_check.asked import check_not_trained_on, read_asked
from align.dev_check.recipe import DevSection, KeepSection
from align.dev_check.rule import KeepRule
from align.dev_check.scores import measures_of
from align.errors import AlignError
from align.images import resolve_image

if TYPE_CHECKING:
    from align.dev_check.check import DevCheck
    from align.run import RunFolder


def open_dev_check(
    section: DevSection | None,
    keep: KeepSection | None,
    folder: RunFolder,
    processor: Any,
    *,
    image_root: Path | None,
    rows: Sequence[Any],
    lengths: Sequence[int],
    passes: float,
) -> DevCheck | None:
    """The check that a recipe asks for; None where it asks for none.

    Args:
        image_root: of the training rows, and of the dev pictures where the section names no other.
        rows: the training rows; dev pictures must not be theirs.
        lengths: their tokens.
        passes: what training on a row costs, in forwards; see `align.dev_check.cost`.

    Raises:
        AlignError: files that are missing or of another kind, pictures that are trained on, a rule over
            what is not measured.
    """
    if section is None:
        return None
    from align.dev_check.answering import Answerer
    from align.dev_check.check import DevCheck
    from align.dev_check.cost import cost_of, question_lengths

    root = section.image_root or image_root
    if not sees_images(processor):
        root = None
    asked = read_asked(section, root, processor)
    check_not_trained_on(asked, root, _pictures(rows, image_root))
    rule = None
    if keep is not None:
        rule = KeepRule(keep.most, keep.limits, keep.patience)
        rule.check([measure.name for measure in measures_of(asked)])
        if len({item.cluster for item in asked}) < 2:
            raise AlignError("a rule needs two halves, and dev has one picture", where="dev")
    questions = question_lengths(asked, processor, root)
    answerer = Answerer(asked, processor, root, questions, section.batch_size)
    cost = cost_of(asked, answerer.batches, questions, lengths, passes)
    return DevCheck(section, rule, asked, answerer, cost, folder)


def _pictures(rows: Sequence[Any], root: Path | None) -> set[Path]:
    if root is None:
        return set()
    names = {name for row in rows for name in row.images}
    return {resolve_image(root, name) for name in names}
