"""`tdpm data`: inspect, verify and prepare data, and train helper models on them."""

import typer

from tdpm_cli.cli.data.autoencoder import autoencoder
from tdpm_cli.cli.data.encode import encode
from tdpm_cli.cli.data.inspect import inspect
from tdpm_cli.cli.data.matcher import matcher
from tdpm_cli.cli.data.prepare import prepare
from tdpm_cli.cli.data.verify import verify

app = typer.Typer(help="Inspect, verify and prepare data; train helper models.", no_args_is_help=True)
for command in (inspect, verify, prepare, matcher, autoencoder, encode):
    app.command()(command)
