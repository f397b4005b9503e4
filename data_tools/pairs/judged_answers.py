"""Candidates with their verdicts, prompt by prompt, in memory that does not grow with their number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, zip_longest
from pathlib import Path

from align.errors import AlignError
from align.progress import track
from align.rows.schema import Candidate, Verdict, read_rows
from align.rows.tally import Tally
from data_tools.material.answer_counts import COUNTS, AnswerCounts, count_answer
from data_tools.material.rows_in_order import RowsInOrder


@dataclass(frozen=True)
class Answer:
    """A candidate with its verdict."""

    row: Candidate
    verdict: Verdict

    @property
    def score(self) -> float:
        """The judge's score; only scored answers become `Answer`s."""
        return self.verdict.score or 0.0

    @property
    def confirmed(self) -> int:
        """Claims that the judge confirms, of every kind that counts."""
        if self.verdict.counts:
            return sum(count.true for count in self.verdict.counts)
        return sum(claim.supported is True for claim in self.verdict.claims)

    @property
    def denied(self) -> int:
        """Claims that the judge denies, of every kind that counts."""
        if self.verdict.counts:
            return sum(count.false for count in self.verdict.counts)
        return sum(claim.supported is False for claim in self.verdict.claims)

    @cached_property
    def counts(self) -> AnswerCounts:
        """Tokens, mentions, repetitions and number words of its text, by the verdict where it has them."""
        if (known := self.verdict.meta.get(COUNTS)) is not None:
            return AnswerCounts(**known)
        return count_answer(self.row.text, self.row.num_tokens)

    @property
    def faults(self) -> int:
        """Denied claims, and objects named again: a repetition is a false number that needs no judge."""
        return self.denied + self.counts.repetition


@dataclass(frozen=True)
class JudgedAnswers:
    """The two files of one run; may be gone through several times.

    Where both hold the same ids in rising order, as `align sample` and `align judge` write them, they are
    read side by side; otherwise their ids are sorted, and each row is sought in its file.

    Attributes:
        count: candidates, for a bar.
    """

    candidates: Path
    verdicts: Path
    side_by_side: bool
    count: int

    @classmethod
    def open(cls, candidates: Path, verdicts: Path) -> JudgedAnswers:
        """Look at the ids of both files.

        Raises:
            AlignError: no candidates, or a candidate without verdict: the files are not of the same run.
        """
        same_order, count = _same_order(candidates, verdicts)
        return cls(candidates, verdicts, same_order, count)

    def prompts(
        self, tallies: Mapping[str, Tally] | None = None, title: str = "reading answers"
    ) -> Iterator[tuple[str, str, list[Answer]]]:
        """(split, prompt id, its usable answers) in order of the ids; the others are counted with a reason.

        Args:
            tallies: of the splits `train` and `dev`; None counts nothing.
            title: of the bar.
        """
        pairs = track(self._stream() if self.side_by_side else self._sorted(), title, self.count, "answers")
        for prompt_id, group in groupby(pairs, key=lambda pair: pair[0].prompt_id):
            answers, split = [], "train"
            for row, verdict in group:
                split = "dev" if row.meta.get("split") == "dev" else "train"
                reason = _unusable(row, verdict)
                if not reason:
                    answers.append(Answer(row, verdict))
                if tallies is not None and reason:
                    tallies[split].drop(reason, row.id)
                elif tallies is not None:
                    tallies[split].keep()
            if answers:
                yield split, prompt_id, answers

    def _stream(self) -> Iterator[tuple[Candidate, Verdict]]:
        return zip(read_rows(Candidate, self.candidates), read_rows(Verdict, self.verdicts), strict=True)

    def _sorted(self) -> Iterator[tuple[Candidate, Verdict]]:
        rows = RowsInOrder(Candidate, self.candidates, ("prompt_id", "id"))
        verdicts = RowsInOrder(Verdict, self.verdicts, ("prompt_id", "candidate_id"))
        if not rows.count:
            raise AlignError("no candidates", where=str(self.candidates), fix="run the sample stage again")
        others = iter(verdicts)
        judged = next(others, None)
        for row in rows:
            while judged is not None and (judged.prompt_id, judged.candidate_id) < (row.prompt_id, row.id):
                judged = next(others, None)
            if judged is None or judged.candidate_id != row.id:
                raise AlignError(
                    f"no verdict on candidate {row.id}", where=str(self.verdicts), fix="run the judge again"
                )
            yield row, judged


def _unusable(row: Candidate, verdict: Verdict) -> str:
    if not row.text.strip():
        return "empty answer"
    return f"unscored: {verdict.unscored_reason.split(':')[0]}" if verdict.score is None else ""


def _same_order(candidates: Path, verdicts: Path) -> tuple[bool, int]:
    """Whether both files have the same candidates, ids and prompts rising; and how many candidates."""
    last, same, count = ("", ""), True, 0
    both = zip_longest(_keys(candidates, "prompt_id", "id"), _keys(verdicts, "prompt_id", "candidate_id"))
    for ours, theirs in both:
        count += ours is not None
        if ours is None or ours != theirs or ours <= last:
            same = False
        last = ours or last
    return same, count


def _keys(path: Path, prompt: str, row_id: str) -> Iterator[tuple[str, str]]:
    """Prompt and candidate ids of JSON lines, unchecked; an empty pair for a line that is none."""
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
                yield str(raw[prompt]), str(raw[row_id])
            except (ValueError, LookupError, TypeError):
                yield "", ""
