"""tdpm train: one loop that runs whatever list of phases it is given."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdpm_cli import config as configuration
from tdpm_cli.assemble import Assembly, assemble, header, read_data, use_checkpointing
from tdpm_cli.config import Config, TrainConfig
from tdpm_cli.cost import cost_of
from tdpm_cli.engine.ema import EMA
from tdpm_cli.engine.model import TDPM
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.phases import Batch, Game, Phase, tdpm_phases, train_step
from tdpm_cli.errors import InputError
from tdpm_cli.imaging.arrays import fingerprint_of
from tdpm_cli.run import checkpoint, pictures, precision
from tdpm_cli.run.batches import batches
from tdpm_cli.run.files import write_text
from tdpm_cli.run.report import Log, Meter, say, summary_writer, table
from tdpm_cli.run.signals import Interrupted, Interruption
from tdpm_cli.sampling import sampler_options

GRID = 64  # examples in a grid; a quarter of it where they are larger than 64 pixels
CACHED = 0.25  # of the free memory that decoded images may fill
RUN_IN, REHEARSAL = 1.0, 10.0  # seconds: a step that takes longer is measured at once; and of all measured steps
DATA = "data.json"  # in a run: what its data were when it began
MAY_CHANGE = ("preset", "train.duration", "train.workers", "train.keep", "train.log", "train.tensorboard",
              "train.batch_gpu", "train.gradient_checkpointing", "train.cache",
              "data.path", "data.download", "data.quarantine")  # fmt: skip
NOT_OF_TRAINING = ("sample.", "eval.")  # sections that weights do not depend on
SHOWN = {  # of what is logged, beside the progress bar
    "loss/denoise": "denoise",
    "loss/prior": "prior",
    "loss/discriminator": "D",
    "D/real": "D(real)",
    "D/fake": "D(fake)",
    "loss/r1": "R1",
    "gradient/model": "|∇model|",
    "gradient/denoiser": "|∇denoiser|",
    "gradient/prior": "|∇prior|",
    "gradient/discriminator": "|∇D|",
}


def train(
    config: Config,
    outdir: Path = Path("runs"),
    name: str | None = None,
    resume: str = "auto",
    dry_run: bool = False,
) -> Path | None:
    """Train a run, or continue it, until `train.duration` images were seen; return its folder.

    `resume` is "auto" (continue the run of this name if there is one), "never" (begin another beside it) or
    the path of a run or checkpoint. Raises InputError for input that does not fit, before anything is written,
    and Interrupted once an interrupted run is saved.
    """
    device = precision.device()
    config = _set_train(config, precision=precision.resolve(config.train.precision, device))
    data, config = read_data(config)
    made = assemble(config, device)
    run, start = _place(outdir, name or config.preset, resume)
    if start is not None:
        _same_config(run, config)
    _announce(made, data, run)
    if config.train.tensorboard:
        summary_writer()
    made.condition.encode(data[range(min(GRID, len(data)))][1])  # what cannot be read fails before a folder is made
    trainer = Trainer(made, run, device)
    if dry_run:
        _rehearse(trainer, data)
        say("dry run: nothing was written\nnext: the same command without --dry-run")
        return None
    record = _record(data)
    if start is not None:
        _same_data(run, record)
    if start is not None:
        trainer.restore(start)
        say(f"continuing {run} at {trainer.seen / 1000:g} kimg")
    write_text(run / "config.yaml", config.to_yaml())
    write_text(run / DATA, json.dumps(record, indent=1))
    if config.train.cache and hasattr(data, "keep_in_memory"):
        data.keep_in_memory(CACHED * precision.free_memory(torch.device("cpu")))
    trainer.fit(data)
    say(f"done: {run}\nnext: tdpm sample --model {run} --steps {config.sample.steps} --n 64 samples/")
    return run


class Trainer:
    """Everything that changes while a run is trained, and how to save and restore it."""

    def __init__(self, made: Assembly, run: Path, device: torch.device) -> None:
        config, self.made, self.run, self.device = made.config, made, run, device
        self.settings = config.train
        self.ema = [EMA(made.model, half_life, config.train.ema_ramp) for half_life in config.train.ema]
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.phases: list[Phase] = tdpm_phases(
            made.model, made.discriminator, made.condition, Game(**vars(config.game)),
            self._optimizer, config.train.clip,
        )  # fmt: skip
        for phase in self.phases:
            if phase.on_start is not None:
                phase.on_start = partial(self._start, phase, phase.on_start)
        self.seen = self.step = 0
        use_checkpointing(made.model, config.train.gradient_checkpointing)
        if config.train.compile:
            made.model.denoiser.network.compile()

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
        betas = self.settings.denoiser_betas if name == "denoiser" else self.settings.game_betas
        optimizer = torch.optim.Adam(module.parameters(), lr, (float(betas[0]), float(betas[1])), fused=True)
        optimizer.defaults["base_lr"] = lr
        self.optimizers[name] = optimizer
        return optimizer

    def fit(self, data: Any) -> None:
        """Train until `duration`, saving every `snapshot` images, at the end and when interrupted."""
        settings, config = self.settings, self.made.config
        stream = batches(data, settings.batch, settings.seed, self.seen, flip=settings.flip, workers=settings.workers)
        log = Log(self.run, self.seen, settings.tensorboard)
        cast = precision.autocast(settings.precision, self.device)
        sums: dict[str, list[Tensor]] = {}
        begun = self.seen
        if self.seen == 0:
            self._grid(data)
        with (
            Meter(f"train {config.preset}", settings.duration, self.seen) as meter,
            Interruption() as interrupted,
        ):
            waited, since = 0.0, time.perf_counter()
            while self.seen < settings.duration:
                asked = time.perf_counter()
                try:
                    raw, conditions = next(stream)
                except InputError:  # such as a damaged image: what was learned is not lost
                    if self.seen > begun:
                        self.save()
                    raise
                waited += time.perf_counter() - asked
                before = self.seen
                for key, value in self._train_on(raw, conditions, cast).items():
                    sums.setdefault(key, []).append(value)
                means: dict[str, float] = {}
                saving = self._passed(before, settings.snapshot) or self.seen >= settings.duration or interrupted.number
                if saving or self._passed(before, settings.log):
                    means = {key: float(torch.stack(values).mean()) for key, values in sums.items()}
                    sums.clear()
                    self._finite(means)
                    share = waited / (time.perf_counter() - since)
                    waited, since = 0.0, time.perf_counter()
                    log.write(self.seen, {**means, "img/s": meter.rate, "loader": share})
                shown = {SHOWN[key]: value for key, value in means.items() if key in SHOWN}
                meter.advance(settings.batch, shown)
                if saving:
                    self.save()
                    self._grid(data)
                if interrupted.number and self.seen < settings.duration:
                    log.close()
                    stream.close()
                    raise Interrupted(
                        interrupted.number,
                        f"stopped at {self.seen / 1000:g} kimg, saved in {self.run}; the same command continues",
                    )
        log.close()

    def _train_on(self, raw: Tensor, conditions: Mapping[str, Tensor], cast: Any) -> dict[str, Tensor]:
        """One step: every phase that is due, then the averages."""
        made, settings = self.made, self.settings
        # All of a step's randomness follows from (seed, seen), so there is no generator state to save. Dropout
        # draws from torch's global generator, and is its only user.
        number = int(np.random.SeedSequence([settings.seed, self.seen]).generate_state(1)[0])
        torch.manual_seed(number)
        generator = torch.Generator(self.device).manual_seed(number)
        x = made.space.encode(raw.to(self.device, non_blocking=True))
        cond = {key: value.to(self.device) for key, value in made.condition.encode(conditions).items()}

        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["base_lr"] * self._pace()
        batches = Batch(x, cond, generator).split(settings.batch_gpu or len(x))
        try:
            logs = train_step(self.phases, batches, self.step, self.seen, cast)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            raise _out_of_memory(error, len(batches[0].x), settings) or error from None
        self.seen += len(x)
        self.step += 1
        for ema in self.ema:
            ema.update(made.model, len(x), self.seen)
        return logs

    def rehearse(self, data: Any, run_in: float, most: float) -> tuple[float, int]:
        """Images a second of a few real steps, and how many there were; with smaller batches where steps are slow.

        At least one step, and at most about `most` seconds of them; the first, which warms up, counts only where it
        takes more than `run_in` seconds.
        """
        cast = precision.autocast(self.settings.precision, self.device)
        size = min(self.settings.batch_gpu or self.settings.batch, 4)
        spent, count = 0.0, 0
        while True:
            self.step = 1  # a step without the lazy penalty, as most are
            raw, conditions = data[[k % len(data) for k in range(size)]]
            begin = time.perf_counter()
            self._train_on(raw, conditions, cast)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            took = time.perf_counter() - begin
            if took > run_in or size == self.settings.batch:
                spent, count = spent + took, count + size
            if spent > most or count >= 8 * size:
                return count / spent, count
            if took < run_in:
                size = self.settings.batch

    def _pace(self) -> float:
        """The share of the full learning rates at which the next step learns."""
        settings = self.settings
        rising = (self.seen + settings.batch) / settings.warmup if settings.warmup else 1.0
        last = settings.cooldown * settings.duration
        falling = (settings.duration - self.seen) / last if last else 1.0
        return min(rising, falling, 1.0)

    def _passed(self, before: int, interval: int) -> bool:
        return before // interval < self.seen // interval

    def _finite(self, means: Mapping[str, float]) -> None:
        bad = [key for key, value in means.items() if not math.isfinite(value)]
        if bad:
            raise InputError(
                f"{', '.join(bad)} became infinite or NaN by {self.seen / 1000:g} kimg; the last checkpoint in "
                f"{self.run} is sound. Lower train.denoiser_lr or train.discriminator_lr, raise game.r1, or set "
                "train.clip=1"
            )

    def save(self) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        config = self.made.config

        def write(folder: Path) -> Mapping[str, Any]:
            for half_life, ema in zip(config.train.ema, self.ema, strict=True):
                name = f"ema-{half_life}"
                checkpoint.write_weights(folder / f"{name}.safetensors", ema.model, header(config, name, self.seen))
            nets = {"model": self.made.model, "discriminator": self.made.discriminator}
            for name, net in nets.items():
                if net is not None:
                    checkpoint.write_weights(folder / f"{name}.safetensors", net, header(config, name, self.seen))
            torch.save({name: o.state_dict() for name, o in self.optimizers.items()}, folder / "optimizers.pt")
            return {"format": 1, "seen": self.seen, "step": self.step, "ema": config.train.ema}

        checkpoint.save(self.run, self.seen, write, config.train.keep)

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        nets: dict[str, nn.Module | None] = {
            "model": self.made.model,
            "discriminator": self.made.discriminator,
        }
        nets |= {f"ema-{ema.half_life}": ema.model for ema in self.ema}
        for name, net in nets.items():
            if net is not None:
                path = folder / f"{name}.safetensors"
                checkpoint.load_state(net, checkpoint.read_weights(path)[0], str(path))
        self.seen, self.step = checkpoint.position(folder)
        states = torch.load(folder / "optimizers.pt", map_location=self.device, weights_only=True)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(states[name])

    def _grid(self, data: Any) -> None:
        """Draw data, data at x_T, the prior's x_T and samples, from fixed seeds, with the averaged weights."""
        panels = draw_panels(self.made, self.ema[0].model, data, self.device)
        pictures.save(pictures.side_by_side(panels), self.run / "grids" / f"{self.seen:09d}.png")


