"""What the reference model says of the pairs: is chosen within its reach, and does the picture matter to it.

Log-probs are sums over the answer's tokens. The margin of a pair is that of chosen minus that of rejected,
with the row's pictures and without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from align.inputs.images import open_image, resolve_image
from align.judging.answer_logps import answer_logp
from align.models.loading import ModelSection
from align.progress import track
from align.rows.schema import PreferenceRow
from data_tools.audit.findings import Finding, interval, shown

_MOST_ROWS = 12


@dataclass(frozen=True)
class Scored:
    """A pair's log-probs under the reference.

    Attributes:
        seen, blind: sums for (chosen, rejected), with the pictures and without.
        tokens: of (chosen, rejected).
    """

    row_id: str
    seen: tuple[float, float]
    blind: tuple[float, float]
    tokens: tuple[int, int]

    @property
    def margin(self) -> float:
        """Chosen minus rejected with the pictures."""
        return self.seen[0] - self.seen[1]

    @property
    def blind_margin(self) -> float:
        """Chosen minus rejected without them."""
        return self.blind[0] - self.blind[1]


def drawn_ids(with_pictures: Sequence[str], most: int, seed: int) -> list[str]:
    """Ids of up to `most` of the pairs that have pictures, drawn by seed."""
    return Random(f"{seed} audit").sample(sorted(with_pictures), min(most, len(with_pictures)))


def score_pairs(section: ModelSection, rows: Sequence[PreferenceRow], root: Path) -> list[Scored]:
    """Log-probs of pairs with pictures.

    Raises:
        AlignError: a missing image, or a chat template that refuses the messages.
    """
    import torch

    from align.models.loading import load_model, load_processor

    processor, model = load_processor(section), load_model(section)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # pyright: ignore[reportArgumentType]
    found = []
    for row in track(rows, "reference", len(rows), "pairs"):
        pictures = [open_image(resolve_image(root, name)) for name in row.images]
        sides = [
            answer_logp(processor, model, row.prompt, side, images)
            for images in (pictures, [])
            for side in (row.chosen, row.rejected)
        ]
        sums = [total for total, _ in sides]
        found.append(Scored(row.id, (sums[0], sums[1]), (sums[2], sums[3]), (sides[0][1], sides[1][1])))
    return found


def check_reach(scored: Sequence[Scored], seed: int) -> Finding:
    """Off-policy gap: how much less likely chosen is than rejected, a token, under the reference.

    Answers that the reference would hardly write are learnt slowly and push others up; bad from a gap of
    1 nat a token on, a look from 0.3. Sampled pairs have a gap near 0.
    """
    gaps = [item.seen[1] / max(item.tokens[1], 1) - item.seen[0] / max(item.tokens[0], 1) for item in scored]
    gap = interval(gaps, seed)
    likelihood = interval([item.seen[0] / max(item.tokens[0], 1) for item in scored], seed)
    state = "bad" if gap["value"] >= 1 else "look" if gap["value"] >= 0.3 else "good"
    order = sorted(range(len(gaps)), key=lambda place: -gaps[place])[:_MOST_ROWS]
    return Finding(
        key="off_policy",
        title="Reach of the reference",
        state=state,
        said=f"a token of chosen has {shown(gap)} nats less than one of rejected; log-prob of chosen: "
        f"{shown(likelihood)} a token",
        advice="" if state == "good" else "train on chosen first (SFT), or sample both from the policy",
        numbers={"gap_a_token": gap, "chosen_logp_a_token": likelihood},
        rows=[scored[place].row_id for place in order],
        values=gaps,
        unit="nats a token, rejected minus chosen",
    )


def check_blind(scored: Sequence[Scored], seed: int) -> Finding:
    """Whether the reference's preference needs the picture.

    `unchanged` is the share of pairs whose margin keeps its sign without the picture, `moved` the mean change
    of the margin in nats. A preference that is the same without the picture can be learnt without looking: a
    look from 90% unchanged on, bad if in addition the margins move by less than half a nat.
    """
    kept = interval([float((item.margin > 0) == (item.blind_margin > 0)) for item in scored], seed)
    moved = interval([abs(item.margin - item.blind_margin) for item in scored], seed)
    right = [interval([float(value > 0) for value in side], seed) for side in _margins(scored)]
    state = "good" if kept["value"] < 0.9 else "bad" if moved["value"] < 0.5 else "look"
    order = sorted(scored, key=lambda item: abs(item.margin - item.blind_margin))[:_MOST_ROWS]
    return Finding(
        key="blind",
        title="Without the picture",
        state=state,
        said=f"the reference keeps its preference in {shown(kept)} of the pairs; margins move by "
        f"{shown(moved)} nats; it prefers chosen in {right[0]['value']:.0%} with and "
        f"{right[1]['value']:.0%} without the picture",
        advice="" if state == "good" else "can be learnt blind: add pairs that differ in what is seen",
        numbers={
            "unchanged": kept,
            "moved": moved,
            "prefers_chosen": right[0],
            "prefers_chosen_blind": right[1],
        },
        rows=[item.row_id for item in order],
        values=[item.margin - item.blind_margin for item in scored],
        unit="nats that the picture adds to the margin",
    )


def _margins(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
    return [item.margin for item in scored], [item.blind_margin for item in scored]
