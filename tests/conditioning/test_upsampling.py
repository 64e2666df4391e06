"""The second stage of a cascade: small images are enlarged."""

import json

import pytest
import torch
from helpers import sample, score
from PIL import Image

from tdpm_cli.conditioning.upsampling import Upsampling
from tdpm_cli.config import schema as config
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.models.discriminators.resnet import ResNet
from tdpm_cli.models.priors.stylegan2 import StyleGAN2
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.sample import grid_path
from tdpm_cli.training.train import train

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LARGER = ["condition.name=upsampling", "condition.low=[1, 4, 4]", "condition.tokens=8",
          f"condition.names=[{', '.join(DIGITS)}]"]  # fmt: skip


def test_the_smaller_image_is_the_mean_of_its_pixels_with_noise_in_training():
    condition = Upsampling(low=[3, 2, 2], low_noise=0.5, tokens=6)
    raw = torch.zeros(200, 3, 4, 4, dtype=torch.uint8)
    raw[:, :, :2, :2] = torch.tensor([[255, 255], [255, 0]])
    raw_condition = {"captions": [("a cat",)] * 200, "raw": raw}
    low = condition.encode(raw_condition)["low"]
    assert torch.allclose(low[0, 0], torch.tensor([[0.5, -1], [-1, -1]]), atol=1e-5)
    noisy = condition.encode(raw_condition, torch.Generator().manual_seed(0))["low"] - low
    strengths = noisy.flatten(1).std(1)
    assert strengths.min() < 0.1 < 0.4 < strengths.max() < 0.9
    assert float(noisy.mean()) == pytest.approx(0, abs=0.02)
    small = condition.encode({"captions": [("a cat",)], "low": torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)})
    assert torch.equal(small["low"], torch.ones(1, 3, 2, 2))
    assert small.keys() == condition.sizes.keys() == condition.null(2).keys()


CAPTIONS = {"captions": [("a cat",)]}


def test_upsampling_needs_a_small_image():
    with pytest.raises(InputError, match=r"--upsample"):
        Upsampling(low=[3, 8, 8], tokens=6).encode(CAPTIONS)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 4, 16), (1, 2)])
def test_upsampling_rejects_images_of_another_shape(shape):
    with pytest.raises(InputError, match=r"condition\.low.*\[3, 8, 8\]"):
        Upsampling(low=[3, 8, 8], tokens=6).encode(CAPTIONS | {"raw": torch.zeros(shape, dtype=torch.uint8)})


def test_upsampling_rejects_a_generator_as_prior():
    with pytest.raises(InputError, match=r"prior\.name.*\bshared\b.*\bcopy\b"):
        StyleGAN2((3, 16, 16), {"low": 3}, None, None)


def test_both_networks_use_the_smaller_image():
    x, low = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 8, 8)
    network = UNet((3, 16, 16), {"low": 3}, channels=8, mult=[1, 2], blocks=1, attention=[8])
    torch.nn.init.normal_(network.leave.weight)
    discriminator = ResNet((3, 16, 16), {"low": 3}, channel_base=64)
    for call in (
        lambda low: network(x, torch.ones(4, dtype=torch.long), low=low),
        lambda low: discriminator(x, low=low),
    ):
        assert not torch.allclose(call(low), call(-low), atol=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from helpers import tiny_image_preset

    return train(config.load_config(tiny_image_preset(*LARGER)), tmp_path_factory.mktemp("larger"), "larger")


def small_images(folder, n, captions=True):
    """n grey images of 4×4 pixels, as `tdpm sample` would have written them."""
    folder.mkdir()
    for k in range(n):
        Image.new("L", (4, 4), 40 * k).save(folder / f"{k:06d}.png")
        if captions:
            (folder / f"{k:06d}.txt").write_text(f"a photo of a {DIGITS[k]}")
    return folder


def test_a_folder_is_enlarged(run, tmp_path):
    small = small_images(tmp_path / "small", 5)
    sample(tmp_path / "large", None, run, upsample=small)
    manifest = json.loads((tmp_path / "large" / "samples.json").read_text())
    assert [texts[0] for texts in manifest["conditions"]["captions"]] == [f"a photo of a {w}" for w in DIGITS[:5]]
    assert manifest["upsample"]["images"] == str(small)
    large = [Image.open(tmp_path / "large" / f"{k:06d}.png").tobytes() for k in range(5)]
    assert len(large[0]) == 64
    assert len(set(large)) == 5
    with Image.open(grid_path(tmp_path / "large")) as grid:
        assert grid.width > grid.height  # the small images beside the enlarged ones
    sample(tmp_path / "prompted", 2, run, upsample=small, prompts=["a photo of a nine"])
    recorded = json.loads((tmp_path / "prompted" / "samples.json").read_text())["conditions"]
    assert recorded == {"captions": [["a photo of a nine"]] * 2}
    assert score(tmp_path / "large", features="efficientnet-lite0", ref=tmp_path / "prompted")["scores"]


def test_rejects_small_images_with_a_damaged_manifest(run, tmp_path):
    small = small_images(tmp_path / "small", 2)
    (small / "samples.json").write_text("{")
    with pytest.raises(InputError, match=r"small/samples\.json: damaged") as caught:
        sample(tmp_path / "out", None, run, upsample=small)
    assert "--overwrite" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "folder", "options", "message"),
    [
        ("larger", "small", {"n": 3}, r"--n\b.*\b3\b.*\b2\b"),
        ("larger", "bare", {"n": None}, r"--upsample.*--prompt"),
        ("larger", "other", {"n": None}, r"\[1, 8, 8\].*\[1, 4, 4\]"),
        ("larger", None, {"n": 2}, r"--upsample"),
        ("larger", None, {"n": 2, "prompts": ["a nine"]}, r"--upsample"),
        ("images", "small", {"n": 2}, r"--upsample"),
    ],
    ids=["count", "no captions", "shape", "no images", "prompts only", "another model"],
)
def test_sampling_rejects_what_it_cannot_enlarge(run, runs, tmp_path, model, folder, options, message):
    small_images(tmp_path / "small", 2)
    small_images(tmp_path / "bare", 2, captions=False)
    (tmp_path / "other").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "other" / "0.png")
    options = options | ({"upsample": tmp_path / folder} if folder else {})
    with pytest.raises(InputError, match=message):
        sample(tmp_path / "out", model={**runs, "larger": run}[model], **options)
    assert not (tmp_path / "out").exists()
