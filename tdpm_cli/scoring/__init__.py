"""Scoring: what `tdpm eval` and `tdpm sweep` share, from what can be scored to figures under their names."""
