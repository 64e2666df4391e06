"""Training: the entry point, the loop, its callbacks and its monitoring."""
