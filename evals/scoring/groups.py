"""Values that belong to several answers together: a pair, a figure, a question over all its figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from align.rows.schema import Score


def add_group_values(
    scores: Sequence[Score],
    group_of: Callable[[Score], str | None],
    sizes: Mapping[str, int],
    values_of: Callable[[Sequence[Score]], dict[str, float]],
) -> list[Score]:
    """Each group's values on its first score and 0 on its others, so that they sum up right.

    Args:
        group_of: a score's group, None for a score in none.
        sizes: group -> how many scores make it whole. A group with one missing counts nowhere.
        values_of: the values of a whole group, of the same names for all.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, score in enumerate(scores):
        group = group_of(score)
        if group is not None:
            members[group].append(place)
    first: dict[int, dict[str, float]] = {}
    for group, places in members.items():
        if len(places) == sizes.get(group):
            first[places[0]] = values_of([scores[place] for place in places])
    names = {name for values in first.values() for name in values} or set(values_of(()))
    return [
        score.model_copy(
            update={"values": {**score.values, **dict.fromkeys(sorted(names), 0.0), **first.get(place, {})}}
        )
        for place, score in enumerate(scores)
    ]
