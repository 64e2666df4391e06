"""The FID between two folders by tdpm eval, compared with clean-fid's `compute_fid`: scripts/bench eval

Both score the same images with the same TorchScript extractor: the published Inception if it is in the cache, else
its architecture with random weights. tdpm runs twice, first without and then with cached reference statistics.
Prints wall-clock seconds, CPU seconds (which other work on the machine disturbs less), and how far the scores differ.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

from scripts.benchmarks.timing import timed


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="timed runs (3)")
    parser.add_argument("--data", type=Path, help="a folder or zip of images (digits)")
    parser.add_argument("--n", type=int, default=500, help="images in each of two folders (500)")


def run(rounds: int, data: Path | None, n: int) -> None:
    import torch
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    from tdpm_cli.evaluation.evaluate import evaluate
    from tdpm_cli.evaluation.features.inception import FILE
    from tdpm_cli.evaluation.options import EvaluateOptions
    from tdpm_cli.runtime import device as devices

    warnings.simplefilter("ignore")  # warnings of clean-fid and SciPy
    device = devices.device()
    with tempfile.TemporaryDirectory() as temporary:
        folders = [str(folder) for folder in write_halves(Path(temporary), data, n)]
        weights = Path(temporary, FILE)
        weights_of_inception(weights)

        os.environ["XDG_CACHE_HOME"] = str(Path(temporary, "cache"))

        def ours(which: str) -> float:
            with timed(times[which]):
                scores = evaluate(folders[0], EvaluateOptions(ref=folders[1], weights=weights))
            ((name, value),) = scores["scores"].items()
            result["name"] = name
            return float(value)

        def peer() -> float:
            with timed(times["peer"]):
                network = InceptionV3W(temporary, download=False).to(device).eval()
                try:
                    return float(fid.compute_fid(folders[0], folders[1], mode="clean", device=device, verbose=False,
                                                 custom_feat_extractor=network))  # fmt: skip
                except ValueError:  # with fewer images than features, its matrix root may be complex
                    return float("nan")

        times: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": [], "peer": []}
        result: dict[str, Any] = {}
        for _ in range(rounds):
            shutil.rmtree(Path(temporary, "cache"), ignore_errors=True)
            result |= {"ours": ours("cold"), "peer": peer()}
            ours("warm")
    rows = {"clean-fid compute_fid": "peer", "tdpm eval": "cold", "tdpm eval, reference cached": "warm"}
    median = {row: [statistics.median(column) for column in zip(*times[which], strict=True)]
              for row, which in rows.items()}  # fmt: skip
    print(f"{result['name']}: {2 * n} images on {device}, {torch.get_num_threads()} threads, median of {rounds}")
    for row, seconds in median.items():
        ratios = [theirs / ours for theirs, ours in zip(median["clean-fid compute_fid"], seconds, strict=True)]
        print(f"{row:28} {seconds[0]:7.1f} s (ratio {ratios[0]:.2f})   {seconds[1]:7.1f} s of CPU ({ratios[1]:.2f})")
    print(f"distances: clean-fid {result['peer']:.6g}, tdpm {result['ours']:.6g}; relative difference "
          f"{abs(result['ours'] - result['peer']) / result['peer']:.1e}")  # fmt: skip


def write_halves(root: Path, data: Path | None, n: int) -> list[Path]:
    """Write two folders of n random images each, from `data` or the digits. Return the folders."""
    import torch

    from tdpm_cli.data.decode import from_tensor
    from tdpm_cli.evaluation.inputs import open_input

    source = open_input("--data", "digits" if data is None else str(data))
    if 2 * n > len(source):
        raise SystemExit(f"error: --n {n}, but {source.text} holds {len(source):,}: at most {len(source) // 2:,}")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).tolist()
    folders = [root / "a", root / "b"]
    for folder, chosen in zip(folders, (order[:n], order[n : 2 * n]), strict=True):
        folder.mkdir()
        for k, raw in enumerate(source.data[chosen][0]):
            from_tensor(raw).save(folder / f"{k:06d}.png")
    return folders


def weights_of_inception(path: Path) -> None:
    """Copy the published weights from the cache, or else save the same architecture with random weights."""
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
            layer.momentum = None  # average all batches, so that activations keep their size
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
