"""Conditions: what generation depends on. One file a condition."""
