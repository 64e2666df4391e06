"""Backbones: networks (x, t, **cond) → a prediction of x's shape. A part takes (shape, sizes)."""
