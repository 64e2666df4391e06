"""The verbs, one file each. They touch files and devices, and never import one another."""
