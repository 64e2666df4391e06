"""Encoders of texts. A part takes the folder of its weights, or None.

`limit` is the most tokens that it takes, and `words(tokens, dim)` what the condition `text` makes of texts by it: see
`Vectors`, of frozen networks, and `Pieces`, of one that is trained with the model.

Building a frozen one is cheap: its network is loaded by the first call. `dim` is the size of its vectors, and
`identity` what they depend on.
"""
