"""Whether a dataset fits a model, known before training: exact lengths from image headers alone."""
