"""Evaluation: tasks, generation through vLLM, scores with intervals, and the report."""
