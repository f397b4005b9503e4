"""From a training recipe to its dev check; all that can be wrong is said before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.dev_check.asked import Asked, check_not_trained_on, read_asked
from align.dev_check.heldout import Heldout, HeldoutItem
from align.dev_check.recipe import SFT_PASSES, DevSection, KeepSection
from align.dev_check.rule import KeepRule
from align.dev_check.scores import Item, measures_of
from align.errors import AlignError
from align.inputs.chat import sees_images
from align.inputs.checked_rows import images_of
from align.inputs.images import resolve_image

if TYPE_CHECKING:
    from align.dev_check.check import DevCheck
    from align.run.folder import RunFolder


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
    heldout: Heldout[Any] | None = None,
) -> DevCheck | None:
    """The check that a recipe asks for; None where it asks for none.

    Args:
        image_root: of the training rows, and of the dev pictures where the section names no other.
        rows: the training rows; dev pictures must not be theirs.
        lengths: their tokens.
        passes: what training on a row costs, in forwards; see `align.dev_check.cost`.
        heldout: rows that `hold_out` keeps from training.

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
    items: list[Item] = [*asked, *(heldout.items() if heldout is not None else ())]
    rule = None
    if keep is not None:
        rule = KeepRule(keep.most, keep.limits, keep.patience, keep.patience_on)
        rule.check([measure.name for measure in measures_of(items)])
        _check_halves(items)
    questions = question_lengths(asked, processor, root) if asked else []
    answerer = Answerer(asked, processor, root, questions, section.batch_size)
    read = 0.0 if heldout is None else passes / SFT_PASSES * sum(heldout.lengths)
    cost = cost_of(asked, answerer.batches, questions, lengths, passes, read)
    judge = None
    if section.judge is not None and folder.is_main:
        from align.dev_check.judge import Judge

        judge = Judge(section.judge, root, folder.scratch / "dev_check" / "judge_replies.jsonl")
    return DevCheck(section, rule, asked, answerer, cost, folder, judge, heldout)


def _check_halves(items: Sequence[Item]) -> None:
    """A rule needs two halves, of questions and of held-out rows each."""
    for kind, words in ((Asked, "dev has"), (HeldoutItem, "dev.heldout has")):
        if len({item.cluster for item in items if isinstance(item, kind)}) == 1:
            raise AlignError(f"a rule needs two halves, and {words} one picture", where="dev")


def _pictures(rows: Sequence[Any], root: Path | None) -> set[Path]:
    if root is None:
        return set()
    names = {name for images in images_of(rows) for name in images}
    return {resolve_image(root, name) for name in names}
