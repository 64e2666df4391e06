"""The mathematics: tensors in, tensors out. No files, no device choice, no printing."""
