"""Encoders of data to the prior's z, for training by likelihood. One file a network."""
