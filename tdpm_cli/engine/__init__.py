"""The mathematics: tensors in, tensors out. No files, no devices chosen, no printing."""
