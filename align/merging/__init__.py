"""Adapters as files, the checkpoints that they merge into, and the proofs of a merge."""
