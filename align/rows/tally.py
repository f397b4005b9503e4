"""What was kept and what was dropped, by reason: counted while filtering, printed as one table."""

from __future__ import annotations

from collections import Counter
from typing import Any

from align.progress import say


class Tally:
    """Counts of kept and dropped items of one kind, with examples of what was dropped.

    Attributes:
        examples: reason -> the first few ids.
    """

    max_examples = 5

    def __init__(self, what: str) -> None:
        self.what = what
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def keep(self, count: int = 1) -> None:
        """Count kept items."""
        self.kept += count

    def drop(self, reason: str, example: str = "", count: int = 1) -> None:
        """Count dropped items under a reason; `example` is an id, where there is one."""
        self.dropped[reason] += count
        found = self.examples.setdefault(reason, [])
        if example and len(found) < self.max_examples:
            found.append(example)

    def quarantine(self, where: str, reason: str, row: Any) -> None:
        """Count a bad row, as `read_rows` tells of it; the reason without what is this row's own."""
        kind = reason.split(": ")[0]
        self.drop(kind, where if kind == reason else f"{where}: {reason.removeprefix(f'{kind}: ')[:120]}")

    def move(self, reason: str, example: str = "") -> None:
        """Drop an item that has been counted as kept."""
        self.kept -= 1
        self.drop(reason, example)

    def show(self) -> None:
        """Print the table, most frequent reason first."""
        say(f"  {self.what}: kept {self.kept} of {self.kept + self.dropped.total()}")
        for reason, count in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            examples = ", ".join(self.examples[reason][:2])
            say(f"    dropped {count:>6}  {reason}" + (f" (e.g. {examples})" if examples else ""))

    def to_json(self) -> dict[str, object]:
        """Counts and examples, for a file."""
        dropped = {
            reason: {"count": self.dropped[reason], "examples": self.examples[reason]}
            for reason in sorted(self.dropped)
        }
        return {"kept": self.kept, "dropped": dropped}
