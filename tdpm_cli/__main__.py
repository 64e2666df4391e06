"""`python -m tdpm_cli`."""

from tdpm_cli.cli import main

main()
