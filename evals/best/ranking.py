"""What ranks the answers to one prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from align.errors import AlignError
from align.models.loading import ModelSection
from align.progress import Bar
from align.rows.schema import Candidate, Message, Verdict, read_rows


@dataclass(frozen=True)
class Ranked:
    """An answer and what ranks it.

    Attributes:
        score: higher is better; None where a judge gave no verdict: never chosen over one that has a score.
        draw: which of the prompt's draws it was first, 0 is the first.
    """

    row: Candidate
    score: float | None

    @property
    def draw(self) -> int:
        """The id's number: `align sample` numbers answers by their first draw."""
        return int(self.row.id.rpartition("#")[2])


@dataclass(frozen=True)
class Logps:
    """Sums of an answer's token log-probs in nats under both checkpoints."""

    candidate_id: str
    policy: float
    reference: float
    tokens: int

    @property
    def reward(self) -> float:
        """log pi/pi_ref a token: DPO's implicit reward (Rafailov et al. 2023, arXiv:2305.18290, eq. 5) over
        beta, normalised by length as RLAIF-V ranks answers (arXiv:2405.17220, section 3.4); the sum alone
        prefers short answers."""
        return (self.policy - self.reference) / self.tokens


def read_groups(path: Path) -> list[list[Candidate]]:
    """The candidates of each prompt in the order of their draws, prompts by id.

    Raises:
        AlignError: none, or an id that no `align sample` writes.
    """
    rows = sorted(read_rows(Candidate, path), key=lambda row: row.prompt_id)
    if not rows:
        raise AlignError("no candidates", where=str(path), fix="run `align sample` first")
    for row in rows:
        if not row.id.rpartition("#")[2].isdigit():
            raise AlignError(
                f"candidate id {row.id!r} does not end in #NUMBER, the draw that it was",
                where=str(path),
                fix="rank what `align sample` writes",
            )
    groups = (list(group) for _, group in groupby(rows, key=lambda row: row.prompt_id))
    return [sorted(group, key=lambda row: Ranked(row, None).draw) for group in groups]


def by_verdicts(groups: Sequence[Sequence[Candidate]], path: Path) -> list[list[Ranked]]:
    """Ranked by a judge's scores.

    Raises:
        AlignError: a candidate without verdict.
    """
    scores = {row.candidate_id: row.score for row in read_rows(Verdict, path)}
    for row in (row for group in groups for row in group):
        if row.id not in scores:
            raise AlignError(f"no verdict on {row.id}", where=str(path), fix="judge the same candidates")
    return [[Ranked(row, scores[row.id]) for row in group] for group in groups]


def by_reward(groups: Sequence[Sequence[Candidate]], logps: Mapping[str, Logps]) -> list[list[Ranked]]:
    """Ranked by `Logps.reward`."""
    return [[Ranked(row, logps[row.id].reward) for row in group] for group in groups]


def measure_logps(
    groups: Sequence[Sequence[Candidate]],
    policy: ModelSection,
    reference: ModelSection,
    image_root: Path | None,
    store: Path,
) -> dict[str, Logps]:
    """Log-probs of every candidate, each written to `store` as it is known; a stopped run goes on there.

    Raises:
        AlignError: a missing image, a checkpoint that cannot be loaded.
    """
    known = {row["candidate_id"]: Logps(**row) for row in _lines(store)}
    open_groups = [[row for row in group if row.id not in known] for group in groups]
    todo = sum(map(len, open_groups))
    if todo:
        with store.open("a", encoding="utf-8") as out, Bar("best: log-probs", todo, "answers") as bar:
            for found in _score(open_groups, policy, reference, image_root):
                known[found.candidate_id] = found
                out.write(json.dumps(asdict(found)) + "\n")
                out.flush()
                bar.step()
    return known


def _score(
    groups: Iterable[Sequence[Candidate]], policy: ModelSection, reference: ModelSection, root: Path | None
) -> Iterator[Logps]:
    import torch

    from align.inputs.images import open_image
    from align.inputs.training_data import image_file
    from align.judging.answer_logps import answer_logp
    from align.models.loading import load_model, load_processor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sides = [(load_processor(section), load_model(section)) for section in (policy, reference)]
    for _, model in sides:
        model.to(device)  # pyright: ignore[reportArgumentType]
    for group in groups:
        for row in group:
            pictures = [open_image(image_file(root, name)) for name in row.images]
            answer = [Message(role="assistant", content=row.text)]
            (above, tokens), (below, _) = (
                answer_logp(processor, model, row.prompt, answer, pictures) for processor, model in sides
            )
            yield Logps(row.id, above, below, tokens)


def _lines(path: Path) -> list[dict]:
    """Whole lines; a kill may have cut the last one."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return found
