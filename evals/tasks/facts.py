"""What a report must know of a task besides its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Facts:
    """A class of tasks says what is its own; label and kind are filled in, and the score stage keeps it all
    beside the protocol.

    Attributes:
        label: what readers call the task.
        kind: tasks of one kind ask the same of other data, and the first of them decides; the task's type, or
            that of the benchmark whose scorer it has.
        is_own: a user's own, so that no other task of the kind asks the same.
        named: when a sentence with its numbers names it: never where the metrics' names say it.
        guard: the metric without which fewer inventions mean little: the share of what is there that is told.
        invented: of descriptions with mentions: the metric that is invented mentions / mentions.
        with_invention: the share of descriptions with an invention, as rounds are drawn by it.
        yes_ratio: the share of yes, of which a verdict speaks.
        by_kind: the metric that is drawn for each kind of question.
        tiles: the metrics that most readers come for -> what they are.
        metric_labels: metric -> its name as the paper writes it, where that is not its name in words.
    """

    label: str = ""
    kind: str = ""
    is_own: bool = False
    named: Literal["always", "beside others", "never"] = "always"
    guard: str = ""
    invented: str = ""
    with_invention: str = ""
    yes_ratio: str = ""
    by_kind: str = ""
    tiles: Mapping[str, str] = field(default_factory=dict)
    metric_labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is said beyond the defaults, as a JSON object."""
        plain = asdict(Facts())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Facts:
        """From `to_json`; what another version says besides is left out."""
        return cls(**{name: said[name] for name in cls.__dataclass_fields__ if name in said})
