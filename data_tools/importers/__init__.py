"""Published datasets as the project's rows: one module a format or close group of formats."""
