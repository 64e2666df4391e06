"""Data: map-style data sets. A part takes (path or None, raw_shape)."""
