"""tdpm sample: examples from seeds to files, continued where it stopped."""

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tdpm_cli import assemble
from tdpm_cli.engine.model import generate
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Condition, Given, taken
from tdpm_cli.errors import InputError
from tdpm_cli.run import pictures
from tdpm_cli.run.files import replacing, write_text, writing
from tdpm_cli.run.precision import device as chosen_device
from tdpm_cli.run.report import Meter, Spent, say
from tdpm_cli.run.signals import Interrupted, Interruption
from tdpm_cli.sampling import describe, nfe_text, sampler_options, settings_of

MANIFEST = "samples.json"
FORMATS = ("png", "npz")
GRID = 64


def sample(
    out: Path,
    n: int,
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
    scale: float | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write examples 0..n-1 of `seed` to `out`, with `samples.json`, and a grid beside the folder.

    What is None comes from the model's preset. Images already there are kept, if they were made with the same
    settings. Raises InputError for input that does not fit, and Interrupted when stopped.
    """
    device = chosen_device()
    loaded = assemble.load(model or assemble.newest_run(), device)
    made = loaded.assembly
    settings = settings_of(
        made, steps=steps, spacing=spacing, sampler=sampler, scale=scale, batch=batch, eta=eta,
        precision=precision or (None if overwrite else _settled_precision(out)),
    )  # fmt: skip
    given = _conditions(made.condition, n, seed, {"--labels": labels, "--prompt": prompts})
    made.condition.encode(taken(given, range(min(n, 1))))  # a missing text encoder fails before a folder is made
    is_image = len(made.space.raw_shape) == 3
    if format not in (None, *FORMATS):
        raise InputError(f"--format {format}: accepted: {', '.join(FORMATS)}")
    if format == "png" and not is_image:
        raise InputError("--format png, but the model makes points, not images; use --format npz")
    kind = format or ("png" if is_image else "npz")

    manifest = describe(loaded, settings, seed) | {
        "labels": labels and list(labels), "prompts": prompts and list(prompts), "format": kind
    }  # fmt: skip
    done = _open(out, manifest, n, overwrite)
    todo = [k for k in range(n) if k not in done]
    calls = made.model.nfe(settings.steps, settings.scale)
    say(f"{loaded.source}: {made.schedule_text}; NFE {nfe_text(made.model, settings)} = {calls}")

    if todo:
        manifest["conditions"] = {
            key: value.tolist() if isinstance(value, Tensor) else value for key, value in given.items()
        }
        write_text(out / MANIFEST, json.dumps(manifest, indent=1))
        stream = generate(
            made.model, made.space, made.condition, seed, todo, settings.batch,
            given=taken(given, todo), device=device, **sampler_options(settings),
        )  # fmt: skip
        with Meter("sample", n, len(done)) as meter, Interruption() as interrupted, writing(out):
            if kind == "png":
                _write_images(out, todo, stream, meter, interrupted)
            else:
                _write_array(out, stream, given.get("label"), meter, interrupted)
    shown = _read(out, kind, min(n, _shown(is_image)))
    picture = _by_prompt(made.space, shown, prompts) if prompts else made.space.picture(shown)
    grid = pictures.save(picture, grid_path(out))
    verb = "--fid " if is_image else ""
    say(f"done: {n} in {out}, grid {grid}\nnext: tdpm eval {verb}{out}")


def _conditions(condition: Condition, n: int, seed: int, asked: Mapping[str, Sequence[str] | None]) -> Given:
    """n conditions, as asked for by an option, or drawn. Raises InputError for an option of another kind of model."""
    chosen = {option: words for option, words in asked.items() if words is not None}
    for option in chosen:
        if option != condition.option:
            takes = f"takes {condition.option}" if condition.option else "is unconditional"
            raise InputError(f"{option}, but the model {takes}; leave {option} out")
    if not chosen:
        return condition.draw(n, Noise(seed, range(n)))
    return condition.parse(next(iter(chosen.values())), n)


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
    return pictures.captioned({prompts[k]: space.picture(raw[k::count][:8]) for k in range(min(count, len(raw)))})


def grid_path(out: Path) -> Path:
    """The grid lies beside the folder, so that the folder holds samples only."""
    return out.resolve().with_name(f"{out.resolve().name}-grid.png")


def _open(out: Path, manifest: dict[str, Any], n: int, overwrite: bool) -> set[int]:
    """The indices that `out` already holds. Refuses a folder with other settings or other files."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: it is a file; name a folder for the samples")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and MANIFEST not in names:
        raise InputError(f"{out}: it holds files that tdpm did not write; name another folder")
    if names and overwrite:
        for name in names:
            if _is_ours(name):
                (out / name).unlink()
    elif names:
        before = _read_manifest(out)
        free = ("config", "model", "tdpm")
        listed = [
            f"{key}: {before.get(key)!r} there, {manifest[key]!r} here"
            for key in manifest
            if key not in free and before.get(key) != manifest[key]
        ]
        if listed:
            raise InputError(
                f"{out} holds samples made with other settings:\n  " + "\n  ".join(listed)
                + "\nName another folder, or give --overwrite."
            )  # fmt: skip
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for folder in (out, grid_path(out).parent):
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder}: it cannot be written to; name an output folder elsewhere")
    if manifest["format"] == "npz":
        held = len(_read(out, "npz")) if (out / "samples.npz").is_file() else 0
        done = set(range(held)) if held == n else set()
    else:
        done = {int(path.stem) for path in images_of(out)}
        held = max(done) + 1 if done else 0
    if held > n:
        raise InputError(f"{out} already holds {held} samples, more than --n {n}; name another folder or --overwrite")
    return done


