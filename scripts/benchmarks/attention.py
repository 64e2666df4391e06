"""Attention as sampling computes it in bf16, compared with PyTorch's fused kernel: scripts/bench attention

Prints the milliseconds of both for each number of tokens, and their ratio.
"""

import argparse
from functools import partial

from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256], help="numbers of tokens (16 64 256)")
    parser.add_argument("--batch", type=int, default=16, help="examples (16)")
    parser.add_argument("--channels", type=int, default=256, help="channels of the one head (256)")
    parser.add_argument("--rounds", type=int, default=15, help="timed runs (15)")


def run(tokens: list[int], batch: int, channels: int, rounds: int) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from tdpm_cli.models.cpu_attention import attention
    from tdpm_cli.runtime.device import device

    print(f"attention in bf16, batch {batch}, one head of {channels}; {machine()}; medians of {rounds}")
    for count in tokens:
        shape = (batch, 1, count, channels)
        inputs = [torch.randn(shape, device=device(), dtype=torch.bfloat16) for _ in range(3)]
        works = {"ours": partial(attention, *inputs), "fused": partial(scaled_dot_product_attention, *inputs)}
        with torch.inference_mode():
            ours, fused = medians(works, rounds).values()
        row(f"{count} tokens, ours", f"{ours * 1000:.3g} ms")
        row(f"{count} tokens, fused", f"{fused * 1000:.3g} ms", fused / ours)
