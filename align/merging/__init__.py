"""Adapters and the checkpoints that they merge into, and the proofs of a merge.

adapter_layers.py  PEFT's arithmetic on a model without weights
merge_checks.py    merged logits against adapter-on, names against the base, served tokens against ours
layer_changes.py   each tensor of a merged checkpoint against base + adapter
merge_verify.py    `align merge --verify`: anyone's merge
quantized_base.py  the weights that a 4-bit or 8-bit training saw
"""
