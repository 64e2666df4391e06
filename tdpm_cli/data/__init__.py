"""Data: datasets, image decoding, the loader and the data tools."""
