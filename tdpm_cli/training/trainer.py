"""Training: everything that changes while a run is trained, the loop that changes it, how it is saved and restored."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints import weights
from tdpm_cli.checkpoints.checkpoint import Snapshot
from tdpm_cli.checkpoints.writer import Idle, Saver
from tdpm_cli.config import registry
from tdpm_cli.config.schema import TrainConfig
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.loader import Supply, batches, order_from
from tdpm_cli.engine.batch import Batch, drop_conditions
from tdpm_cli.engine.ema import EMA
from tdpm_cli.engine.phase import Machine, Phase, PhaseSettings, train_step
from tdpm_cli.engine.protocols import Objective
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import Log, Meter, say, since_the_program_began
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.sampling.build import Components, header, use_checkpointing
from tdpm_cli.sampling.panels import draw_panels
from tdpm_cli.sampling.placement import networks, shard, try_network
from tdpm_cli.training.monitor import Balance, Figures, Step

Scoring = Callable[[TDPM, int], tuple[str, float]]  # averaged model, images seen -> name and value of its score

UNREADABLE = 255  # above every signal's number: a process could not read its part of a batch
SHOWN = {  # of what is logged, beside the progress bar
    "loss/denoise": "denoise",
    "loss/prior": "prior",
    "loss/discriminator": "D",
    "D/real": "D(real)",
    "D/fake": "D(fake)",
    "loss/r1": "R1",
    "loss/r2": "R2",
    "loss/mismatch": "mismatch",
    "gradient/model": "|∇model|",
    "gradient/denoiser": "|∇denoiser|",
    "gradient/prior": "|∇prior|",
    "gradient/discriminator": "|∇D|",
    "gradient/penalty": "|∇penalty|",
    "x_T/spread": "spread",
}


class Trainer:
    """Everything that changes while a run is trained, and how to save and restore it."""

    def __init__(self, made: Components, run: Path, device: torch.device) -> None:
        config, self.made, self.run, self.device = made.config, made, run, device
        self.settings = config.train
        self.ema: list[EMA] = []
        for half_life in config.train.ema:
            self.ema.append(EMA(made.model, half_life, config.train.ema_ramp))
            if self.settings.shard:  # one at a time: at most two copies are whole at once
                shard(self.ema[-1].model, device)
        if self.settings.shard:
            shard(made.model, device)
            if made.discriminator is not None:
                made.discriminator.to(device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        objective: Objective = registry.load("objective", config.train.objective, "train.objective")()
        phase_settings = PhaseSettings(config.adversarial, self._optimizer, config.train.clip)
        self.phases: list[Phase] = objective.phases(made, phase_settings)
        for phase in self.phases:
            if phase.on_start is not None:
                phase.on_start = partial(self._start, phase, phase.on_start)
        self.seen = self.step = 0
        self.figures = Figures({})
        use_checkpointing(made.model, config.train.gradient_checkpointing)
        if config.train.compile:
            share = len(distributed.rows(config.train.batch))
            size = min(config.train.batch_gpu or share, share)
            for network in networks(made.model):
                with precision.autocast(config.train.precision, device)():
                    precision.compile_network(network, partial(try_network, made, device, size, network))

    def _start(self, phase: Phase, begin: Callable[[], None]) -> None:
        """Start a phase, and the averages of what it starts with."""
        begin()
        for ema in self.ema:
            ema.restart(self.made.model, phase.module)

    def _optimizer(self, name: str, module: nn.Module) -> torch.optim.Optimizer:
        lr = {
            "denoiser": self.settings.denoiser_lr,
            "prior": self.settings.prior_lr,
            "discriminator": self.settings.discriminator_lr,
        }[name]
        betas = self.settings.denoiser_betas if name == "denoiser" else self.settings.adversarial_betas
        optimizer = torch.optim.Adam(module.parameters(), lr, (float(betas[0]), float(betas[1])), fused=True)
        optimizer.defaults["base_lr"] = lr
        self.optimizers[name] = optimizer
        return optimizer

    def fit(self, data: Any, scoring: Scoring | None = None) -> None:
        """Train until `duration`, saving every `snapshot` images, at the end and when interrupted.

        `scoring` scores the checkpoints that are due and the last; the one with the lowest score is kept apart.
        """
        settings, figures, last_save = self.settings, self.figures, self.seen
        cast, balance = precision.autocast(settings.precision, self.device), Balance(settings.duration)
        stream = batches(data, settings.batch, settings.seed, self.seen, flip=settings.flip, workers=settings.workers,
                         rows=distributed.rows(settings.batch))  # fmt: skip
        saver: Saver | Idle = Idle(settings.shard)
        log: Log | Idle = Idle()
        if distributed.is_first():
            saver = Saver(self.run, settings.keep, settings.on_save_error)
            log = Log(self.run, self.seen, settings.tensorboard)
        meter = Meter(f"train {self.made.config.preset}", settings.duration, self.seen)
        with closing(stream), closing(saver), closing(log), meter, Interruption() as interrupted:
            if self.seen == 0:
                with saver.tolerating():
                    self._grid(data)
            elif self.seen >= settings.duration or self._passed(self.seen - settings.batch, settings.snapshot):
                self._score(scoring, saver, log, meter)  # unless that was done before the run was stopped
            supply, due, first_step = Supply(stream), False, self.step + 1
            while self.seen < settings.duration:
                before, item = self.seen, supply.next()
                own_stop = UNREADABLE if isinstance(item, InputError) else interrupted.number or 0
                stop = distributed.largest(own_stop)
                if stop == UNREADABLE and self.seen > last_save:  # what was learned is not lost
                    saver.last(self.snapshot)
                if isinstance(item, InputError):
                    raise item
                if stop == UNREADABLE:
                    raise distributed.PeerLost("another process could not read its data, and says why")
                logs = self.train_on(*item, cast)
                if self.step == first_step:
                    precision.synchronise(self.device)
                    say(f"first step done {since_the_program_began():.1f} s after the program began")
                figures.add(self.seen, logs)
                if len(figures.bad) >= settings.max_skipped_steps:
                    raise self._diverged(data, figures.bad)
                finished = self.seen >= settings.duration
                due = due or self._passed(before, settings.snapshot)
                means: dict[str, float] = {}
                if due or finished or stop or self._passed(before, settings.log):
                    means = figures.means()
                    with saver.tolerating():
                        log.write(self.seen, {**means, "img/s": meter.rate, "loader": supply.share()})
                    for sign in balance.trouble(self.seen, means):
                        say(f"warning: by {self.seen / 1000:g} kimg {sign}")
                meter.advance(settings.batch, shown(means))
                saver.check()
                if finished or stop:
                    saver.last(self.snapshot)
                elif due and not figures.bad:  # weights that led to what is not finite would be no use
                    saver.put(self.snapshot)
                    last_save, due = self.seen, False
                    with saver.tolerating():
                        self._grid(data)
                    self._score(scoring, saver, log, meter)
                if stop and not finished:
                    raise Interrupted(
                        stop, f"stopped at {self.seen / 1000:g} kimg, saved in {self.run}; the same command continues"
                    )
                if finished:
                    self._score(scoring, saver, log, meter)
            with saver.tolerating():
                self._grid(data)

    def _score(self, scoring: Scoring | None, saver: Saver | Idle, log: Log | Idle, meter: Meter) -> None:
        """Score the first average as it is now, unless its checkpoint has a score; keep that one if it is the best."""
        if scoring is None or distributed.from_first(lambda: log.scored(self.seen)):
            return
        with meter.paused():
            name, value = scoring(self.ema[0].model, self.seen)
        say(f"{name} {value:.4g} at {self.seen / 1000:g} kimg")
        with saver.tolerating():
            log.write(self.seen, {f"score/{name}": value})
            saver.keep_if_best(self.seen, name, value)

    def train_on(self, raw: Tensor, conditions: RawCondition, cast: Any) -> dict[str, Tensor]:
        """One step: every phase that is due, then the averages."""
        made, settings = self.made, self.settings
        # All of a step's randomness follows from (seed, seen), so there is no generator state to save. Dropout
        # draws from torch's global generator, and is its only user; like the choice of captions, in each process anew.
        total = len(raw) * distributed.size()
        generator = torch.Generator(self.device).manual_seed(self._seed(self.seen))
        of_process = self._seed(self.seen, distributed.rank() + 1)
        torch.manual_seed(of_process)
        chooser = torch.Generator(self.device).manual_seed(of_process)
        x = made.space.encode(raw.to(self.device, non_blocking=True), chooser)
        told = made.condition.encode({**conditions, "raw": raw}, chooser)
        cond = {key: value.to(self.device) for key, value in told.items()}

        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["base_lr"] * self._pace()
        whole = drop_conditions(Batch(x, cond, generator, distributed.rank() * len(x), total), made.condition)
        batches = whole.split(settings.batch_gpu or len(x))
        try:
            logs = train_step(
                self.phases, batches, self.step, self.seen, Machine(cast, distributed.averaged, distributed.whole)
            )
        except (torch.OutOfMemoryError, RuntimeError) as error:
            raise _out_of_memory(error, len(batches[0].x), settings) or distributed.lost(error) or error from None
        self.seen += total
        self.step += 1
        for ema in self.ema:
            ema.update(made.model, total, self.seen)
        return distributed.mean(logs)

    def _seed(self, seen: int, *process: int) -> int:
        """Of the step that begins after `seen` images; and of a process alone."""
        return int(np.random.SeedSequence([self.settings.seed, seen, *process]).generate_state(1)[0])

    def rehearse(self, data: Any, run_in: float, most: float) -> tuple[float, int]:
        """Images a second of a few real steps, and how many there were; with smaller batches where steps are slow.

        At least one step, and at most about `most` seconds of them; the first, which warms up, counts only where it
        takes more than `run_in` seconds.
        """
        cast = precision.autocast(self.settings.precision, self.device)
        full = self.settings.batch // distributed.size()
        size = min(self.settings.batch_gpu or full, 4)
        spent, count = 0.0, 0
        while True:
            self.step = 1  # a step without the lazy penalty, as most are
            raw, conditions = data[[k % len(data) for k in range(size)]]
            begin = time.perf_counter()
            self.train_on(raw, conditions, cast)
            precision.synchronise(self.device)
            took = distributed.from_first(lambda begin=begin: time.perf_counter() - begin)  # type: ignore[misc]
            if took > run_in or size == full:
                spent, count = spent + took, count + size
            if spent > most or count >= 8 * size:
                return count * distributed.size() / spent, count * distributed.size()
            if took < run_in:
                size = full

    def _pace(self) -> float:
        """The share of the full learning rates at which the next step learns."""
        settings = self.settings
        rising = (self.seen + settings.batch) / settings.warmup if settings.warmup else 1.0
        last = settings.cooldown * settings.duration
        falling = (settings.duration - self.seen) / last if last else 1.0
        return min(rising, falling, 1.0)

    def _passed(self, before: int, interval: int) -> bool:
        return before // interval < self.seen // interval

    def _diverged(self, data: Any, bad: Sequence[Step]) -> InputError:
        """Write down what is known of steps that were not finite; return what to tell the user."""
        settings, config = self.settings, self.made.config
        order = lambda seen: order_from(data, settings.batch, settings.seed, seen, flip=settings.flip)
        nets = {"model": self.made.model, "discriminator": self.made.discriminator}
        named = [(f"{name}.{key}", p) for name, net in nets.items() if net for key, p in net.named_parameters()]
        norms = lambda tensors: {
            key: float(distributed.whole(tensor.detach()).norm()) for key, tensor in tensors if tensor is not None
        }
        steps = [
            {"seen": step.seen, "seed": self._seed(step.seen - settings.batch), "not finite": step.bad,
             "examples": next(order(step.seen - settings.batch)), "values": {k: str(v) for k, v in step.values.items()}}
            for step in bad
        ]  # fmt: skip
        found = {
            "steps": steps,
            "weights": norms(named),
            "gradients": {key: str(value) for key, value in norms((key, p.grad) for key, p in named).items()},
            "config": config.to_dict(),
        }
        path = self.run / f"diverged-{self.seen:09d}.json"
        if distributed.is_first():
            write_text(path, json.dumps(found, indent=1))
        named_bad = ", ".join(sorted({key for step in bad for key in step.bad}))
        return InputError(
            f"{named_bad} became infinite or NaN in {len(bad)} steps in a row, by {self.seen / 1000:g} kimg; none of "
            f"these updates was made, and the last checkpoint in {self.run} is sound. {path} tells all that is known. "
            "Lower train.denoiser_lr or train.discriminator_lr, raise adversarial.r1, or set train.clip=1"
        )

    def _nets(self) -> dict[str, nn.Module]:
        """All networks, by the names of their files."""
        nets: dict[str, nn.Module | None] = {f"ema-{ema.half_life}": ema.model for ema in self.ema}
        nets |= {"model": self.made.model, "discriminator": self.made.discriminator}
        return {name: net for name, net in nets.items() if net is not None}

    def snapshot(self) -> Snapshot:
        """Copy everything that the next step depends on to the host's memory."""
        config = self.made.config
        copied = lambda tensors: {key: host_copy(tensor) for key, tensor in tensors.items()}
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return Snapshot(
            self.seen,
            {name: (copied(weights.tensors_of(net)), header(config, name, self.seen))
             for name, net in self._nets().items()},
            {name: {**state, "state": {k: copied(moments) for k, moments in state["state"].items()}}
             for name, state in states.items()},
            {"seen": self.seen, "step": self.step, "ema": config.train.ema, "skipped": dict(self.figures.skipped),
             "processes": distributed.size(), "config": config.to_dict(), "config_sha256": config.sha256()},
        )  # fmt: skip

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        for name, net in self._nets().items():
            path = folder / f"{name}.safetensors"
            weights.load_tensors(net, weights.read_weights(path)[0], str(path))
        state, states = formats.read_state(folder), formats.read_optimizers(folder)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(states[name])
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if value.shape == parameter.shape:  # laid out in memory as the weights are
                        moments[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                        distributed.fill(moments[key], value)
        self.seen, self.step, self.figures = state["seen"], state["step"], Figures(state["skipped"])

    def _grid(self, data: Any) -> None:
        """Draw data, data at x_T, the prior's x_T and samples, from fixed seeds, with the averaged weights."""
        if not distributed.is_first() and not self.settings.shard:  # sharded weights need all processes
            return
        panels = draw_panels(self.made, self.ema[0].model, data)
        if distributed.is_first():
            pictures.save(pictures.side_by_side(panels), self.run / "grids" / f"{self.seen:09d}.png")


def host_copy(tensor: Tensor) -> Tensor:
    """A copy in the memory of the CPU, as files hold it. All processes take part where it is sharded, and only the
    first one, which writes files, keeps it."""
    found = distributed.whole(tensor.detach())
    if not distributed.is_first():
        return found.to("meta")
    return found.to("cpu", copy=True, memory_format=torch.contiguous_format)


def shown(means: Mapping[str, float]) -> dict[str, float]:
    """What of the logged numbers stands beside the progress bar."""
    skipped = {f"{name} skipped": value for key, value in means.items() for kind, _, name in [key.partition("/")]
               if kind == "skipped"}  # fmt: skip
    return {SHOWN[key]: value for key, value in means.items() if key in SHOWN} | skipped


def _out_of_memory(error: Exception, size: int, settings: TrainConfig) -> InputError | None:
    """What to try where memory is short; None for another error."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return None
    smaller = next((n for n in range(size // 2, 1, -1) if settings.batch % n == 0), None)
    tried = smaller_batches([smaller] if smaller else [], settings)
    return InputError(f"out of memory with {size} images at a time; try {tried} (--dry-run estimates memory)")


def smaller_batches(fitting: Sequence[int], settings: TrainConfig) -> str:
    """What to set where memory is short; `fitting` are batches that would do, the largest first."""
    advice = [f"--batch-gpu {fitting[0]}"] if fitting else []
    advice += [] if settings.gradient_checkpointing else ["--set train.gradient_checkpointing=true"]
    return " or ".join(advice) or "a smaller backbone"
