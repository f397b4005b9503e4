"""Scored answers made into numbers that can be compared.

scored.py             one task's answers scored
lines.py              per-cluster sums, values, paired differences, health
metric_line.py        a line of `metrics.json`: written and read in one form
on_screen.py          lines of `metrics.json` as a table in the terminal
preferences.py        which of two checkpoints' answers a judge prefers
rounds.py             the path over rounds of training
runs.py               finished runs, read again
runs_side_by_side.py  `align report RUN RUN`
"""
