"""Text encoders. One file an encoder."""
