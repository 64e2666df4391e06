"""Survey the images of a dataset in worker processes: sizes, modes, bits, formats, and damaged files."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar, cast

from tdpm_cli.config import registry
from tdpm_cli.config.constants import IMAGES
from tdpm_cli.data.dataset import Dataset, EncodedImages, FromImageFiles
from tdpm_cli.data.decode import bits_of, decoding, flatten, is_grey, is_transparent, open_image, read_header
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.parent import start_worker
from tdpm_cli.runtime.signals import Interrupted, Interruption

Data = TypeVar("Data")
Result = TypeVar("Result")
MAX_WORKERS = 16
SURVEYED_TOGETHER = 256  # images that a worker surveys at a time


@dataclass(frozen=True)
class ImageInfo:
    """An image's size, its mode and format in Pillow's terms and bits a channel; or why it cannot be decoded."""

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    bits: int = 8
    transparent: bool = False
    size: int = 0  # bytes of the file
    broken: str | None = None


def open_images(path: Path) -> tuple[Dataset, str]:
    """Open the images at `path`; return the dataset and its name. Raises InputError for latents, points and others."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; accepted: {IMAGES}")
    name = registry.recognise(path, "images")
    dataset: Dataset = registry.load("dataset", name)(path, None)
    if isinstance(dataset, EncodedImages):
        raise InputError(f"{path}: found latents; expected images. Name those that were encoded: {dataset.source}")
    if not isinstance(dataset, FromImageFiles) and len(dataset.shape) != 3:
        raise InputError(f"{path}: found points of shape {list(dataset.shape)}; expected images")
    return dataset, name


def survey(dataset: FromImageFiles, path: Path, *, decode: bool, workers: int | None) -> list[ImageInfo]:
    """Survey all images by their headers, or `decode` each completely. Raises Interrupted if stopped."""
    count = len(dataset.files.names)
    chunks = [range(k, min(k + SURVEYED_TOGETHER, count)) for k in range(0, count, SURVEYED_TOGETHER)]
    infos: dict[int, list[ImageInfo]] = {}
    work = partial(_survey_some, decode=decode)
    with ProgressBar(f"survey {path.name}", count) as bar, Interruption() as interrupted:
        for number, part in in_processes(work, dataset, chunks, workers):
            infos[number] = part
            bar.advance(len(part))
            if interrupted.number:
                raise Interrupted(interrupted.number, "stopped; nothing was written")
    return [info for number in range(len(chunks)) for info in infos[number]]


def _survey_some(dataset: FromImageFiles, indices: Sequence[int], decode: bool) -> list[ImageInfo]:
    return [_survey_one(dataset, k, decode) for k in indices]


def _survey_one(dataset: FromImageFiles, k: int, decode: bool) -> ImageInfo:
    try:
        with decoding():
            content = dataset.files.content(k)
            image = open_image(content) if decode else read_header(content)
            if decode:
                flatten(image, 3)
            return ImageInfo(image.width, image.height, image.mode, image.format or "?", bits_of(content, image),
                             is_transparent(image), len(content))  # fmt: skip
    except BadFile as error:
        return ImageInfo(broken=error.reason)
    except (ValueError, InputError) as error:
        return ImageInfo(broken=str(error))


def in_processes(
    work: Callable[[Data, Sequence[int]], Result], data: Data, chunks: Sequence[Sequence[int]],
    workers: int | None = None,
) -> Iterator[tuple[int, Result]]:  # fmt: skip
    """Yield (number, work(data, chunk)) of each chunk when a worker process finishes it."""
    workers = workers or min(MAX_WORKERS, cores())
    if workers == 1 or len(chunks) <= 1:
        yield from ((number, work(data, chunk)) for number, chunk in enumerate(chunks))
        return
    with ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=(data, os.getpid())) as pool:
        waiting = iter(enumerate(chunks))
        running: dict[Future[Result], int] = {}
        try:
            while True:
                while len(running) < 2 * workers and (following := next(waiting, None)) is not None:
                    running[pool.submit(_Worker.run, work, following[1])] = following[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:  # also if the caller stops early
            for future in running:
                future.cancel()


class _Worker(Generic[Data]):
    """The data of a worker process, which receives them once, when it starts."""

    data: object = None

    @classmethod
    def start(cls, data: Data, parent: int) -> None:
        start_worker(parent)
        cls.data = data

    @classmethod
    def run(cls, work: Callable[[Data, Sequence[int]], Result], chunk: Sequence[int]) -> Result:
        return work(cast(Data, cls.data), chunk)


def is_all_grey(infos: Sequence[ImageInfo]) -> bool:
    """Return whether all images that can be decoded are grey."""
    return all(is_grey(info.mode) for info in infos if info.broken is None)


def summary_of(infos: Sequence[ImageInfo]) -> dict[str, str]:
    """Return counts, sizes, modes, bits and formats as text, by what they are."""
    sound = [info for info in infos if info.broken is None]
    if not sound:
        return {"images": f"{len(infos):,}, none of which can be decoded"}
    sides = sorted((min(info.width, info.height), info.width, info.height) for info in sound)
    smallest, middle, largest = (sides[k] for k in (0, len(sides) // 2, -1))
    sizes = Counter((info.width, info.height) for info in sound)
    common = ", ".join(f"{w}×{h} ({count:,})" for (w, h), count in sizes.most_common(4))
    broken = len(infos) - len(sound)
    lines = {
        "images": f"{len(infos):,}" + (f", {broken:,} broken" if broken else ""),
        "sizes": f"{len(sizes):,} different: {common}{' …' if len(sizes) > 4 else ''}",
        "smallest, median, largest": " · ".join(f"{w}×{h}" for _, w, h in (smallest, middle, largest)),
        "modes": _listed(Counter(info.mode for info in sound)),
        "formats": _listed(Counter(info.format for info in sound)),
        "bytes": f"{sum(info.size for info in sound) / 2**20:.4g} MiB",
    }
    if deep := sum(info.bits > 8 for info in sound):
        lines["16 bits or more"] = f"{deep:,} (training scales them to 8)"
    if transparent := sum(info.transparent for info in sound):
        lines["transparent"] = f"{transparent:,} (training puts them on white)"
    return lines


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
