"""Encoders: frozen networks that turn texts into vectors. A part takes the folder of its weights, or None.

Building one is cheap: its network is loaded by the first call. `dim` is the size of its vectors, `limit` the tokens
that it takes at most, and `identity` what its vectors depend on.
"""
