"""A training step's memory, predicted on a model of shapes and measured on live tensors."""
