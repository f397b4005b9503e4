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


class EndOfRounds(AlignError):
    """What a stage was given is sound, but leaves nothing to go on with: too few pairs, a judge near chance.

    In the first round of a pipeline, or outside one, an error like any other. In a later round the rounds end
    there, and the last kept checkpoint stands (`align.pipeline`). A package that brings a stage raises a
    class of its own below this one, within the stage's run folder, whose manifest keeps `what`: it must be
    the same for the same recipe and inputs, and name no path.
    """


class RecipeError(AlignError):
    """A recipe that cannot be run: unknown key, wrong type, missing file."""

    exit_code = 2
