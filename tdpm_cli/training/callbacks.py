"""What a run does between training steps: log, save checkpoints, draw grids, score. Each is a callback of the loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tdpm_cli.checkpoints.writer import NullWriter, Saver
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.loader import Supply
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed, grids
from tdpm_cli.runtime.console import Log, ProgressBar, print_line, since_the_program_began
from tdpm_cli.sampling.panels import draw_panels
from tdpm_cli.training.divergence import report_divergence
from tdpm_cli.training.health import Variety
from tdpm_cli.training.monitor import Balance
from tdpm_cli.training.stages import Stage, stages_of
from tdpm_cli.training.state import TrainerState

Score = Callable[[TDPM, int], tuple[str, float]]  # averaged model, images seen -> name and value; lower is better

LABELS = {  # of logged values beside the progress bar
    "loss/denoise": "denoise",
    "loss/reconstruction": "reconstruction",
    "loss/kl": "KL",
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
    "gradient/likelihood": "|∇likelihood|",
    "gradient/discriminator": "|∇D|",
    "gradient/penalty": "|∇penalty|",
    "x_0/variety": "variety",
}
OTHERS_SHOWN = ("loss/", "gradient/")  # beginnings of further values that are shown, under their own names


LEARNS = {"loss/prior", "loss/reconstruction"}  # one of these is logged while the prior learns


@dataclass
class Progress:
    """Where the loop is: what callbacks decide by."""

    before: int = 0  # images seen before the latest step
    seen: int = 0  # images seen after it
    steps: int = 0  # since the loop began
    signal: int = 0  # number of the signal that asked training to stop; 0 = none
    finished: bool = False
    due: bool = False  # a checkpoint is due, and not yet saved
    saved: bool = False  # a checkpoint was saved after the latest step

    @property
    def stops(self) -> bool:
        """Whether the latest step is the last one."""
        return self.finished or self.signal > 0

    def passed(self, interval: int) -> bool:
        """Whether the latest step passed a multiple of `interval` images."""
        return self.before // interval < self.seen // interval


class Callback:
    """Hooks of the training loop; a callback overrides those that it needs."""

    def begin(self, progress: Progress) -> None:
        """Called before the first step."""

    def after_step(self, progress: Progress) -> None:
        """Called after every step."""

    def before_data_error(self, progress: Progress) -> None:
        """Called before the loop raises an error of the data."""

    def end(self, progress: Progress) -> None:
        """Called after the last step of a finished run."""


@dataclass
class LogCallback(Callback):
    """Write the means of losses to the log, show progress, warn of imbalance, and stop a run that diverged."""

    state: TrainerState
    data: Dataset
    run: Path
    log: Log | NullWriter
    saver: Saver | NullWriter
    bar: ProgressBar
    supply: Supply
    balance: Balance = field(init=False)
    variety: Variety = field(init=False)
    stages: Sequence[Stage] = field(init=False)

    def __post_init__(self) -> None:
        self.stages = stages_of(self.state.settings)
        self.balance = Balance(self.state.settings.duration)
        self.variety = Variety(self.state, self.data)

    def after_step(self, progress: Progress) -> None:
        """Check the figures of the step before, and log the means when they are due.

        Raises InputError for a run that diverged, and for one that ends without a step that was finite.
        """
        state, settings = self.state, self.state.settings
        stage = next(stage for stage in self.stages if progress.before < stage.stop)
        if progress.steps == 1:
            devices.synchronise(state.device)
            print_line(f"the first step was complete {since_the_program_began():.1f} s after the program began")
        if self._diverged(progress):
            raise report_divergence(state, self.run, self.data, state.figures.bad)
        means: dict[str, float] = {}
        if progress.due or progress.stops or progress.passed(settings.log):
            means = state.figures.means()
            if LEARNS & means.keys():
                means["x_0/variety"] = self.variety.measure()
            with self.saver.tolerating():
                about = {"stage": stage.number + 1, "img/s": self.bar.rate, "loader": self.supply.share()}
                self.log.write(progress.seen, means | about)
            for warning in self.balance.trouble(progress.seen, means):
                print_line(f"warning: by {progress.seen / 1000:g} kimg {warning}")
        if settings.stages:
            self.bar.rename(f"train {state.components.config.preset}: {stage.objective}")
        self.bar.advance(settings.batch, beside_bar(means))

    def _diverged(self, progress: Progress) -> bool:
        """Return whether too many steps in a row were not finite, or all steps of a run that ends."""
        figures = self.state.figures
        if len(figures.bad) >= self.state.settings.max_skipped_steps:
            return True
        if progress.finished:
            figures.read()
        return progress.finished and len(figures.bad) == progress.steps


@dataclass
class CheckpointCallback(Callback):
    """Save a checkpoint every `snapshot` images, at the end, and when a signal stops the run."""

    state: TrainerState
    saver: Saver | NullWriter
    last_save: int = 0  # images seen

    def begin(self, progress: Progress) -> None:
        """Note what the run continues from."""
        self.last_save = progress.seen

    def after_step(self, progress: Progress) -> None:
        """Save if a checkpoint is due and the latest steps were finite: other weights would be of no use."""
        self.saver.check()
        progress.saved = False
        if progress.stops:
            self.saver.last(self.state.snapshot)
        elif progress.due and not self.state.figures.bad:
            self.saver.put(self.state.snapshot)
            self.last_save, progress.due, progress.saved = progress.seen, False, True

    def before_data_error(self, progress: Progress) -> None:
        """Save what was learned since the last checkpoint."""
        if progress.seen > self.last_save:
            self.saver.last(self.state.snapshot)


@dataclass
class GridCallback(Callback):
    """Draw data, data at x_T, the prior's x_T and samples, from fixed seeds, with the averaged weights."""

    state: TrainerState
    data: Dataset
    run: Path
    saver: Saver | NullWriter

    def begin(self, progress: Progress) -> None:
        """Draw what a new run starts from."""
        if progress.seen == 0:
            self._draw(progress.seen)

    def after_step(self, progress: Progress) -> None:
        """Draw with every checkpoint."""
        if progress.saved:
            self._draw(progress.seen)

    def end(self, progress: Progress) -> None:
        """Draw the result."""
        self._draw(progress.seen)

    def _draw(self, seen: int) -> None:
        if not distributed.is_first() and not self.state.settings.shard:  # sharded weights need all processes
            return
        with self.saver.tolerating():
            panels = draw_panels(self.state.components, self.state.averages[0].model, self.data)
            if distributed.is_first():
                grids.save(grids.side_by_side(panels), self.run / "grids" / f"{seen:09d}.png")


