"""Sampling: from a config or a weights file to networks, and from networks to samples."""
