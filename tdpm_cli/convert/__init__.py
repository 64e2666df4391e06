"""Weights of other projects, converted to ours."""
