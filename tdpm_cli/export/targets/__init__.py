"""Export targets. One file a target."""
