"""Discriminators: (x_T, **cond) → logits [B]. A part takes (shape, sizes)."""
