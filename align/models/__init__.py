"""Checkpoints and families: what is in a model, where, and how it is loaded.

families.py            where vision, connector and language sit in a `model_type`
proposal.py            an unknown `model_type` read by structure; shown, never used unconfirmed
loading.py             a base with its processor, quantised or not, every weight frozen
image_words.py         what a tokenizer turns into visual input, from its files alone
weightless.py          a model of shapes without weights
live_memory.py         bytes of living tensors by part, counted at every operator
adapter_folder.py      an adapter on disk, with the record of its base
checkpoint_weights.py  a checkpoint's tensors one at a time, by parameter name

Inside:

processors.py          processors of transformers that training cannot take as they are
backbone.py            last hidden states where a class returns none
quantized_shapes.py    the shapes of 4-bit and 8-bit layers
"""
