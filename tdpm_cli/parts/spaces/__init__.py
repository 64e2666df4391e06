"""Spaces: between the data's storage form and what the model sees. A part takes nothing."""
