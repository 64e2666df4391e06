"""Everything that changes during training: networks, averages, optimizers and counters, with their snapshots."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints import weights
from tdpm_cli.checkpoints.checkpoint import Snapshot
from tdpm_cli.config import registry
from tdpm_cli.engine.ema import EMA
from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.protocols import Objective
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components, header, use_checkpointing
from tdpm_cli.sampling.placement import networks, shard, try_network
from tdpm_cli.training.monitor import Figures


class TrainerState:
    """The networks of a run with their averages and optimizers, the phases that train them, and the counters."""

    def __init__(self, components: Components, device: torch.device) -> None:
        self.components, self.device, self.settings = components, device, components.config.train
        self.averages = self._make_averages()
        if self.settings.shard:
            shard(components.model, device)
            if components.discriminator is not None:
                components.discriminator.to(device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.phases = self._make_phases()
        self.seen = self.step = 0  # training images and steps so far
        self.figures = Figures({})
        use_checkpointing(components.model, self.settings.gradient_checkpointing)
        if self.settings.compile:
            self._compile()

    def _make_averages(self) -> list[EMA[TDPM]]:
        averages: list[EMA[TDPM]] = []
        for half_life in self.settings.ema:
            averages.append(EMA(self.components.model, half_life, self.settings.ema_ramp))
            if self.settings.shard:  # one by one, so that at most two copies are unsharded at a time
                shard(averages[-1].model, self.device)
        return averages

    def _make_phases(self) -> list[Phase]:
        config = self.components.config
        objective: Objective = registry.load("objective", config.train.objective, "train.objective")()
        settings = PhaseSettings(config.adversarial, self._make_optimizer, config.train.clip)
        phases = objective.phases(self.components, settings)
        for phase in phases:
            if phase.on_start is not None:
                phase.on_start = partial(self._start, phase, phase.on_start)
        return phases

    def _start(self, phase: Phase, on_start: Callable[[], None]) -> None:
        """Start a phase, and restart the averages of the weights that it has just set."""
        on_start()
        for average in self.averages:
            average.restart(self.components.model, phase.module)

    def _make_optimizer(self, name: str, module: nn.Module) -> torch.optim.Optimizer:
        settings = self.settings
        lr = {"denoiser": settings.denoiser_lr, "prior": settings.prior_lr,
              "discriminator": settings.discriminator_lr}[name]  # fmt: skip
        betas = settings.denoiser_betas if name == "denoiser" else settings.adversarial_betas
        optimizer = torch.optim.Adam(module.parameters(), lr, (float(betas[0]), float(betas[1])), fused=True)
        optimizer.defaults["base_lr"] = lr
        self.optimizers[name] = optimizer
        return optimizer

    def _compile(self) -> None:
        settings = self.settings
        share = len(distributed.rows(settings.batch))
        size = min(settings.batch_gpu or share, share)
        for network in networks(self.components.model):
            with precision.autocast(settings.precision, self.device)():
                attempt = partial(try_network, self.components, self.device, size, network)
                precision.compile_network(network, attempt)

    def set_learning_rates(self) -> None:
        """Set the learning rates of the next step: linear warm-up, constant, linear cool-down."""
        settings = self.settings
        rising = (self.seen + settings.batch) / settings.warmup if settings.warmup else 1.0
        cooldown = settings.cooldown * settings.duration
        falling = (settings.duration - self.seen) / cooldown if cooldown else 1.0
        factor = min(rising, falling, 1.0)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["base_lr"] * factor

    def seed(self, seen: int, *process: int) -> int:
        """Return the seed of the step that begins after `seen` images, or of one process in this step."""
        return int(np.random.SeedSequence([self.settings.seed, seen, *process]).generate_state(1)[0])

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names of their weights files."""
        named: dict[str, nn.Module | None] = {f"ema-{average.half_life}": average.model for average in self.averages}
        named |= {"model": self.components.model, "discriminator": self.components.discriminator}
        return {name: network for name, network in named.items() if network is not None}

    def snapshot(self) -> Snapshot:
        """Copy everything that the next step depends on to the memory of the host."""
        config = self.components.config
        files = {
            name: (_to_host(weights.tensors_of(network)), header(config, name, self.seen))
            for name, network in self.networks().items()
        }
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        for state in optimizers.values():
            state["state"] = {index: _to_host(moments) for index, moments in state["state"].items()}
        about: formats.TrainingState = {
            "seen": self.seen, "step": self.step, "ema": config.train.ema, "skipped": dict(self.figures.skipped),
            "processes": distributed.size(), "config": config.to_dict(), "config_sha256": config.sha256(),
        }  # fmt: skip
        return Snapshot(self.seen, files, optimizers, about)

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint. Raises InputError for one of other networks."""
        for name, network in self.networks().items():
            path = folder / f"{name}.safetensors"
            weights.load_tensors(network, weights.read_weights(path)[0], str(path))
        state, saved = formats.read_state(folder), formats.read_optimizers(folder)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved[name])
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if value.shape == parameter.shape:  # with the memory layout of the weights
                        moments[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                        distributed.fill(moments[key], value)
        self.seen, self.step, self.figures = state["seen"], state["step"], Figures(state["skipped"])


def _to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU. Sharded ones need all processes; only the first, which writes files, keeps the copy."""
    copies = {}
    for name, tensor in tensors.items():
        value = distributed.full_value(tensor.detach())
        if distributed.is_first():
            copies[name] = value.to("cpu", copy=True, memory_format=torch.contiguous_format)
        else:
            copies[name] = value.to("meta")
    return copies
