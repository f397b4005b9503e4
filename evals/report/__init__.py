"""The hallucination report: what changed between checkpoints, how sure that is, and what it cost."""
