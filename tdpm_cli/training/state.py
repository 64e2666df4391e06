"""Everything that changes during training: networks, averages, optimizers and counters, with their snapshots."""

from collections.abc import Callable, Mapping, Sequence
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
from tdpm_cli.engine.phase import Networks, Phase, PhaseSettings
from tdpm_cli.engine.protocols import Objective
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components, header, use_checkpointing
from tdpm_cli.sampling.placement import networks, shard, try_network
from tdpm_cli.training.monitor import Figures
from tdpm_cli.training.stages import Stage, stages_of


class TrainerState:
    """The networks of a run with their averages and optimizers, the phases that train them, and the counters."""

    def __init__(self, components: Components, device: torch.device) -> None:
        self.components, self.device, self.settings = components, device, components.config.train
        self.averages = self._make_averages()
        if self.settings.shard:
            shard(components.model, device)
            for network in (components.discriminator, components.encoder):
                if network is not None:
                    network.to(device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.phases = self._make_phases()
        self._freeze_untrained()
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
        config, phases, trained = self.components.config, list[Phase](), set[int]()
        for stage in stages_of(self.settings):
            objective: Objective = registry.load("objective", stage.objective, "train.objective")()
            make_optimizer = partial(self._make_optimizer, stage)
            settings = PhaseSettings(config.adversarial, make_optimizer, self.settings.clip, stage.start, stage.stop)
            of_stage = objective.phases(self.components, settings)
            for phase in of_stage:
                if phase.on_start is not None or stage.number > 0:
                    phase.on_start = partial(self._start, phase, phase.on_start, frozenset(trained))
            trained |= {id(parameter) for phase in of_stage for parameter in phase.parameters}
            phases += of_stage
        return phases

    def _freeze_untrained(self) -> None:
        """Compute no gradients of weights that no phase trains."""
        trained = {id(parameter) for phase in self.phases for parameter in phase.parameters}
        components = self.components
        for network in (components.model, components.discriminator, components.encoder):
            for parameter in network.parameters() if network is not None else ():
                if id(parameter) not in trained:
                    parameter.requires_grad_(False)

    def _start(self, phase: Phase, on_start: Callable[[], None] | None, trained: frozenset[int]) -> None:
        """Prepare the networks for the first step of a phase: what an earlier stage trained starts from its average.

        Other networks start by `on_start`. The averages restart from the result.
        """
        if any(id(parameter) in trained for parameter in phase.parameters):
            self.averages[0].copy_to(self.components.model, phase.module)
        elif on_start is not None:
            on_start()
        for average in self.averages:
            average.restart(self.components.model, phase.module)

    def _make_optimizer(self, stage: Stage, networks: Networks) -> torch.optim.Optimizer:
        groups = [{"params": network.parameters(), "lr": stage.rates[name], "betas": stage.betas_at(name, stage.start)}
                  for name, network in networks.items()]  # fmt: skip
        optimizer = torch.optim.Adam(groups, fused=True)
        optimizer.defaults["stage"], optimizer.defaults["networks"] = stage, list(networks)
        self.optimizers[f"{stage.prefix}{'-'.join(networks)}"] = optimizer
        return optimizer

    def _compile(self) -> None:
        settings = self.settings
        share = len(distributed.rows(settings.batch))
        size = min(settings.batch_gpu or share, share)
        for network in networks(self.components.model):
            with devices.autocast(settings.precision, self.device)():
                attempt = partial(try_network, self.components, self.device, size, network)
                devices.compile_network(network, attempt)

    def set_rates(self) -> None:
        """Set learning rates and betas of the next step; rates rise, stay and fall within each stage."""
        for optimizer in self.optimizers.values():
            stage: Stage = optimizer.defaults["stage"]
            pace = stage.pace(self.seen, self.settings.batch)
            for name, group in zip(optimizer.defaults["networks"], optimizer.param_groups, strict=True):
                group["lr"], group["betas"] = stage.rates[name] * pace, stage.betas_at(name, self.seen)

    def seed(self, seen: int, *process: int) -> int:
        """Return the seed of the step that begins after `seen` images, or of one process in this step."""
        return int(np.random.SeedSequence([self.settings.seed, seen, *process]).generate_state(1)[0])

    def networks(self) -> dict[str, nn.Module]:
        """Return all networks by the names of their weights files."""
        named: dict[str, nn.Module | None] = {f"ema-{average.half_life}": average.model for average in self.averages}
        named |= {"model": self.components.model, "discriminator": self.components.discriminator,
                  "encoder": self.components.encoder}  # fmt: skip
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
            stage: Stage = optimizer.defaults["stage"]
            parts = [f"{stage.prefix}{network}" for network in optimizer.defaults["networks"]]
            optimizer.load_state_dict(saved[name] if name in saved else _joined([saved[part] for part in parts]))
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if value.shape == parameter.shape:  # with the memory layout of the weights
                        moments[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                        distributed.fill(moments[key], value)
        self.seen, self.step, self.figures = state["seen"], state["step"], Figures(state["skipped"])


def _joined(states: Sequence[formats.StateDict]) -> formats.StateDict:
    """Join the states of optimizers of one network each, as earlier versions saved them, in one of all networks."""
    moments, groups, first = dict[int, dict[str, Tensor]](), list[dict[str, list[int]]](), 0
    for state in states:
        moments |= {first + int(index): values for index, values in state["state"].items()}
        groups += [{**group, "params": [first + k for k in group["params"]]} for group in state["param_groups"]]
        first = 1 + max(k for group in groups for k in group["params"])
    return {"state": moments, "param_groups": groups}


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
