"""One file a benchmark: its `Config` and its `TASK`. Others ask `task.py` and `registry.py` for them."""