@dataclass
class ScoreCallback(Callback):
    """Score the first average with every checkpoint, and keep the checkpoint with the lowest score as the best."""

    state: TrainerState
    score: Score
    log: Log | NullWriter
    saver: Saver | NullWriter
    bar: ProgressBar

    def begin(self, progress: Progress) -> None:
        """Score the checkpoint that the run continues from, if it was stopped before it was scored."""
        settings = self.state.settings
        progress.before = progress.seen - settings.batch
        if progress.seen > 0 and (progress.seen >= settings.duration or progress.passed(settings.snapshot)):
            self._score(progress.seen)

    def after_step(self, progress: Progress) -> None:
        """Score what was saved, and the result."""
        if progress.saved or progress.finished:
            self._score(progress.seen)

    def _score(self, seen: int) -> None:
        if distributed.from_first(lambda: self.log.scored(seen)):
            return
        with self.bar.paused():
            name, value = self.score(self.state.averages[0].model, seen)
        print_line(f"{name} {value:.4g} at {seen / 1000:g} kimg")
        with self.saver.tolerating():
            self.log.write(seen, {f"score/{name}": value})
            self.saver.keep_if_best(seen, name, value)


def make_callbacks(
    state: TrainerState, data: Dataset, run: Path, supply: Supply, score: Score | None
) -> tuple[Sequence[Callback], ProgressBar, Saver | NullWriter, Log | NullWriter]:
    """Return the callbacks of a run in the order in which the loop calls them, and what they write to."""
    settings = state.settings
    saver: Saver | NullWriter = NullWriter(settings.shard)
    log: Log | NullWriter = NullWriter()
    if distributed.is_first():
        saver = Saver(run, settings.keep, settings.on_save_error)
        log = Log(run, state.seen, settings.tensorboard)
    bar = ProgressBar(f"train {state.components.config.preset}", settings.duration, state.seen)
    callbacks: list[Callback] = [
        LogCallback(state, data, run, log, saver, bar, supply),
        CheckpointCallback(state, saver),
        GridCallback(state, data, run, saver),
    ]
    if score is not None:
        callbacks.append(ScoreCallback(state, score, log, saver, bar))
    return callbacks, bar, saver, log


def beside_bar(means: Mapping[str, float]) -> dict[str, float]:
    """Return the logged values that the progress bar shows, with their labels; losses and gradients may have none."""
    values = {
        LABELS.get(key, key): value for key, value in means.items() if key in LABELS or key.startswith(OTHERS_SHOWN)
    }
    skipped = {key: value for key, value in means.items() if key.startswith("skipped/")}
    return values | {f"{key.removeprefix('skipped/')} skipped": value for key, value in skipped.items()}
