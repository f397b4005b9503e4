"""`align run`: the stages of a pipeline file as a graph, and the rounds of preference training.

`load.py` reads the file, `graph.py` finds what each stage reads of the others, `rounds.py` lays out the
rounds and says when they end, `runner.py` runs, `dry_run.py` says what would run and why.
"""

from __future__ import annotations

from align.pipeline.dry_run import describe
from align.pipeline.graph import Link, Selection
from align.pipeline.load import Pipeline, Step, load_pipeline
from align.pipeline.runner import run_pipeline

__all__ = ["Link", "Pipeline", "Selection", "Step", "describe", "load_pipeline", "run_pipeline"]
