"""Backbones of the denoiser. One file a network."""
