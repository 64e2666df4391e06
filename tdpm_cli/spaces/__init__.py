"""Spaces: maps between the stored form of the data and the form that networks see. One file a space."""
