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

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LARGER = ["condition.name=upsampling", "condition.low=[1, 4, 4]", "condition.tokens=8",
          f"condition.names=[{', '.join(WORDS)}]"]  # fmt: skip


def test_the_smaller_image_is_the_mean_of_its_pixels_with_noise_in_training():
    condition = Upsampling(low=[3, 2, 2], low_noise=0.5, tokens=6)
    raw = torch.zeros(200, 3, 4, 4, dtype=torch.uint8)
    raw[:, :, :2, :2] = torch.tensor([[255, 255], [255, 0]])
    given = {"captions": [("a cat",)] * 200, "raw": raw}
    low = condition.encode(given)["low"]
    assert torch.allclose(low[0, 0], torch.tensor([[0.5, -1], [-1, -1]]), atol=1e-5)
    noisy = condition.encode(given, torch.Generator().manual_seed(0))["low"] - low
    strengths = noisy.flatten(1).std(1)
    assert strengths.min() < 0.1 < 0.4 < strengths.max() < 0.9
    assert float(noisy.mean()) == pytest.approx(0, abs=0.02)
    as_given = condition.encode({"captions": [("a cat",)], "low": torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)})
    assert torch.equal(as_given["low"], torch.ones(1, 3, 2, 2))
    assert as_given.keys() == condition.sizes.keys() == condition.null(2).keys()


def test_what_it_cannot_do_is_said():
    condition = Upsampling(low=[3, 8, 8], tokens=6)
    captions = {"captions": [("a cat",)]}
    with pytest.raises(InputError, match=r"--upsample"):
        condition.encode(captions)
    for shape in ((1, 1, 16, 16), (1, 3, 4, 16), (1, 2)):
        with pytest.raises(InputError, match=r"condition.low is \[3, 8, 8\], but the data are"):
            condition.encode(captions | {"raw": torch.zeros(shape, dtype=torch.uint8)})
    with pytest.raises(InputError, match=r"prior.name.*shared or copy"):
        StyleGAN2((3, 16, 16), {"low": 3}, None, None)


def test_both_networks_look_at_the_smaller_image():
    x, low = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 8, 8)
    network = UNet((3, 16, 16), {"low": 3}, channels=8, mult=[1, 2], blocks=1, attention=[8])
    torch.nn.init.normal_(network.leave.weight)
    judge = ResNet((3, 16, 16), {"low": 3}, channel_base=64)
    for call in (lambda low: network(x, torch.ones(4, dtype=torch.long), low=low), lambda low: judge(x, low=low)):
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
            (folder / f"{k:06d}.txt").write_text(f"a photo of a {WORDS[k]}")
    return folder


def test_a_folder_is_enlarged(run, tmp_path):
    small = small_images(tmp_path / "small", 5)
    sample(tmp_path / "large", None, run, upsample=small)
    manifest = json.loads((tmp_path / "large" / "samples.json").read_text())
    assert [texts[0] for texts in manifest["conditions"]["captions"]] == [f"a photo of a {w}" for w in WORDS[:5]]
    assert manifest["upsample"]["images"] == str(small)
    large = [Image.open(tmp_path / "large" / f"{k:06d}.png").tobytes() for k in range(5)]
    assert len(large[0]) == 64
    assert len(set(large)) == 5
    with Image.open(grid_path(tmp_path / "large")) as grid:
        assert grid.width > grid.height  # the small images beside the enlarged ones
    sample(tmp_path / "asked", 2, run, upsample=small, prompts=["a photo of a nine"])
    told = json.loads((tmp_path / "asked" / "samples.json").read_text())["conditions"]
    assert told == {"captions": [["a photo of a nine"]] * 2}
    assert score(tmp_path / "large", features="efficientnet-lite0")["scores"]


def test_what_cannot_be_enlarged_is_said(run, runs, tmp_path):
    small, bare = small_images(tmp_path / "small", 2), small_images(tmp_path / "bare", 2, captions=False)
    (tmp_path / "other").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "other" / "0.png")
    cases = [
        (run, {"n": 3, "upsample": small}, r"--n is 3, but .* 2 images"),
        (run, {"n": None, "upsample": bare}, r"--upsample: .* captions.*--prompt"),
        (
            run,
            {"n": None, "upsample": tmp_path / "other"},
            r"images of \[1, 8, 8\]; the model enlarges \[1, 4",
        ),
        (run, {"n": 2}, r"`tdpm sample --upsample`"),
        (run, {"n": 2, "prompts": ["a nine"]}, r"--upsample"),
        (runs["images"], {"n": 2, "upsample": small}, r"the model does not enlarge images"),
    ]
    for model, options, message in cases:
        with pytest.raises(InputError, match=message):
            sample(tmp_path / "out", model=model, **options)
    assert not (tmp_path / "out").exists()
