"""Feature extractors. One file an extractor."""
