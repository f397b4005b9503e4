"""Which objects are in pictures together: what a model that has seen them expects beside what it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass
class CoOccurrence:
    """In how many images an object is, and together with which others.

    Attributes:
        images: object -> number of images.
        together: object -> other object -> number of images with both.
    """

    images: Counter[str] = field(default_factory=Counter)
    together: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, truth: Mapping[int, Collection[str]]) -> CoOccurrence:
        """Counted from what is in each image."""
        found = cls()
        for _, names in sorted(truth.items()):
            for name in sorted(names):
                found.images[name] += 1
                found.together.setdefault(name, Counter()).update(set(names) - {name})
        return found

    def expected(self, present: Collection[str], absent: str) -> float:
        """Mean over the present objects of P(absent | object), 0 to 1; P(absent) where none is present."""
        shares = [self.together[name][absent] / self.images[name] for name in present if self.images[name]]
        if not shares:
            return self.images[absent] / max(sum(self.images.values()), 1)
        return sum(shares) / len(shares)

    def likeliest(self, present: Collection[str], most: int) -> list[str]:
        """Absent objects that one would expect, likeliest first, at most `most`; ties by name."""
        absent = [name for name in self.images if name not in present]
        ranked = sorted(absent, key=lambda name: (-self.expected(present, name), name))
        return [name for name in ranked[:most] if self.expected(present, name) > 0]
