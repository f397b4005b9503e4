"""Checkpoints and families: what is in a model, where, and how it is loaded.

family.py              what is known of a family: one record, every fact given
families/              the records, one file a family
image_rules.py         what an image's size becomes in text: a family's rule and its shared arithmetic
lora_places.py         where LoRA goes, by component
proposal.py            an unknown `model_type` read by structure; shown, never used unconfirmed
pixel_budget.py       a recipe's pixel budget in a processor's own terms
loading.py             a base with its processor, quantised or not, every weight frozen
thinking.py            whether the model thinks: one setting, told to its chat template everywhere
image_words.py         what a tokenizer turns into visual input, from its files alone
weightless.py          a model of shapes without weights
live_memory.py         bytes of living tensors by part, counted at every operator
adapter_folder.py      an adapter on disk, with the record of its base
checkpoint_weights.py  a checkpoint's tensors by parameter, converted as transformers does, and back
file_form.py           a loaded model saved again as its files were

Inside:

paligemma_processor.py PaliGemma's processor, mended
quantized_shapes.py    the shapes of 4-bit and 8-bit layers
"""
