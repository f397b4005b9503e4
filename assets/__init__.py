"""The embedded base: how it was trained and packed; its files are in `base/`."""
