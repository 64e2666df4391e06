"""Caption embeddings: computed once for each distinct caption and cached."""
