"""A look into any file of rows: in the terminal, as a page with thumbnails, and as coloured tokens."""
