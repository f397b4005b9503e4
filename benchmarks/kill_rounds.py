"""A pipeline killed at random moments, as by a crash of the machine, must end with the bytes of a calm run.

The quickstart at smoke size with three rounds, every stage for real, vLLM included:

    python -m benchmarks.kill_rounds recipes/quickstart/pipeline.yaml @benchmarks/quickstart_smoke.txt \\
        rounds=3 --kills 20 --seed 0 --out runs/kill_rounds

It runs once undisturbed. Moments are drawn over that run's wall time, and stand for a stage and the time that
the stage had run. The second run is killed at each of them and started again at once: SIGKILL to the pipeline
and all beneath it, servers included. One moment more takes the pipeline alone, the first at which it has a
server; what it leaves behind must be gone within half a minute, and must not keep the next start from its
work. Then every file that a stage wrote is compared, and the final report; exit code 1 on any difference, or
on a start that fails.

Both runs use the same folder name, one after the other: paths are part of recipes, and so of digests. The
calm run is kept in `undisturbed` and taken again next time. `--kills 0` compares two calm runs: what then
differs is not the kills' doing (an engine that batches requests as they come may round differently from run
to run).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process_tree import Process, beneath, crash, seconds_until_gone
from benchmarks.run_differences import differences, finished, progress, report_metrics

_ANNOUNCED = re.compile(r"^\[\d+/\d+\] (\S+): ")
"""The line by which `align run` begins a stage."""
STARTING = "(starting)"
_ORPHANS_MAY_LIVE_SECONDS = 30.0
_LAST_LINES = 30


@dataclass(frozen=True)
class Moment:
    """When to kill: `seconds` after the stage was announced, in whatever stage that then is."""

    stage: str
    seconds: float


@dataclass
class Kill:
    """A kill that came.

    Attributes:
        number_killed: processes that got SIGKILL.
        orphans: what a kill of the parent alone left running.
        orphans_seconds: how long the last of them ran on; None if it did not end by itself in time.
    """

    moment: Moment
    stage: str
    number_killed: int
    kept: str
    is_parent_alone: bool
    orphans: list[Process] = field(default_factory=list)
    orphans_seconds: float | None = 0.0


class Attempt:
    """One start of the pipeline, its output read as it comes."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._began = time.monotonic()
        self._timeline = [(STARTING, 0.0)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
        )
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self._log.open("a") as log:
            for text in self.process.stdout:
                log.write(text)
                log.flush()
                if found := _ANNOUNCED.match(text):
                    self._timeline.append((found[1], time.monotonic() - self._began))

    @property
    def stage(self) -> str:
        """The stage that was announced last."""
        return self._timeline[-1][0]

    def reaches(self, moment: Moment) -> bool:
        """Wait for the moment; False if the process ends before it."""
        while self.process.poll() is None:
            began = dict(self._timeline).get(moment.stage)
            left = 0.05 if began is None else began + moment.seconds - (time.monotonic() - self._began)
            if left <= 0:
                return True
            time.sleep(min(left, 0.05))
        return False

    def finish(self) -> list[tuple[str, float]]:
        """Wait for its end; the stages and when each began, with the end of all as a last, nameless one.

        Raises:
            SystemExit: it failed; with the end of its output.
        """
        code = self.process.wait()
        seconds = time.monotonic() - self._began
        self._reader.join(10)
        if code:
            last = "\n".join(self._log.read_text().splitlines()[-_LAST_LINES:])
            raise SystemExit(
                f"{last}\n\nthe pipeline ended with exit code {code}; all of its output: {self._log}"
            )
        return [*self._timeline, ("", seconds)]


def draw_moments(timeline: Sequence[tuple[str, float]], count: int, seed: int) -> list[Moment]:
    """Moments evenly spread over a run's wall time, in order.

    Args:
        timeline: stages with the second at which each began; the last entry is the end.
    """
    draw = random.Random(seed)
    found = []
    for second in sorted(draw.uniform(0, timeline[-1][1]) for _ in range(count)):
        stage, began = [item for item in timeline[:-1] if item[1] <= second][-1]
        found.append(Moment(stage, second - began))
    return found


