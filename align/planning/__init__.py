"""A training step's memory, predicted on a model of shapes and measured on live tensors; recipes made to fit.

command.py           `align plan`
starting.py          `align init`
fitting.py           the first way to train a model that fits a GPU
recipe_text.py       recipes/base with a model's values, as whole files
memory_plan.py       a recipe's peak memory, by part
row_shapes.py        the longest row of a file, and its shapes

Inside:

planned_batch.py     the batch of a step that was not run
optimizer_states.py  what an optimiser keeps a parameter
measured_memory.py   a real trainer's steps, counted
"""
