"""What images a data set is made of: sizes, modes, bits, formats, and those that cannot be decoded."""

import io
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from tdpm_cli.data.dataset import FromImageFiles
from tdpm_cli.data.decode import bits_of, flatten, is_transparent, open_image, reason_of
from tdpm_cli.runtime.errors import BadFile, InputError

Result = TypeVar("Result")
CHUNK = 256  # images that a process takes at a time


@dataclass(frozen=True)
class Look:
    """One image: its size, what Pillow calls its mode and format, bits a channel; or why it cannot be decoded."""

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    bits: int = 8
    transparent: bool = False
    size: int = 0  # bytes of the file
    broken: str = ""


def look_at(data: FromImageFiles, indices: Sequence[int], whole: bool) -> list[Look]:
    """Look at images of a data set, by their heads, or by decoding the `whole` of each."""
    return [_look(data.files.content, k, whole) for k in indices]


def _look(content_of: Callable[[int], bytes], k: int, whole: bool) -> Look:
    try:
        content = content_of(k)
        if whole:
            image = open_image(content)
            flatten(image, 3)
        else:
            image = Image.open(io.BytesIO(content))
        return Look(image.width, image.height, image.mode, image.format or "?", bits_of(content, image),
                    is_transparent(image), len(content))  # fmt: skip
    except BadFile as error:
        return Look(broken=error.reason)
    except (ValueError, InputError) as error:
        return Look(broken=str(error))
    except Exception as error:  # decoders raise anything on damaged data
        return Look(broken=reason_of(error))


def in_processes(
    work: Callable[[Any, Sequence[int]], Result], data: Any, chunks: Sequence[Sequence[int]], workers: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield (number, work(data, chunk)) of chunks as other processes finish them; few at a time are under way."""
    workers = workers or min(16, os.cpu_count() or 1)
    if workers == 1 or len(chunks) <= 1:
        yield from ((number, work(data, chunk)) for number, chunk in enumerate(chunks))
        return
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(data,)) as pool:
        left = iter(enumerate(chunks))
        running: dict[Future[Result], int] = {}
        try:
            while True:
                while len(running) < 2 * workers and (following := next(left, None)) is not None:
                    running[pool.submit(_work, work, following[1])] = following[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:  # also where the caller stops early
            for future in running:
                future.cancel()


_data: Any = None  # of a worker process


def _begin(data: Any) -> None:
    global _data
    _data = data
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # which reach a group, and are for the main process
        signal.signal(number, signal.SIG_IGN)


def _work(work: Callable[[Any, Sequence[int]], Result], chunk: Sequence[int]) -> Result:
    return work(_data, chunk)


def summary_of(looks: Sequence[Look]) -> dict[str, str]:
    """Lines for people: counts, sizes, modes, bits, formats."""
    sound = [look for look in looks if not look.broken]
    if not sound:
        return {"images": f"{len(looks):,}, none of which can be decoded"}
    sides = sorted((min(look.width, look.height), look.width, look.height) for look in sound)
    smallest, middle, largest = (sides[k] for k in (0, len(sides) // 2, -1))
    sizes = Counter((look.width, look.height) for look in sound)
    common = ", ".join(f"{w}×{h} ({count:,})" for (w, h), count in sizes.most_common(4))
    lines = {
        "images": f"{len(looks):,}" + (f", {len(looks) - len(sound):,} broken" if len(sound) < len(looks) else ""),
        "sizes": f"{len(sizes):,} different: {common}{' …' if len(sizes) > 4 else ''}",
        "smallest, median, largest": " · ".join(f"{w}×{h}" for _, w, h in (smallest, middle, largest)),
        "modes": _counted(Counter(look.mode for look in sound)),
        "formats": _counted(Counter(look.format for look in sound)),
        "bytes": f"{sum(look.size for look in sound) / 2**20:.4g} MiB",
    }
    if deep := sum(look.bits > 8 for look in sound):
        lines["16 bits or more"] = f"{deep:,} (training scales them to 8)"
    if transparent := sum(look.transparent for look in sound):
        lines["transparent"] = f"{transparent:,} (training lays them on white)"
    return lines


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
