"""What of a model trains: LoRA by component, PEFT's other methods, the model's own weights.

method_sections.py  `method` and its section in a recipe
methods.py          a recipe -> PEFT's config and the parts that train
lora.py             the `lora` section
initialisation.py   starts that look at rows, and starts that change the base
method_start.py     before PEFT wraps the model, and after
placement.py        what really trains, counted on the model and held against the plan
save_trained.py     the adapter or checkpoint that a stage leaves

Inside:

lora_components.py  ranks, dropout and learning rates by component, or a component trained whole
loftq.py            a start out of the rounding error
"""
