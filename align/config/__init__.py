"""What a person writes in a recipe: YAML, overrides, strict checks, and names of other libraries.

recipe.py            `StageRecipe` and `Strict`; reading, overriding, and every fault at once
model_ref.py         what `model` names, a folder or a hub id with its revision, and its identity
library_sections.py  TRL's and PEFT's own option names, read from their source, not by importing them
model_table.py       the models that are known by name, and what is particular about each
"""
