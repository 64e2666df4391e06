"""Training objectives: from networks to a list of training phases. One file an objective; see `Objective`."""
