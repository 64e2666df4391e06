"""Diffusion models of others: their files, their names for the parts of a U-Net, and what they leave unsaid."""
