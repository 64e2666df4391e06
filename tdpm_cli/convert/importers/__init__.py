"""One file a project whose weights can be imported."""
