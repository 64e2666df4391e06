"""Configuration: the schema, presets and the registry of components. Imports no PyTorch."""
