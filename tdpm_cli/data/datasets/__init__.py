"""Datasets. One file a source."""
