"""`tdpm sample`: write samples of a model to a folder, and continue an unfinished one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.config.constants import FORMATS
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import pieces_of, take
from tdpm_cli.runtime import distributed, grids
from tdpm_cli.runtime.console import ProgressBar, TaskTimes, next_command, print_line
from tdpm_cli.runtime.destinations import check_destination, check_file
from tdpm_cli.runtime.device import compile_network
from tdpm_cli.runtime.device import device as chosen_device
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import Json, writing
from tdpm_cli.runtime.locks import unfinished
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.sampling import build, output
from tdpm_cli.sampling.build import Components, LoadedModel
from tdpm_cli.sampling.conditions import SmallImages, conditions, open_small_images
from tdpm_cli.sampling.options import SampleOptions
from tdpm_cli.sampling.output import OutputFolder
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.sample_store import SAMPLES, SampleArray, SampleImages, SampleStore, begin_samples
from tdpm_cli.sampling.settings import describe, nfe, nfe_text, settings_of
from tdpm_cli.sampling.transfer import on_host

GRID, POINTS = 64, 10_000  # examples that the grid shows, at most
DEFAULT_N = 64
IMAGES_PER_PROMPT = 8  # in the grid, at most


@dataclass(frozen=True)
class Samples:
    """Samples 0..n-1 of a model: how to draw them, and everything that they depend on."""

    loaded: LoadedModel
    settings: SampleConfig
    options: SampleOptions
    n: int
    raw_condition: RawCondition
    small: SmallImages | None
    format: str

    @property
    def components(self) -> Components:
        """The networks, and the parts around them."""
        return self.loaded.components

    def draw(self, piece: range) -> Tensor:
        """Return raw samples [len(piece), *raw_shape] on the model's device."""
        batch = BatchInput(self.options.seed, piece, raw_condition=take(self.raw_condition, piece))
        return sample_batch(self.components, self.settings, batch).raw

    def manifest(self, compiled: bool) -> Json:
        """Return everything that the samples depend on."""
        options, small = self.options, self.small
        return describe(self.loaded, self.settings, options.seed) | {
            "labels": list(options.labels) if options.labels else None,
            "prompts": list(options.prompts) if options.prompts else None,
            "format": self.format,
            "compile": compiled,
            "upsample": None if small is None else {"images": str(options.upsample), "sha256": small.sha256()},
        }

    def conditions(self) -> Json:
        """Return the condition of each sample, but for images."""
        return {
            key: value.tolist() if isinstance(value, Tensor) else value
            for key, value in self.raw_condition.items()
            if key != "low"
        }


@distributed.joined()
def sample(out: Path, options: SampleOptions) -> None:
    """Write samples to `out`, with `samples.json`, and a grid beside the folder.

    Samples of the same settings that exist are kept. Other processes may fill the same folder at the same time. Raises
    InputError for input that does not fit the model, and Interrupted when stopped.
    """
    distributed.from_first(lambda: _check_places(out, options))
    samples = _prepare(out, options)
    model, settings, n = samples.components.model, samples.settings, samples.n
    compiled = options.compile and _compile(model.denoiser.network, lambda: samples.draw(range(min(n, settings.batch))))
    times = TaskTimes()
    store: SampleStore = SampleImages(out, times) if samples.format == "png" else SampleArray(out, n)
    distributed.from_first(
        lambda: begin_samples(store, n, samples.manifest(compiled), samples.conditions(), options.overwrite)
    )
    calls = f"{nfe_text(model, settings)} = {nfe(model, settings)}"
    print_line(f"{samples.loaded.source}: {samples.components.schedule_text}; NFE {calls}")
    # The last batch, which may be smaller, is not worth compiling for.
    with torch.compiler.set_stance("eager_on_recompile") if compiled else nullcontext():
        _fill(store, samples.draw, pieces_of(n, settings.batch), samples.raw_condition.get("label"), times)
    if distributed.is_first():
        grid = grids.save(_grid(samples, store), grid_path(out))
        flag = ["--fid"] if _is_image(samples.components) else []
        print_line(f"done: {n} in {out}, grid {grid}\n" + next_command("tdpm eval", *flag, out))


def grid_path(out: Path) -> Path:
    """Return the path of the grid: beside the folder, which contains samples only."""
    return out.resolve().with_name(f"{out.resolve().name}-grid.png")


