"""What is wrong with preference pairs before anyone trains on them."""