@torch.inference_mode()
def draw_panels(made: Assembly, model: TDPM, data: Any, device: torch.device) -> dict[str, Any]:
    """Pictures of the data, of x_T as the data and as the prior give it, and of the samples."""
    space, sample, schedule = made.space, made.config.sample, model.denoiser.schedule
    count = 4096 if len(space.shape) != 3 else GRID if max(space.shape) <= 64 else GRID // 4
    count = min(count, len(data))
    picked = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    training, _ = model.training, model.eval()
    panels: dict[str, list[Tensor]] = {"data": [], f"data at T = {schedule.T}": [], "prior": [], "samples": []}
    for start in range(0, count, sample.batch):
        chosen = range(start, min(start + sample.batch, count))
        noise = Noise(0, chosen, device)
        raw, conditions = data[picked[start : chosen.stop]]
        x_0 = space.encode(raw.to(device))
        real = schedule.q_sample_T(x_0, noise.normal(space.shape))
        cond = {key: value.to(device) for key, value in made.condition.encode(conditions).items()}
        x_T = model.draw_x_T(noise, cond)
        drawn = model.decode(
            x_T, noise, cond,
            null={key: value.to(device) for key, value in made.condition.null(len(x_T)).items()},
            bounds=space.bounds, **sampler_options(sample),
        )  # fmt: skip
        for panel, x in zip(panels.values(), (x_0, real, x_T, drawn), strict=True):
            panel.append(x.cpu())
    model.train(training)
    return {title: space.picture(space.decode(torch.cat(x))) for title, x in panels.items()}


