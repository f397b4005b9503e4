"""One chart a file; each takes the results and gives a `Figure`, or None when there is nothing to draw."""
