"""`align run`: the stages of a pipeline file as a graph, and the rounds of preference training.

stages.py     the stages by name

Inside:

load.py       reads the file
graph.py      what each stage reads of the others, and which stages to run
rounds.py     lays out the rounds
round_end.py  what ended them, `rounds.json`
reading.py    what must be on disk before a run
runner.py     runs
dry_run.py    what would run, and why
"""

from __future__ import annotations

from align.pipeline.dry_run import describe
from align.pipeline.graph import Link, Selection
from align.pipeline.load import Pipeline, Step, load_pipeline
from align.pipeline.runner import run_pipeline

__all__ = ["Link", "Pipeline", "Selection", "Step", "describe", "load_pipeline", "run_pipeline"]
