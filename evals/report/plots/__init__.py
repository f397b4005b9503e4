"""One file a chart: each takes the results and gives a `Figure`, or None when there is nothing to draw."""
