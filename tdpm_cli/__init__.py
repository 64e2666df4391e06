"""tdpm: train, sample, evaluate and export truncated diffusion probabilistic models."""

__version__ = "0.1.0"
