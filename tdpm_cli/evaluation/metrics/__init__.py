"""Metrics. One file a metric: see `tdpm_cli.evaluation.metric` for what a file contains."""
