"""One file per benchmark: its `Config`, its `Task`, and `build(name, config)`."""
