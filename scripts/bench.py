"""Speed, ours beside a peer in one call: scripts/bench startup | eval | data

startup    `tdpm --help` against a bare Typer program's --help (medians of alternating runs)
eval       the FID of two folders, ours against clean-fid's own `compute_fid`: same images, same TorchScript extractor
           (the published Inception where it is in the cache, else its architecture with random weights); ours once
           with an empty cache of references, and once more
data       training batches from a folder, a zip, an LMDB and idx files, against torchvision's ImageFolder and PyTorch's
           DataLoader on a folder of the same images; as many worker processes for both; ours in the first epoch, and in
           the second, when images are in memory
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

BARE = """import typer
app = typer.Typer()
@app.command()
def one(name: str = typer.Option("x", help="A name.")) -> None: ...
@app.command()
def two() -> None: ...
app()
"""


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def startup(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE)
        ours, peer = [str(Path(sys.executable).with_name("tdpm")), "--help"], [sys.executable, str(bare), "--help"]
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(rounds + 1):  # the first round warms the disk's cache
            times["ours"].append(seconds(ours))
            times["peer"].append(seconds(peer))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"tdpm --help        {median['ours'] * 1000:6.0f} ms (median of {rounds})")
    print(f"bare Typer --help  {median['peer'] * 1000:6.0f} ms")
    print(f"ratio              {median['ours'] / median['peer']:6.2f}")


def evaluation(rounds: int, data: Path | None, n: int) -> None:
    import torch
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    from tdpm_cli.commands.evaluate import evaluate
    from tdpm_cli.parts.features.inception import FILE
    from tdpm_cli.run import precision

    warnings.simplefilter("ignore")  # clean-fid's and SciPy's own
    device = precision.device()
    with tempfile.TemporaryDirectory() as place:
        folders = [str(folder) for folder in write_halves(Path(place), data, n)]
        weights = Path(place, FILE)
        weights_of_inception(weights)

        os.environ["XDG_CACHE_HOME"] = str(Path(place, "cache"))

        def ours(which: str) -> float:
            begin = time.perf_counter()
            result = evaluate(folders[0], ref=folders[1], features="inception", weights=weights)
            times[which].append(time.perf_counter() - begin)
            ((name, value),) = result["scores"].items()
            found["name"] = name
            return float(value)

        def peer() -> float:
            begin = time.perf_counter()
            network = InceptionV3W(place, download=False).to(device).eval()
            value = fid.compute_fid(folders[0], folders[1], mode="clean", device=device, verbose=False,
                                    custom_feat_extractor=network)  # fmt: skip
            times["peer"].append(time.perf_counter() - begin)
            return float(value)

        times: dict[str, list[float]] = {"cold": [], "warm": [], "peer": []}
        found: dict[str, Any] = {}
        for _ in range(rounds):
            shutil.rmtree(Path(place, "cache"), ignore_errors=True)
            found |= {"ours": ours("cold"), "peer": peer()}
            ours("warm")
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{found['name']}: {2 * n} images on {device}, {torch.get_num_threads()} threads, median of {rounds}")
    print(f"clean-fid compute_fid         {median['peer']:8.1f} s   distance {found['peer']:.6g}")
    print(f"tdpm eval                     {median['cold']:8.1f} s   distance {found['ours']:.6g}")
    print(f"ratio                         {median['peer'] / median['cold']:8.2f}")
    print(f"tdpm eval, reference cached   {median['warm']:8.1f} s")
    print(f"ratio                         {median['peer'] / median['warm']:8.2f}")
    print(f"relative difference           {abs(found['ours'] - found['peer']) / found['peer']:8.1e}")


def loading(rounds: int, data: Path | None, n: int, workers: int) -> None:
    import torch

    from tdpm_cli import parts
    from tdpm_cli.run.batches import batches

    batch = 128
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        shape = write_sources(place, data, n)
        sources = {"folder": "images", "zip": "images", "lmdb": "lsun"} | ({"idx": "idx"} if shape[0] == 1 else {})

        def ours(name: str) -> tuple[float, float]:
            found = parts.load("data", sources[name])(place / (f"{name}.zip" if name == "zip" else name), shape)
            if hasattr(found, "keep_in_memory"):
                found.keep_in_memory(1e12)
            stream = batches(found, batch, 0, 0, flip=False, workers=workers)
            rates = [rate(stream) for _ in range(2)]
            stream.close()
            return rates[0], rates[1]

        def peer() -> float:
            from torchvision import datasets, transforms

            read = transforms.PILToTensor() if shape[0] == 3 else transforms.Compose(
                [transforms.Grayscale(), transforms.PILToTensor()])  # fmt: skip
            loader = torch.utils.data.DataLoader(
                datasets.ImageFolder(str(place / "folder"), read), batch, shuffle=True, drop_last=True,
                num_workers=workers, persistent_workers=workers > 0,
            )  # fmt: skip
            return rate(iter(loader))

        def rate(stream: Any) -> float:
            """Images a second of an epoch, from its second batch on: starting processes is not counted."""
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
        for name, found in times.items():
            first, second = (statistics.median(epoch) for epoch in zip(*found, strict=True))
            print(f"{name:8} first epoch            {first:8.0f} img/s   ratio {first / base:5.2f}")
            print(f"{name:8} later, from memory     {second:8.0f} img/s   ratio {second / base:5.2f}")


def write_sources(place: Path, data: Path | None, n: int) -> tuple[int, ...]:
    """n images as files in class folders, in a zip, in an LMDB, and where they are grey as idx; their shape."""
    import io
    import struct
    import zipfile

    import lmdb
    import torch
    from PIL import Image

    from tdpm_cli.scoring.inputs import open_input

    source = open_input("--data", "fashion-mnist" if data is None else str(data))
    if n > len(source):
        raise SystemExit(f"error: --n {n}, but {source.text} holds {len(source):,}")
    chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:n].tolist()
    raw, cond = source.data[chosen]
    labels = cond["label"].tolist() if "label" in cond else [k % 10 for k in range(n)]
    environment = lmdb.open(str(place / "lmdb"), map_size=1 << 32)
    with zipfile.ZipFile(place / "zip.zip", "w") as archive, environment.begin(write=True) as transaction:
        for k, (image, label) in enumerate(zip(raw, labels, strict=True)):
            if hasattr(source.data, "files"):  # as they were encoded
                content, suffix = source.data.files.content(source.data.indices[chosen[k]]), "jpg"
            else:
                pixels = image.permute(1, 2, 0).numpy()
                buffer = io.BytesIO()
                Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(buffer, format="PNG")
                content, suffix = buffer.getvalue(), "png"
            path = place / "folder" / str(label) / f"{k:06d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            archive.writestr(f"{label}/{k:06d}.{suffix}", content)
            transaction.put(f"{k:040d}".encode(), content)
    environment.close()
    if raw.shape[1] == 1:
        (place / "idx").mkdir()
        for what, array in (("images-idx3", raw[:, 0]), ("labels-idx1", torch.tensor(labels).byte())):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (place / "idx" / f"train-{what}-ubyte").write_bytes(header + array.contiguous().numpy().tobytes())
    return tuple(raw.shape[1:])


def write_halves(place: Path, data: Path | None, n: int) -> list[Path]:
    """n images to a folder, and the next n to another, drawn at random from `data`, or from the digits."""
    import torch
    from PIL import Image

    from tdpm_cli.scoring.inputs import open_input

    source = open_input("--data", "digits" if data is None else str(data))
    if 2 * n > len(source):
        raise SystemExit(f"error: --n {n}, but {source.text} holds {len(source):,}: at most {len(source) // 2:,}")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).tolist()
    folders = [place / "a", place / "b"]
    for folder, chosen in zip(folders, (order[:n], order[n : 2 * n]), strict=True):
        folder.mkdir()
        for k, raw in enumerate(source.data[chosen][0]):
            pixels = raw.permute(1, 2, 0).numpy()
            Image.fromarray(pixels[..., 0] if len(raw) == 1 else pixels).save(folder / f"{k:06d}.png")
    return folders


def weights_of_inception(path: Path) -> None:
    """The published file where it is at hand, else its architecture, scripted with the same interface."""
    import torch
    from platformdirs import user_cache_path
    from torchvision.models import inception_v3

    if (cached := user_cache_path("tdpm") / path.name).is_file():
        shutil.copy(cached, path)
        return
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False, aux_logits=False, transform_input=False)
    network.fc = torch.nn.Identity()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the statistics of all that follows, so that activations keep their size
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 299, 299))
    network.eval()

    class Inception(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    with torch.no_grad():
        torch.jit.trace(Inception().eval(), torch.zeros(2, 3, 299, 299)).save(str(path))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["startup", "eval", "data"])
    parser.add_argument("--rounds", type=int, help="runs of each (default: startup 15, eval 3, data 3)")
    parser.add_argument(
        "--data", type=Path, help="a folder or zip of images (default: digits, and Fashion-MNIST for data)"
    )
    parser.add_argument("--n", type=int, help="images: eval, in each of two folders (500); data, in all (20,000)")
    parser.add_argument("--workers", type=int, default=2, help="data: processes that read")
    given = parser.parse_args()
    if given.what == "startup":
        startup(given.rounds or 15)
    elif given.what == "eval":
        evaluation(given.rounds or 3, given.data, given.n or 500)
    else:
        loading(given.rounds or 3, given.data, given.n or 20_000, given.workers)
