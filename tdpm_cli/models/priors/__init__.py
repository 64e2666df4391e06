"""Priors, which map z to x_T. One file a prior."""
