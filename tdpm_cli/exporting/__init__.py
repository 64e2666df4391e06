"""Trained models in the form of other runtimes. Each file writes one format, and runs what it wrote in that runtime."""
