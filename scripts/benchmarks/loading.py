"""Training batches from a folder, zip, LMDB and idx files, compared with ImageFolder and DataLoader: scripts/bench data

Both read the same images with the same number of worker processes; torchvision's ImageFolder reads a folder. Prints
images per second in the first epoch, and in the second, when tdpm has the images in memory.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="timed runs (3)")
    parser.add_argument("--data", type=Path, help="a folder or zip of images (Fashion-MNIST)")
    parser.add_argument("--n", type=int, default=20_000, help="number of images (20,000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")


def run(rounds: int, data: Path | None, n: int, workers: int) -> None:
    import torch

    from tdpm_cli.config import registry
    from tdpm_cli.data.dataset import KeepsInMemory
    from tdpm_cli.data.loader import Order, batches

    batch = 128
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        shape = write_sources(root, data, n)
        sources = {"folder": "images", "zip": "images", "lmdb": "lsun"} | ({"idx": "idx"} if shape[0] == 1 else {})

        def ours(name: str) -> tuple[float, float]:
            dataset = registry.load("dataset", sources[name])(root / (f"{name}.zip" if name == "zip" else name), shape)
            if isinstance(dataset, KeepsInMemory):
                dataset.keep_in_memory(1e12)
            stream = batches(dataset, Order(batch, 0, 0, flip=False), workers=workers)
            rates = [rate(stream) for _ in range(2)]
            stream.close()
            return rates[0], rates[1]

        def peer() -> float:
            from torchvision import datasets, transforms

            read = transforms.PILToTensor() if shape[0] == 3 else transforms.Compose(
                [transforms.Grayscale(), transforms.PILToTensor()])  # fmt: skip
            loader = torch.utils.data.DataLoader(
                datasets.ImageFolder(str(root / "folder"), read), batch, shuffle=True, drop_last=True,
                num_workers=workers, persistent_workers=workers > 0,
            )  # fmt: skip
            return rate(iter(loader))

        def rate(stream: Any) -> float:
            """Return images per second of an epoch without its first batch, which waits for processes to start."""
            next(stream)
            begin, count = time.perf_counter(), n // batch - 1
            for _ in range(count):
                next(stream)
            return count * batch / (time.perf_counter() - begin)

        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        theirs = []
        for _ in range(rounds):
            theirs.append(peer())
            for name in sources:
                times[name].append(ours(name))
        base = statistics.median(theirs)
        print(f"{n:,} images of {'×'.join(map(str, shape))}, batches of {batch}, {workers} workers, median of {rounds}")
        print(f"ImageFolder + DataLoader        {base:8.0f} img/s")
        for name, rates in times.items():
            first, second = (statistics.median(epoch) for epoch in zip(*rates, strict=True))
            print(f"{name:8} first epoch            {first:8.0f} img/s   ratio {first / base:5.2f}")
            print(f"{name:8} later, from memory     {second:8.0f} img/s   ratio {second / base:5.2f}")


def write_sources(root: Path, data: Path | None, n: int) -> tuple[int, ...]:
    """Write n images to class folders, a zip, an LMDB, and, if they are grey, idx files. Return their shape."""
    import io
    import struct
    import zipfile

    import lmdb
    import torch

    from tdpm_cli.data.decode import from_tensor
    from tdpm_cli.data.stored_images import StoredImages
    from tdpm_cli.evaluation.inputs import open_input

    source = open_input("--data", "fashion-mnist" if data is None else str(data))
    if n > len(source):
        raise SystemExit(f"error: --n {n}, but {source.text} holds {len(source):,}")
    chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:n].tolist()
    raw, cond = source.data[chosen]
    labels = cond["label"].tolist() if "label" in cond else [k % 10 for k in range(n)]
    environment = lmdb.open(str(root / "lmdb"), map_size=1 << 32)
    with zipfile.ZipFile(root / "zip.zip", "w") as archive, environment.begin(write=True) as transaction:
        for k, (image, label) in enumerate(zip(raw, labels, strict=True)):
            if isinstance(source.data, StoredImages):  # copy the file
                content, suffix = source.data.files.content(source.data.positions[chosen[k]]), "jpg"
            else:
                buffer = io.BytesIO()
                from_tensor(image).save(buffer, format="PNG")
                content, suffix = buffer.getvalue(), "png"
            path = root / "folder" / str(label) / f"{k:06d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            archive.writestr(f"{label}/{k:06d}.{suffix}", content)
            transaction.put(f"{k:040d}".encode(), content)
    environment.close()
    if raw.shape[1] == 1:
        (root / "idx").mkdir()
        for suffix, array in (("images-idx3", raw[:, 0]), ("labels-idx1", torch.tensor(labels).byte())):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (root / "idx" / f"train-{suffix}-ubyte").write_bytes(header + array.contiguous().numpy().tobytes())
    return tuple(raw.shape[1:])
