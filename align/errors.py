"""The one exception that users are meant to see: what went wrong, where, and what to do."""

from __future__ import annotations


class AlignError(Exception):
    """An error with a place and a remedy, printed by the command line without a traceback.

    Args:
        what: what was wrong, in one sentence, with the offending value.
        where: file, row id, field or dotted recipe path; empty when there is no place.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class RecipeError(AlignError):
    """A recipe that cannot be run: unknown key, wrong type, missing file."""

    exit_code = 2
