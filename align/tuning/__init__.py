"""What of a model trains: LoRA by component, PEFT's other methods, the model's own weights."""
