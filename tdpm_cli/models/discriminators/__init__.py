"""Discriminators. One file a network."""
