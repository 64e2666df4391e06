"""Our scores beside those of the tools that the field trusts, of the same images, features and settings."""

import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tdpm_cli.data.datasets.digits import digits as digits_part
from tdpm_cli.evaluation.features.inception import CPU_BATCH, Inception
from tdpm_cli.evaluation.inputs import open_input
from tdpm_cli.evaluation.metrics.kid import kernel_distance
from tdpm_cli.evaluation.metrics.prdc import prdc
from tdpm_cli.evaluation.scorer import Scorer


class SmallInception:
    """Inception's resizing, then features that take no time: [B, 3, 299, 299] in 0..255 → [B, 75]."""

    prepare = staticmethod(Inception.prepare)

    def __init__(self):
        self.protocol = {"name": "small", "resize": Inception.prepare.__doc__, "weights_sha256": ""}

    def __call__(self, prepared):
        return torch.nn.functional.adaptive_avg_pool2d((prepared - 128) / 128, 5).flatten(1)


def write_digits(folder, start, side, suffix, colour):
    """120 handwritten digits, enlarged, tinted where `colour`."""
    folder.mkdir()
    digits, _ = digits_part(None, (1, 8, 8))[range(start, start + 120)]
    for k, digit in enumerate(digits):
        image = Image.fromarray(digit[0].numpy()).resize((side, side), Image.Resampling.BICUBIC)
        if colour:
            pixels = np.asarray(image, dtype=np.float64)[..., None] * [1, 0.5 + 0.004 * k, 0.3]
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{k:03d}.{suffix}")
    return folder


@pytest.mark.parametrize(
    ("side", "suffix", "colour"), [(8, "png", False), (28, "png", False), (32, "jpg", True), (256, "png", True)]
)
def test_fid_is_clean_fids(tmp_path, side, suffix, colour):
    pytest.importorskip("sklearn")
    from cleanfid import fid

    first = write_digits(tmp_path / "a", 0, side, suffix, colour)
    second = write_digits(tmp_path / "b", 900, side, suffix, colour)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clean-fid's and SciPy's own
        theirs = fid.compute_fid(
            str(first), str(second), mode="clean", num_workers=0, device=torch.device("cpu"), verbose=False,
            custom_feat_extractor=SmallInception(), use_dataparallel=False,
        )  # fmt: skip
    scorer = Scorer(open_input("--ref", str(second)), SmallInception(), cache=False)
    ours = scorer.score(open_input("IMAGES", str(first))).distance.value
    assert theirs > 0.1
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_fid_of_zips_by_one_torchscript_file_is_clean_fids(tmp_path, stand_in):
    pytest.importorskip("sklearn")
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    archives = []
    for name, start in (("a", 0), ("b", 900)):
        folder = write_digits(tmp_path / name, start, 32, "jpg", True)
        archives.append(tmp_path / f"{name}.zip")
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fid.compute_fid(
            *map(str, archives), mode="clean", num_workers=0, device=torch.device("cpu"), verbose=False,
            custom_feat_extractor=InceptionV3W(str(stand_in.parent), download=False), use_dataparallel=False,
        )  # fmt: skip
    first, second = (open_input("IMAGES", str(archive)) for archive in archives)
    ours = Scorer(second, Inception(torch.device("cpu"), stand_in), cache=False).score(first).distance.value
    assert theirs > 1e-3
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_turned_photograph_is_scored_as_clean_fid_does(tmp_path):
    pytest.importorskip("sklearn")
    from cleanfid import fid

    first = write_digits(tmp_path / "a", 0, 16, "png", True)
    second = write_digits(tmp_path / "b", 0, 16, "png", True)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    for path in first.iterdir():
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=turned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fid.compute_fid(
            str(first), str(second), num_workers=0, device=torch.device("cpu"), verbose=False,
            custom_feat_extractor=SmallInception(), use_dataparallel=False,
        )  # fmt: skip
    scorer = Scorer(open_input("--ref", str(second)), SmallInception(), cache=False)
    ours = scorer.score(open_input("IMAGES", str(first))).distance.value
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_the_network_is_called_as_clean_fid_calls_it(stand_in):
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    count = CPU_BATCH + 3  # a full batch, and some more
    images = torch.randint(256, (count, 3, 20, 30), generator=torch.Generator().manual_seed(0)).byte()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = InceptionV3W(str(stand_in.parent), download=False)
        resize = build_resizer("clean")
        resized = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in images])
        theirs = network(torch.from_numpy(resized).permute(0, 3, 1, 2))
    extract = Inception(torch.device("cpu"), stand_in)
    torch.testing.assert_close(extract(extract.prepare(images)), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_precision_and_recall_are_torch_fidelitys(generator, shift):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    fake = torch.randn(300, 8, generator=generator) + shift
    real = torch.randn(300, 8, generator=generator)
    theirs = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=300, verbose=False)
    ours, _ = kernel_distance(fake, real, subsets=1, size=300)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-6)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=100, verbose=False)
    ours = prdc(real, fake, k=3)
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1 / 300)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1 / 300)


def test_no_score_needs_scipy(tmp_path):
    import subprocess
    import sys

    code = """
import sys
sys.modules["scipy"] = None
import torch
from tdpm_cli.config import registry
from tdpm_cli.evaluation import inputs, report, scorer
from tdpm_cli.evaluation.metric import load_metrics
from tdpm_cli.evaluation.moments import moments
from tdpm_cli.evaluation.summary import Summary
sides = [torch.randn(50, 4), torch.randn(50, 4)]
more = {"labels": torch.arange(50) % 2, "classes": ("a", "b"), "alignment": torch.rand(50)}
sides = [Summary(50, *moments(x), x, torch.arange(50), **more) for x in sides]
for metric in load_metrics(registry.names("metric")):
    assert metric.compute(*sides)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