def run_killed(command: Sequence[str], run_dir: Path, moments: Sequence[Moment], log: Path) -> list[Kill]:
    """Run with a kill at each moment, one of them of the parent alone; then to the end.

    Moments that a start has passed by its end are left out: what was done before needs no time again.
    """
    kills: list[Kill] = []
    watchers: list[threading.Thread] = []
    for place, moment in enumerate(moments):
        attempt = Attempt(command, log)
        if not attempt.reaches(moment):
            attempt.finish()
            break
        servers = beneath(attempt.process.pid)
        was_alone = any(kill.is_parent_alone for kill in kills)
        has_server = any(process.session != attempt.process.pid for process in servers)
        kill = Kill(moment, attempt.stage, 1, "", not was_alone and (has_server or moment is moments[-1]))
        if kill.is_parent_alone:
            attempt.process.kill()
            kill.orphans = [process for process in servers if process.is_alive()]
            watchers.append(threading.Thread(target=_watch, args=(kill,)))
            watchers[-1].start()
        else:
            kill.number_killed = crash(attempt.process.pid)
        attempt.process.wait()
        kill.kept = progress(run_dir, kill.stage)
        kills.append(kill)
        print(f"  kill {place + 1}: {' | '.join(_row(place + 1, kill)[1:5])}", flush=True)
    Attempt(command, log).finish()
    for watcher in watchers:
        watcher.join()
    return kills


def _watch(kill: Kill) -> None:
    kill.orphans_seconds = seconds_until_gone(kill.orphans, _ORPHANS_MAY_LIVE_SECONDS)
    for process in kill.orphans:
        process.send(signal.SIGKILL)


def _row(number: int, kill: Kill) -> list[str]:
    at = f"{kill.moment.stage} + {kill.moment.seconds:.1f} s"
    whom = "parent alone" if kill.is_parent_alone else f"{kill.number_killed} processes"
    lived = "over 30" if kill.orphans_seconds is None else f"{kill.orphans_seconds:.1f}"
    orphans = f"{len(kill.orphans)} for {lived} s" if kill.orphans else ""
    return [str(number), at, kill.stage, whom, kill.kept, orphans]


def table(kills: Sequence[Kill]) -> str:
    """A Markdown table, a row a kill."""
    header = ["kill", "drawn for", "killed in", "killed", "kept on disk", "orphans"]
    rows = [header, ["---"] * len(header), *(_row(place, kill) for place, kill in enumerate(kills, 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def undisturbed(command: Sequence[str], run_dir: Path, calm: Path) -> list[tuple[str, float]]:
    """The calm run's timeline: of one that is there, by the same command, or of one that is made now.

    Raises:
        SystemExit: the folder holds a run of another command.
    """
    told = calm / "timeline.json"
    if told.is_file():
        record: dict[str, Any] = json.loads(told.read_text())
        if record["command"] != list(command[1:]):
            raise SystemExit(f"{calm} is of another command: delete it, or choose another --out")
        return [(stage, second) for stage, second in record["timeline"]]
    shutil.rmtree(calm, ignore_errors=True)
    shutil.rmtree(run_dir, ignore_errors=True)
    timeline = Attempt(command, run_dir.parent / "undisturbed.log").finish()
    run_dir.rename(calm)
    told.write_text(json.dumps({"command": list(command[1:]), "timeline": timeline}))
    return timeline


class _Parser(argparse.ArgumentParser):
    """Reads `@FILE` as arguments, one a line; `#` begins a comment."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        word = arg_line.partition("#")[0].strip()
        return [word] if word else []


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, compare, tell; returns the exit code."""
    parser = _Parser(
        prog="python -m benchmarks.kill_rounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("recipe", help="a pipeline file")
    parser.add_argument(
        "overrides", nargs="*", help="stage.key=value, as for `align run`; or @FILE with such"
    )
    parser.add_argument(
        "--kills", type=int, default=20, help="of everything; one of the parent alone is added"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("runs/kill_rounds"), help="folder for both runs")
    options = parser.parse_intermixed_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    run_dir, calm = options.out / "run", options.out / "undisturbed"
    command = [
        sys.executable,
        "-m",
        "align.cli",
        "run",
        options.recipe,
        *options.overrides,
        f"run_dir={run_dir}",
    ]
    timeline = undisturbed(command, run_dir, calm)
    print(f"undisturbed: {len(finished(calm))} stages in {timeline[-1][1]:.0f} s", flush=True)
    shutil.rmtree(run_dir, ignore_errors=True)
    moments = draw_moments(timeline, options.kills + 1 if options.kills else 0, options.seed)
    began = time.monotonic()
    kills = run_killed(command, run_dir, moments, options.out / "killed.log")
    seconds = time.monotonic() - began
    print(f"\n{table(kills)}\n\nkilled {len(kills)} times ({len(moments)} moments): {seconds:.0f} s")
    found = differences(calm, run_dir)
    found += ["orphans of a killed parent had to be killed" for kill in kills if kill.orphans_seconds is None]
    files = sum(map(len, finished(calm).values()))
    metrics = len(report_metrics(calm))
    print(
        "\n".join(found)
        or f"no difference in {files} files of {len(finished(calm))} stages, {metrics} metrics"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
