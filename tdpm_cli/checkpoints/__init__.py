"""Checkpoints and weights files: their format, how they are written, verified and found."""