def _check_places(out: Path, options: SampleOptions) -> None:
    """Raise InputError for a folder that overlaps the images to enlarge, and for a grid that tdpm did not draw."""
    check_destination(out, [options.upsample])
    begun = OutputFolder(out, SAMPLES).manifest.is_file()
    check_file("the grid", grid_path(out), [options.upsample], overwrite=options.overwrite or begun)


def _prepare(out: Path, options: SampleOptions) -> Samples:
    """Load the model, and check the options before anything is written."""
    loaded = build.load_model(options.model, chosen_device(), options.external)
    components = loaded.components
    begun_in = distributed.from_first(lambda: output.precision_of(out, SAMPLES, options.overwrite))
    precision = options.sampling.get("precision") or begun_in
    settings = settings_of(components, **{**options.sampling, "precision": precision})
    small = open_small_images(components, options.upsample) if options.upsample else None
    n = options.n or (DEFAULT_N if small is None else len(small))
    raw_condition = conditions(components.condition, n, options, small)
    components.condition.encode(take(raw_condition, range(min(n, 1))))  # raises if the text encoder is missing
    is_image = _is_image(components)
    if options.format is not None:
        one_of("--format", options.format, FORMATS)
    if options.format == "png" and not is_image:
        raise InputError("--format png, but the model generates points, not images; use --format npz")
    format = options.format or ("png" if is_image else "npz")
    return Samples(loaded, settings, options, n, raw_condition, small, format)


def _is_image(components: Components) -> bool:
    return len(components.space.raw_shape) == 3


def _compile(network: torch.nn.Module, work: Callable[[], object]) -> bool:
    """Compile the network for batches as those of `work`; return whether that succeeded, in all processes."""
    compiled = compile_network(network, work)
    distributed.agree("compilers", {"torch.compile succeeded": compiled})
    return compiled


def _fill(
    store: SampleStore,
    draw: Callable[[range], Tensor],
    pieces: Sequence[range],
    labels: Tensor | None,
    times: TaskTimes,
) -> None:
    """Draw and write the pieces that are missing and that no other process holds.

    Raises Interrupted when stopped before the end.
    """
    n, out = pieces[-1].stop, store.folder.path
    existing = sum(len(piece) for piece in pieces if store.has(piece))
    locks, is_done, drawn = store.folder.locks, False, deque[range]()
    bar = ProgressBar("sample", n, existing, processes=distributed.size())
    try:
        with bar, Interruption() as interrupted, writing(out):
            stopped = lambda: interrupted.number

            def stream() -> Iterator[Tensor]:
                for piece in unfinished(pieces, store.has, locks, 0, stopped):
                    drawn.append(piece)
                    raw = draw(piece)
                    yield raw.permute(0, 2, 3, 1) if raw.ndim == 4 else raw

            for rows in on_host(stream(), times):
                store.write(piece := drawn.popleft(), rows.numpy())
                bar.advance(len(piece))
            store.wait()
            for _ in unfinished([range(n)], lambda _: store.count() == n, locks, len(pieces), stopped):
                store.finish(pieces, labels)  # in one process
            is_done = store.count() == n and all(map(store.has, pieces))
        if existing < n:
            print_line("time: " + ", ".join(f"{what} {share:.1%}" for what, share in times.shares().items()))
        if not is_done:
            if interrupted.number is None:
                raise InputError(f"{out}: samples were removed while others were drawn; run the same command again")
            raise Interrupted(interrupted.number, f"stopped; run the same command to continue {out}")
    finally:
        locks.close(is_done)


def _grid(samples: Samples, store: SampleStore) -> Image.Image:
    """Draw the first samples: a row for each prompt, or beside the small images that they enlarge."""
    space, prompts = samples.components.space, samples.options.prompts
    raw = store.read(min(samples.n, GRID if _is_image(samples.components) else POINTS))
    if prompts:
        count = len(prompts)
        grid = grids.captioned({
            prompts[k]: space.to_image(raw[k::count][:IMAGES_PER_PROMPT], columns=IMAGES_PER_PROMPT)
            for k in range(min(count, len(raw)))
        })  # fmt: skip
    else:
        grid = space.to_image(raw)
    if samples.small is None:
        return grid
    return grids.side_by_side({"small": space.to_image(samples.raw_condition["low"][:GRID]), "enlarged": grid})