def images_of(out: Path) -> list[Path]:
    """The images that `tdpm sample` wrote, in order."""
    return sorted((path for path in out.glob("*.png") if re.fullmatch(r"\d{6,}", path.stem)), key=lambda p: int(p.stem))


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, "samples.npz") or bool(re.fullmatch(r"\d{6,}\.png(\.part)?", name))


def _settled_precision(out: Path) -> Any:
    """The number format of the samples that `out` holds; None where it holds none."""
    return _read_manifest(out).get("precision") if (out / MANIFEST).is_file() else None


def _read_manifest(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / MANIFEST).read_text())
    except ValueError as error:
        raise InputError(f"{out / MANIFEST}: damaged ({error}); give --overwrite to begin again") from None
    return content if isinstance(content, dict) else {}


def _write_images(
    out: Path, todo: list[int], stream: Iterator[Tensor], meter: Meter, interrupted: Interruption
) -> None:
    """PNGs by a pool of threads, while the next batch is computed."""
    position, spent = 0, Spent()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: list[Future[None]] = []
        for pixels in on_host((raw.permute(0, 2, 3, 1) for raw in stream), spent):
            with spent.on("waiting for files"):
                for future in pending:
                    future.result()
            chunk = todo[position : position + len(pixels)]
            position += len(pixels)
            pending = [
                pool.submit(_write_png, out / f"{k:06d}.png", image, spent)
                for k, image in zip(chunk, pixels.numpy(), strict=True)
            ]
            meter.advance(len(pixels))
            if interrupted.number and position < len(todo):
                break
        with spent.on("waiting for files"):
            for future in pending:
                future.result()
    say("time: " + ", ".join(f"{what} {share:.1%}" for what, share in spent.shares().items()))
    if position < len(todo):
        assert interrupted.number is not None
        raise Interrupted(interrupted.number, f"stopped; {out} is sound, and the same command continues")


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


def _write_png(path: Path, image: np.ndarray, spent: Spent) -> None:
    with spent.on("encoding (threads)"):
        png = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, format="PNG")
    with spent.on("writing (threads)"), replacing(path) as part:
        part.write_bytes(png.getvalue())


def _write_array(
    out: Path, stream: Iterator[Tensor], labels: Tensor | None, meter: Meter, interrupted: Interruption
) -> None:
    """One `samples.npz`: `arr_0` [n, H, W, C] uint8 or [n, dim] float32, as ADM's evaluator reads it."""
    kept = []
    for raw in stream:
        kept.append((raw.permute(0, 2, 3, 1) if raw.ndim == 4 else raw).cpu().numpy())
        meter.advance(len(raw))
        if interrupted.number and meter.done < meter.total:
            raise Interrupted(interrupted.number, "stopped; an .npz is written whole or not at all")
    arrays = [np.concatenate(kept)] + ([labels.numpy()] if labels is not None else [])
    with replacing(out / "samples.npz") as part, part.open("wb") as file:
        np.savez(file, *arrays)


def _read(out: Path, kind: str, n: int | None = None) -> Tensor:
    """The first n samples as raw."""
    if kind == "npz":
        with np.load(out / "samples.npz", allow_pickle=False) as file:
            raw = torch.from_numpy(file["arr_0"][:n])
        return raw.permute(0, 3, 1, 2) if raw.ndim == 4 else raw
    images = []
    for path in images_of(out)[:n]:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image))
        images.append(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))
    return torch.stack(images)


def _shown(is_image: bool) -> int:
    return GRID if is_image else 10_000
