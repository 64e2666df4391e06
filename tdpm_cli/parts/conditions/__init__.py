"""Conditions: what generation is conditioned on. A part takes nothing."""
