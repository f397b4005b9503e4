"""`align report --compare RUN RUN ...`: a report over checkpoints of several runs."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from align.errors import AlignError
from align.progress import say
from evals.comparison.on_screen import show_metrics
from evals.comparison.runs import read_runs
from evals.comparison.runs_side_by_side import compare_runs, write_compared

_MARK = "runs.json"


def main(words: Sequence[str], report: Callable[[Path, Path, str], object]) -> int:
    """The command; returns the exit code.

    Args:
        report: writes the report of a score folder: run folder, scores, title.

    Raises:
        AlignError: fewer than two runs, one without scores, or a folder for the result that is in use.
    """
    options = _parse(words)
    if len(options.compare) < 2:
        raise AlignError("a comparison needs two runs", fix="align report --compare runs/a runs/b")
    runs = read_runs(options.compare)
    names = [one.name for one in runs]
    out = options.out or Path(options.compare[0]).resolve().parent / f"compare_{'_'.join(names)}"
    found = compare_runs(runs, options.resamples)
    scores = _clear(out / "score")
    write_compared(scores, runs, found)
    if comparable := [line for line in found.metrics if None not in line.values.values()]:
        show_metrics(comparable, names)
    for task, reasons in found.apart.items():
        say(f"  {task} cannot be compared: {'; '.join(reasons)}")
    for remark in found.remarks:
        say(f"  note: {remark}")
    if not found.metrics:
        raise AlignError("the runs have no task in common", fix="score them on the same tasks")
    report(out, scores, f"Comparison of {', '.join(names)}")
    return 0


def _clear(folder: Path) -> Path:
    """An empty folder, which an earlier comparison may have filled.

    Raises:
        AlignError: something else is in it.
    """
    if folder.exists() and not (folder / _MARK).is_file():
        raise AlignError(f"{folder} is not a comparison's", fix="choose another folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="align report --compare",
        description="Put the last checkpoints of several runs side by side, paired where the same questions "
        "were asked, and say what cannot be compared. RUN is a run folder, a score folder, or a report; "
        "RUN@CHECKPOINT takes another checkpoint than the last.",
    )
    parser.add_argument("--compare", nargs="+", required=True, metavar="RUN", help="two runs or more")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the report; beside the first run")
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples")
    return parser.parse_args(list(words))
