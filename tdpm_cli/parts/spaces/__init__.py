"""Spaces: between the data's storage form and what the model sees. A part takes nothing.

Beside what the engine asks of it, a space draws `picture(raw)` for people.
"""