def _place(outdir: Path, name: str, resume: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint to continue from, if any."""
    run = outdir / name
    if resume == "never":
        taken = (outdir / f"{name}-{k}" for k in range(2, 1_000_000))
        return (run if not run.exists() else next(path for path in taken if not path.exists())), None
    if resume != "auto":
        folder = Path(resume)
        if (folder / "state.json").is_file():
            run = folder.parent.parent
            if newer := [path.name for path in checkpoint.steps(run) if path.name > folder.name]:
                raise InputError(
                    f"--resume {resume}: the run has newer checkpoints ({', '.join(newer)}), which would be taken up "
                    "again; move them away to go back, or resume the run itself"
                )
            return run, folder
        if not checkpoint.steps(folder):
            raise InputError(f"--resume {resume}: neither a run with a checkpoint nor a checkpoint; or: auto, never")
        run = folder
    saved = checkpoint.steps(run)
    return run, saved[-1] if saved else None


def _same_config(run: Path, config: Config) -> None:
    """Refuse to continue a run with another config, naming the differences."""
    path = run / "config.yaml"
    now = _flat(config.to_dict())
    # Through Config, for keys that are newer than the run had their default's effect.
    plain = configuration.read_yaml(path.read_text(), str(path)) if path.is_file() else {}
    before = _flat(configuration.from_dict(plain).to_dict()) if plain else {}
    differing = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    listed = [f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in sorted(differing)
              if key not in MAY_CHANGE and not key.startswith(NOT_OF_TRAINING)]  # fmt: skip
    if listed:
        raise InputError(
            f"{run} was trained with another config:\n  " + "\n  ".join(listed)
            + "\nContinue it with the same settings, or begin another with --name or --resume never."
        )  # fmt: skip


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        flat |= {f"{section}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {section: value}
    return flat


def _out_of_memory(error: Exception, size: int, settings: TrainConfig) -> InputError | None:
    """What to try where memory is short; None for another error."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return None
    smaller = next((n for n in range(size // 2, 1, -1) if settings.batch % n == 0), None)
    tried = _smaller([smaller] if smaller else [], settings)
    return InputError(f"out of memory with {size} images at a time; try {tried} (--dry-run estimates memory)")


def _record(data: Any) -> dict[str, Any]:
    """What a run's data were when it began."""
    quarantined = getattr(getattr(data, "files", None), "quarantined", 0)
    return {"examples": len(data), "quarantined": quarantined, "fingerprint": fingerprint_of(data)}


def _same_data(run: Path, record: Mapping[str, Any]) -> None:
    """Refuse to continue a run with other data than it began with."""
    path = run / DATA
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); move it away if the data are surely the same") from None
    if before.get("fingerprint") != record["fingerprint"]:
        raise InputError(
            f"the data have changed since {run} began: {before.get('examples'):,} examples then, "
            f"{record['examples']:,} now, and not the same ones. Give the same data, or begin another run with --name"
        )
    if before.get("quarantined") != record["quarantined"]:
        say(f"note: {record['quarantined']:,} images are in quarantine, {before.get('quarantined'):,} when the run "
            "began or last continued; the order of the images is another from here on")  # fmt: skip


def _rehearse(trainer: "Trainer", data: Any) -> None:
    """Print what the run would cost, and how fast a few steps are here."""
    config, settings = trainer.made.config, trainer.settings
    cost, size = cost_of(config), settings.batch_gpu or settings.batch
    rate, count = trainer.rehearse(data, RUN_IN, REHEARSAL)
    GiB, MiB = 2**30, 2**20
    total = (cost.state_bytes + size * cost.activation_bytes) / GiB
    free = precision.free_memory(trainer.device) / GiB
    fitting = [n for n in range(size, 1, -1)
               if settings.batch % n == 0 and (cost.state_bytes + n * cost.activation_bytes) / GiB <= free]  # fmt: skip
    rows = {
        "parameters": f"{cost.model / 1e6:.4g} M, discriminator {cost.discriminator / 1e6:.4g} M",
        "compute": f"{cost.call_flops / 1e9:.4g} GFLOP a network call, "
        f"{cost.step_flops / 1e9:.4g} GFLOP an image trained",
        "memory": f"at most about {total:.3g} GiB: {cost.state_bytes / GiB:.3g} for weights, averages and optimizers, "
        f"and {cost.activation_bytes / MiB:.4g} MiB for each of {size} images at a time",
        "free here": f"{free:.3g} GiB" + ("" if total <= free else ": too little; try " + _smaller(fitting, settings)),
        "speed here": f"{rate:.3g} images a second ({count} images on {trainer.device}, {settings.precision})",
        "time here": f"{_duration(settings.duration / rate)} for {settings.duration / 1000:g} kimg",
    }
    table("cost", [{"": key, " ": value} for key, value in rows.items()])


def _smaller(fitting: Sequence[int], settings: TrainConfig) -> str:
    advice = [f"--batch-gpu {fitting[0]}"] if fitting else []
    advice += [] if settings.gradient_checkpointing else ["--set train.gradient_checkpointing=true"]
    return " or ".join(advice) or "a smaller backbone"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _set_train(config: Config, **settings: Any) -> Config:
    return replace(config, train=replace(config.train, **settings))


def _announce(made: Assembly, data: Any, run: Path) -> None:
    config = made.config
    count: Sequence[nn.Module | None] = (made.model, made.discriminator)
    model, discriminator = (sum(p.numel() for p in net.parameters()) if net else 0 for net in count)
    rows = {
        "data": f"{config.data.name}: {len(data):,} of {' × '.join(map(str, made.space.raw_shape))}",
        "cut": made.schedule_text,
        "model": f"{model / 1e6:.3g} M parameters, prior {config.prior.name!r}",
        "discriminator": f"{discriminator / 1e6:.3g} M parameters" if discriminator else "none",
        "train": f"{config.train.duration / 1000:g} kimg, batch {config.train.batch}, {config.train.precision}",
        "run": str(run),
    }
    table(f"tdpm train {config.preset}", [{"": key, " ": value} for key, value in rows.items()])
    for note in getattr(data, "notes", []):
        say(f"note: {note}")
