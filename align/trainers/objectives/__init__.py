"""What a preference trainer minimises: the recipe section, token weights, and the terms themselves."""
