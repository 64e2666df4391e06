"""A step of adversarial training with penalties, in one pass and in separate passes: scripts/bench adversarial

Prints the images a second of both, and their ratio. The gradients are equal to rounding (tests/engine/test_phases.py).
"""

import argparse
from functools import partial

from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="fashion-mnist", help="whose prior and discriminator (fashion-mnist)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (64)")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps (9)")


def run(preset: str, batch: int, rounds: int) -> None:
    import torch
    from torch import nn

    from tdpm_cli.config import load_config
    from tdpm_cli.engine.batch import Batch
    from tdpm_cli.engine.phase import Networks, PhaseSettings, train_step
    from tdpm_cli.engine.phases import discriminator_phases, one_pass_phases, prior_phase
    from tdpm_cli.runtime.device import device
    from tdpm_cli.sampling.build import build

    config = load_config(preset, ["adversarial.penalty_every=1"])
    components = build(config, device())

    def make_optimizer(networks: Networks) -> torch.optim.Optimizer:
        return torch.optim.Adam(nn.ModuleDict(networks).parameters(), 1e-4, fused=True)

    settings = PhaseSettings(config.adversarial, make_optimizer)
    separate = [prior_phase(components, settings), *discriminator_phases(components, settings)]
    x = torch.randn(batch, *components.space.shape, device=device())
    cond = {key: value.to(device()) for key, value in components.condition.null(batch).items()}
    examples = Batch(x, cond, torch.Generator(device()).manual_seed(0))
    steps = {
        name: partial(train_step, phases, [examples], 1, 0)
        for name, phases in {"one pass": one_pass_phases(components, settings), "separate passes": separate}.items()
    }
    print(f"adversarial step of {preset}, batch {batch}, float32; {machine()}; medians of {rounds}")
    one, other = medians(steps, rounds).values()
    row("one pass", f"{batch / one:.4g} images a second", other / one)
    row("separate passes", f"{batch / other:.4g} images a second")
