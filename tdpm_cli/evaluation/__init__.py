"""Evaluation: scores of samples against a reference."""
