"""Export targets: one file a target, whose class has `export(loaded, file, request)`."""
