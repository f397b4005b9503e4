"""Published datasets as the project's rows: one file a format or close group of formats, and shared parts."""
