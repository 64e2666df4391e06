"""tdpm sample: examples from seeds to files, continued where it stopped."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.config.constants import FORMATS
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import take
from tdpm_cli.data.stored_images import StoredImages, open_stored
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Condition
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import Meter, Spent, say
from tdpm_cli.runtime.device import compile_network
from tdpm_cli.runtime.device import device as chosen_device
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import writing
from tdpm_cli.runtime.locks import WorkLocks, unfinished
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.sampling import build, output
from tdpm_cli.sampling import sample_folder as samples
from tdpm_cli.sampling.build import Components
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.settings import describe, nfe, nfe_text, settings_of

GRID, POINTS = 64, 10_000  # examples in the picture


@distributed.joined()
def sample(
    out: Path,
    n: int | None = None,
    model: Path | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    spacing: float | None = None,
    sampler: str | None = None,
    eta: float | None = None,
    batch: int | None = None,
    precision: str | None = None,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    upsample: Path | None = None,
    guidance_scale: float | None = None,
    prior_guidance_scale: float | None = None,
    format: str | None = None,
    compile: bool = False,
    overwrite: bool = False,
) -> None:
    """Write examples 0..n-1 of `seed` to `out`, with `samples.json`, and a grid beside the folder.

    `upsample` is a folder of smaller images, of which a model that enlarges takes the first n, or all. `compile` has
    the network compiled by PyTorch, which rounds differently: a pixel in many may come out one step brighter or darker.

    What is None comes from the model's preset. Samples already there are kept, if they were made with the same
    settings; other processes may fill the same folder at the same time. Raises InputError for input that does not fit,
    and Interrupted when stopped.
    """
    device = chosen_device()
    loaded = build.load_model(model, device)
    made = loaded.components
    begun_in = distributed.from_first(lambda: None if overwrite else samples.read_manifest(out).get("precision"))
    settings = settings_of(
        made,
        steps=steps,
        spacing=spacing,
        sampler=sampler,
        guidance_scale=guidance_scale,
        prior_guidance_scale=prior_guidance_scale,
        batch=batch,
        eta=eta,
        precision=precision or begun_in,
    )
    asked = {"--labels": labels, "--prompt": prompts}
    smaller = _to_enlarge(made.condition, upsample) if upsample else None
    n = n or (len(smaller) if smaller else 64)
    given = _conditions(made.condition, n, seed, asked, smaller)
    made.condition.encode(take(given, range(min(n, 1))))  # a missing text encoder fails before a folder is made
    is_image = len(made.space.raw_shape) == 3
    if format is not None:
        one_of("--format", format, FORMATS)
    if format == "png" and not is_image:
        raise InputError("--format png, but the model makes points, not images; use --format npz")
    kind = format or ("png" if is_image else "npz")

    def draw(piece: range) -> Tensor:
        return sample_batch(made, settings, BatchInput(seed, piece, raw_condition=take(given, piece))).raw

    compiled = compile and _compile(made, lambda: draw(range(min(n, settings.batch))))
    manifest = describe(loaded, settings, seed) | {
        "labels": labels and list(labels),
        "prompts": prompts and list(prompts),
        "format": kind,
        "compile": compiled,
        "upsample": smaller and {"images": str(upsample), "sha256": smaller.sha256()},
    }
    told = {key: value.tolist() if isinstance(value, Tensor) else value for key, value in given.items() if key != "low"}
    spent = Spent()
    held = samples.Images(out, spent) if kind == "png" else samples.Array(out, n)
    distributed.from_first(lambda: samples.prepare(held, n, manifest, told, overwrite))
    calls = f"{nfe_text(made.model, settings)} = {nfe(made.model, settings)}"
    say(f"{loaded.source}: {made.schedule_text}; NFE {calls}")
    # A smaller batch, the last, is not worth compiling for.
    with torch.compiler.set_stance("eager_on_recompile") if compiled else nullcontext():
        _fill(out, held, draw, output.pieces_of(n, settings.batch), given.get("label"), spent)
    if not distributed.is_first():
        return
    shown = held.read(min(n, GRID if is_image else POINTS))
    picture = _by_prompt(made.space, shown, prompts) if prompts else made.space.to_image(shown)
    if smaller is not None:
        picture = pictures.side_by_side({"given": made.space.to_image(given["low"][:GRID]), "enlarged": picture})
    grid = pictures.save(picture, grid_path(out))
    verb = "--fid " if is_image else ""
    say(f"done: {n} in {out}, grid {grid}\nnext: tdpm eval {verb}{out}")


def _compile(made: Components, work: Callable[[], object]) -> bool:
    """Compile the network for batches as those of `work`; return whether that went well, in all processes alike."""
    compiled = compile_network(made.model.denoiser.network, work)
    distributed.agree("compilers", {"torch.compile succeeded": compiled})
    return compiled


def _conditions(
    condition: Condition,
    n: int,
    seed: int,
    asked: Mapping[str, Sequence[str] | None],
    smaller: StoredImages | TensorDataset | None,
) -> RawCondition:
    """n conditions, as asked for by an option, those of `smaller` images, or drawn. Raises InputError for an option of
    another kind of model, and for too few smaller images, or ones without captions."""
    chosen = {option: words for option, words in asked.items() if words is not None}
    for option in chosen:
        if option != condition.option:
            takes = f"takes {condition.option}" if condition.option else "is unconditional"
            raise InputError(f"{option}, but the model {takes}; leave {option} out")
    found = condition.parse(next(iter(chosen.values())), n) if chosen else None
    if smaller is None:
        return found or condition.draw(n, Noise(seed, range(n)))
    if n > len(smaller):
        raise InputError(f"--n is {n:,}, but --upsample holds {len(smaller):,} images")
    raw, given = smaller[range(n)]
    if found is None and "captions" not in given:
        raise InputError("--upsample: its images have no captions; give --prompt, or a .txt beside each")
    return {**(found or given), "low": raw}


def _to_enlarge(condition: Condition, folder: Path) -> StoredImages | TensorDataset:
    """The smaller images of a folder. Raises InputError for others than the model enlarges, or one that does not."""
    takes = getattr(condition, "low", None)
    if takes is None:
        raise InputError("--upsample, but the model does not enlarge images; leave it out")
    smaller = open_stored(folder, "--upsample", samples.read_manifest(folder))
    if smaller.shape != takes:
        raise InputError(
            f"--upsample {folder}: images of {list(smaller.shape)}; the model enlarges {list(takes)}; bring images "
            "to that with `tdpm data prepare`"
        )
    return smaller


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line. Raises InputError for one that is not text, or holds none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {path}: it cannot be read as text in UTF-8 ({error})") from None
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise InputError(f"--prompts {path}: no prompt in it; write one a line")
    return found


def _by_prompt(space: Any, raw: Tensor, prompts: Sequence[str]) -> Image.Image:
    """A row of each prompt's images, the prompt written under it."""
    count = len(prompts)
    return pictures.captioned(
        {prompts[k]: space.to_image(raw[k::count][:8], columns=8) for k in range(min(count, len(raw)))}
    )


