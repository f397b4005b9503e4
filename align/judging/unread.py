"""A judge whose replies cannot be read has not judged: the stage fails and shows what came."""

from __future__ import annotations

from collections.abc import Iterable

from align.errors import AlignError
from align.judging.replies import CUT_OFF

_SHOWN = 3
_LONGEST = 160


def check_unread(
    read: Iterable[tuple[str | None, str]], max_unread: float, where: str, fix: str, longer: str
) -> int:
    """How many replies gave no verdict.

    Args:
        read: of each reply its text (None for a request that failed; those are counted elsewhere) and why
            there is no verdict, empty where there is one.
        max_unread: share to accept.
        where: the judge, for the error.
        fix: what to do about replies of another form.
        longer: what to do about replies that were cut off.

    Raises:
        AlignError: more than that; three of them are shown.
    """
    came = [(text, reason) for text, reason in read if text is not None]
    unread = [(text, reason) for text, reason in came if reason]
    if len(unread) <= max_unread * len(came):
        return len(unread)
    shown = list(dict.fromkeys(unread))[:_SHOWN]
    lines = "".join(f"\n  {_short(text)}  ({reason})" for text, reason in shown)
    num_cut = sum(reason.startswith(CUT_OFF) for _, reason in unread)
    advice = f"{longer} ({num_cut} were cut off); or {fix}" if 2 * num_cut > len(unread) else fix
    raise AlignError(
        f"{len(unread)} of the judge's {len(came)} replies could not be read, more than the share "
        f"max_unread: {max_unread:g}. Such as:{lines}",
        where=where,
        fix=f"{advice}. Replies are kept: after a change only what is new is asked",
    )


def _short(text: str) -> str:
    text = repr(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
