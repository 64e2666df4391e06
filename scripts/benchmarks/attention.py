"""Attention of sampling in bf16: ours against PyTorch's fused kernel, by the number of tokens."""

import argparse
from functools import partial

from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256], help="(16 64 256)")
    parser.add_argument("--batch", type=int, default=16, help="examples (16)")
    parser.add_argument("--channels", type=int, default=256, help="of one head (256)")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each (15)")


def run(tokens: list[int], batch: int, channels: int, rounds: int) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from tdpm_cli.models.attention import attention
    from tdpm_cli.runtime.device import device

    print(f"attention in bf16, batch {batch}, one head of {channels}; {machine()}; medians of {rounds}")
    for count in tokens:
        shape = (batch, 1, count, channels)
        given = [torch.randn(shape, device=device(), dtype=torch.bfloat16) for _ in range(3)]
        works = {"ours": partial(attention, *given), "fused": partial(scaled_dot_product_attention, *given)}
        with torch.inference_mode():
            ours, fused = medians(works, rounds).values()
        row(f"{count} tokens, ours", f"{ours * 1000:.3g} ms")
        row(f"{count} tokens, fused", f"{fused * 1000:.3g} ms", fused / ours)
