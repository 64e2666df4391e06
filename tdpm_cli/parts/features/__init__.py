"""Features: what a score compares: images uint8 [B, C, H, W] → features [B, D]. A part
takes (device, path of its weights or None), and its `protocol` says what a score by it depends on."""
