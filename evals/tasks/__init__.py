"""One file a benchmark: its `Config`, its `Task`, `build(name, config)`. Others ask `task.py` for them."""
