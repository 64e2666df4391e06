"""Weights of trained denoisers and generators, of tdpm and of other projects, as the start of a run."""
