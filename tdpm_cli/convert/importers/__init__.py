"""Importers: one file a project, whose function `(path, height) -> ImportedModel` reads its weights."""
