"""One network call for the batches of denoiser and prior together, against one for each, as a step makes them.

Both compute the same gradients, those of the phase in which a prior that shares the denoiser's weights learns with it:
the step itself by two calls with a backward pass each, the other way by one call of twice the images. Each is measured
in a process of its own, in turn; that they compute the same is checked first, without dropout.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from scripts.benchmarks.timing import machine, medians_of, row
from scripts.benchmarks.training import Apart, Step, assembled

CHECKED = 4  # images on which both ways are compared
CLOSE = 1e-3  # of the norm of the gradients, in float32


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="whose networks, with a shared prior (cifar10)")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4, 8, 32], help="images a step (2 4 8 32)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each (3)")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="as tdpm train's --set")


def run(preset: str, batch: list[int], rounds: int, assignments: list[str]) -> None:
    difference = compare(preset, assignments)
    print(f"{preset}: one call or two; {machine()}; medians of {rounds}; gradients differ by {difference:.1g}")
    for size in batch:
        apart = {way: Apart(way, preset, size, assignments) for way in (two_calls, one_call)}
        try:
            times = medians_of({way: partial(each.seconds, False) for way, each in apart.items()}, rounds)
            memory = {way: each.peak() for way, each in apart.items()}
        finally:
            for each in apart.values():
                each.close()
        row(f"batch {size}, two calls", f"{times[two_calls]:.3g} s, {memory[two_calls]} MiB")
        row(f"batch {size}, one call", f"{times[one_call]:.3g} s, {memory[one_call]} MiB",
            times[two_calls] / times[one_call])  # fmt: skip


def compare(preset: str, assignments: list[str]) -> float:
    """The relative difference of the two ways' gradients, in float32. Ends where they are not the same."""
    import torch

    made, raw, device = assembled(preset, CHECKED, ["train.precision=fp32", *assignments])
    config = made.config
    found = (config.prior.name, config.condition.name, config.denoiser.prediction, config.denoiser.weight)
    if found != ("shared", "none", "eps", "simple"):
        raise SystemExit("measured without conditions, for a shared prior and a denoiser of eps with the simple weight")
    for weights in made.model.parameters():  # layers that begin at zero would hide a difference
        torch.nn.init.normal_(weights, std=0.02)
    gradients = []
    for way in (two_calls, one_call):
        step = way(made, raw, device)
        made.model.eval()  # without dropout, which would draw other numbers
        step(False)
        gradients.append(torch.cat([weights.grad.flatten() for weights in made.model.parameters()]))
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    if not difference < CLOSE:
        raise SystemExit(f"the gradients differ by {difference:.2g} of their norm: the two ways are not the same")
    return difference


def two_calls(made: Any, raw: Any, device: Any) -> Step:
    """The phase as a step runs it."""
    phase, batch_of, cast = prepared(made, raw, device)

    def step(_: bool) -> None:
        phase.module.zero_grad(set_to_none=True)
        batch = batch_of()
        for weight, loss in phase.terms:
            with cast():
                value, _logs = loss(batch)
            (weight * value).backward()

    return step


def one_call(made: Any, raw: Any, device: Any) -> Step:
    """The same losses of the same numbers by one call, and one backward pass."""
    import torch

    from tdpm_cli.engine.denoiser import antithetic_times
    from tdpm_cli.engine.losses import prior_loss

    phase, batch_of, cast = prepared(made, raw, device)
    config, model, schedule = made.config, made.model, made.model.denoiser.schedule

    def step(_: bool) -> None:
        phase.module.zero_grad(set_to_none=True)
        batch = batch_of()
        t = batch.own(lambda n: antithetic_times(n, schedule.T, batch.generator, batch.x.device))
        noise = batch.normal(batch.x.shape[1:])
        z = batch.normal(model.prior.z_shape)
        alpha, sigma = schedule.coefficients(t, batch.x)
        with cast():
            inputs = torch.cat([alpha * batch.x + sigma * noise, z])
            times = torch.cat([t, torch.full_like(t, schedule.T + 1)])
            eps, x_T = model.denoiser.network(inputs, times).float().chunk(2)
            fake = made.discriminator(x_T).float()
            real = torch.zeros_like(fake)
            if config.adversarial.loss == "relativistic":
                with torch.no_grad():
                    real = made.discriminator(schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:]))).float()
            loss = (eps - noise).square().mean() + config.adversarial.weight * prior_loss(
                config.adversarial.loss, fake, real
            ).mean()
        loss.backward()

    return step


def prepared(made: Any, raw: Any, device: Any) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """The phase of denoiser and prior, a fresh batch with the same random numbers each time, and autocast."""
    from pathlib import Path

    import torch

    from tdpm_cli.engine.phases import Batch
    from tdpm_cli.runtime import device as precision
    from tdpm_cli.runtime.memory import keep_freed
    from tdpm_cli.training.trainer import Trainer

    keep_freed()
    phases = Trainer(made, Path(), device).phases
    for phase in phases:
        phase.module.requires_grad_(phase is phases[0])
    x = made.space.encode(raw.to(device))
    batch_of = lambda: Batch(x, {}, torch.Generator(device).manual_seed(0))
    return phases[0], batch_of, precision.autocast(made.config.train.precision, device)