def grid_path(out: Path) -> Path:
    """The grid lies beside the folder, so that the folder holds samples only."""
    return out.resolve().with_name(f"{out.resolve().name}-grid.png")


def _fill(
    out: Path,
    held: samples.Images | samples.Array,
    draw: Callable[[range], Tensor],
    pieces: Sequence[range],
    labels: Tensor | None,
    spent: Spent,
) -> None:
    """Draw and write what is missing, and nobody else is drawing. Raises Interrupted when stopped before the end."""
    n = pieces[-1].stop
    there = sum(len(piece) for piece in pieces if held.has(piece))
    locks = WorkLocks(out / samples.LOCKS)
    done, begun = False, deque[range]()
    try:
        bar = Meter("sample", n, there, processes=distributed.size())
        with bar as meter, Interruption() as interrupted, writing(out):
            stopped = lambda: interrupted.number

            def stream() -> Iterator[Tensor]:
                for piece in unfinished(pieces, held.has, locks, 0, stopped):
                    begun.append(piece)
                    raw = draw(piece)
                    yield raw.permute(0, 2, 3, 1) if raw.ndim == 4 else raw

            for rows in on_host(stream(), spent):
                held.write(piece := begun.popleft(), rows.numpy())
                meter.advance(len(piece))
            held.wait()
            if isinstance(held, samples.Array):  # one process puts the pieces together
                for _ in unfinished([range(n)], lambda _: held.count() == n, locks, len(pieces), stopped):
                    held.finish(pieces, labels)
            done = held.count() == n and all(map(held.has, pieces))
        if there < n:
            say("time: " + ", ".join(f"{what} {share:.1%}" for what, share in spent.shares().items()))
        if not done:
            assert interrupted.number is not None
            raise Interrupted(interrupted.number, f"stopped; {out} is sound, and the same command continues")
    finally:
        locks.close(done)


def on_host(stream: Iterator[Tensor], spent: Spent) -> Iterator[Tensor]:
    """The tensors of a stream on the host. From a GPU each is copied while the next one is being computed."""
    ahead: tuple[Tensor, list[torch.cuda.Event]] | None = None
    while True:
        with spent.on("network"):
            found = next(stream, None)  # on a GPU this only asks for the work
        if found is not None and not found.is_cuda:
            yield found
            continue
        following = None if found is None else _copying(found)
        if ahead is not None:
            copy, (computed, copied) = ahead
            with spent.on("network"):
                computed.synchronize()
            with spent.on("transfer"):
                copied.synchronize()
            yield copy
        if following is None:
            return
        ahead = following


def _copying(found: Tensor) -> tuple[Tensor, list[torch.cuda.Event]]:
    """A copy on the host that is under way, and the events at whose end it begins and is whole."""
    computed, copied = torch.cuda.Event(), torch.cuda.Event()
    copy = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    computed.record()
    copy.copy_(found, non_blocking=True)
    copied.record()
    return copy, [computed, copied]
