"""Attention forward and back in bf16: ours against PyTorch's fused kernel, by the number of tokens."""

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

    from tdpm_cli.parts.attention import attention
    from tdpm_cli.run.precision import device

    print(f"attention in bf16, batch {batch}, one head of {channels}; {machine()}; medians of {rounds}")
    for count in tokens:
        shape = (batch, 1, count, channels)
        given = [torch.randn(shape, device=device(), dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        work = lambda way, given=given: way(*given).sum().backward()
        ours, fused = medians({"ours": partial(work, attention), "fused": partial(work, scaled_dot_product_attention)},
                              rounds).values()  # fmt: skip
        row(f"{count} tokens, ours", f"{ours * 1000:.3g} ms")
        row(f"{count} tokens, fused", f"{fused * 1000:.3g} ms", fused / ours)
