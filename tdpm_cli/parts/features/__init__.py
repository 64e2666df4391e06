"""Features: what a score compares: images uint8 [B, C, H, W] → features [B, D].

A part takes (device, path of its weights or None), and its `protocol` says what a score by it depends on: a name, how
it resizes, and the hash of its weights. A part with a static `prepare` has its images prepared by it, uint8 → tensor,
in the processes that read them, and is called with what that made.
"""
