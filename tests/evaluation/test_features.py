import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from helpers import score, scripted
from PIL import Image

from tdpm_cli.config import registry
from tdpm_cli.evaluation.features import inception
from tdpm_cli.evaluation.features.clip import Clip
from tdpm_cli.evaluation.features.dinov2 import Dinov2
from tdpm_cli.evaluation.features.torchscript import TorchScript
from tdpm_cli.runtime.errors import InputError

CPU = torch.device("cpu")
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_CLIP = {**TINY, "intermediate_size": 32, "image_size": 32, "patch_size": 8, "projection_dim": 6}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def dinov2(transformers, tmp_path):
    """A tiny DINOv2 of random weights and the folder it was saved to. Like the published ones it was not
    pre-trained at 224²."""
    torch.manual_seed(0)
    network = transformers.Dinov2Model(transformers.Dinov2Config(**TINY, image_size=42)).eval()
    network.save_pretrained(tmp_path / "dinov2")
    return network, tmp_path / "dinov2"


@pytest.fixture
def clip(transformers, tmp_path):
    """The vision half of a tiny CLIP and the folder it was saved to."""
    torch.manual_seed(0)
    network = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**TINY_CLIP)).eval()
    network.save_pretrained(tmp_path / "clip")
    return network, tmp_path / "clip"


@pytest.fixture
def no_hub(transformers, tmp_path, monkeypatch):
    """Hugging Face's hub out of reach, its cache an empty folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def draw(channels, height=40, width=30, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def by_pil(images, side, mean, std):
    """Resized in floating point, clamped and standardised, each step by Pillow and NumPy."""
    planes = images.expand(-1, 3, -1, -1).float().numpy()
    resize = lambda plane: np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
    resized = np.stack([[resize(plane) for plane in image] for image in planes]).clip(0, 255)
    return torch.from_numpy((resized / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))).float()


@pytest.mark.parametrize("images", [draw(3), draw(1), draw(3, 300, 256, 2)], ids=["colour", "grey", "large"])
def test_dinov2_is_the_class_token_of_transformers_at_224(dinov2, images):
    network, folder = dinov2
    features = Dinov2(CPU, folder)(images)
    x = by_pil(images, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        expected = network(pixel_values=x).last_hidden_state[:, 0]
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-5)
    assert float(expected.std(0).mean()) > 1e-3  # the images differ, so that equal features are significant


@pytest.mark.parametrize("images", [draw(3), draw(1)], ids=["colour", "grey"])
def test_clip_is_the_image_embedding_of_transformers(clip, images):
    network, folder = clip
    features = Clip(CPU, folder)(images)
    x = by_pil(images, 32, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.no_grad():
        expected = network(pixel_values=x).image_embeds
    assert features.shape == (3, 6)
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-5)


def test_clip_reads_its_vision_half_from_a_complete_clip_without_output(transformers, tmp_path, capfd):
    text = {**TINY, "intermediate_size": 32, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config=TINY_CLIP, projection_dim=6)
    complete = transformers.CLIPModel(config).eval()
    complete.save_pretrained(tmp_path / "complete")
    capfd.readouterr()
    features = Clip(CPU, tmp_path / "complete")(draw(3))
    assert capfd.readouterr() == ("", "")
    x = by_pil(draw(3), 32, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.no_grad():
        expected = complete.visual_projection(complete.vision_model(pixel_values=x).pooler_output)
    assert torch.allclose(features, expected, atol=1e-5)


VOCABULARY = ["<|startoftext|>", "<|endoftext|>", "a", "r", "e", "d", "a</w>", "d</w>", "re", "red</w>", "apple</w>"]


@pytest.fixture
def complete_clip(transformers, tmp_path):
    """A tiny CLIP with both halves and a tokenizer of a few words."""
    text = {**TINY, "intermediate_size": 32, "vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": 1,
            "max_position_embeddings": 6, "projection_dim": 6}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=TINY_CLIP, projection_dim=6)
    torch.manual_seed(0)
    complete = transformers.CLIPModel(config).eval()
    folder = tmp_path / "complete"
    complete.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    return complete, folder


def test_clip_scores_images_and_captions(complete_clip):
    complete, folder = complete_clip
    part = Clip(CPU, folder)
    features = part(draw(3))
    captions = [("a red",), ("red", "a"), ("a a a a a a a a a",)]  # the last is longer than the network
    alignment = part.alignment(features, captions)

    def expected(k, text):
        tokens = torch.tensor([[*[0, *({"a": 6, "red": 9}[word] for word in text.split())][:5], 1]])
        with torch.no_grad():
            embedded = complete.get_text_features(tokens)
        embedded = getattr(embedded, "pooler_output", embedded)
        return 100 * torch.cosine_similarity(features[k : k + 1], embedded).clamp(min=0)

    assert torch.allclose(alignment[0], expected(0, "a red"), atol=1e-3)
    assert torch.allclose(alignment[1], (expected(1, "red") + expected(1, "a")) / 2, atol=1e-3)
    assert torch.allclose(alignment[2], expected(2, "a a a a a a a a a"), atol=1e-3)
    (folder / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"vocab\.json"):
        Clip(CPU, folder).alignment(features, captions)


def test_eval_scores_captions(complete_clip, tmp_path):
    _, folder = complete_clip
    place = tmp_path / "images"
    place.mkdir()
    for k, image in enumerate(draw(3)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{k}.png")
    with pytest.raises(InputError, match=r"--text: .*images.*\.txt"):
        score(place, ref=place, features=f"clip:{folder}", text=f"clip:{folder}")
    for k in range(3):
        (place / f"{k}.txt").write_text("a red")
    result = score(place, ref=place, features=f"clip:{folder}", text=f"clip:{folder}")
    (name,) = (name for name in result["scores"] if name.endswith("text score"))
    part = Clip(CPU, folder)
    expected = part.alignment(part(draw(3)), [("a red",)] * 3)
    assert result["scores"][name] == pytest.approx(float(expected.mean()), abs=1e-3)
    assert name in result["standard_errors"]
    with pytest.raises(InputError, match=r"--text efficientnet-lite0: .*clip, or image-text"):
        score(place, ref=place, features=f"clip:{folder}", text="efficientnet-lite0")
    with pytest.raises(InputError, match=r"--text is 'clop'; did you mean 'clip'"):
        score(place, ref=place, features=f"clip:{folder}", text="clop")


def test_half_precision_weights_are_computed_in_full(dinov2):
    network, folder = dinov2
    network.half().save_pretrained(folder)
    features = Dinov2(CPU, folder)(draw(3))
    assert features.dtype == torch.float32
    assert features.isfinite().all()


@pytest.mark.parametrize(("network", "resize"), [("dinov2", "224 × 224"), ("clip", "32 × 32")])
def test_protocols_contain_name_size_and_weights(network, resize, request):
    _, folder = request.getfixturevalue(network)
    protocol = registry.load("features", network)(CPU, folder).protocol
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (protocol["name"], protocol["weights_sha256"]) == (network, digest)
    assert protocol["resize"].startswith(f"{resize}, bicubic")


def rejects(match, folder, extractor=Dinov2):
    with pytest.raises(InputError, match=match):
        extractor(CPU, folder)


def test_rejects_a_path_without_config(dinov2, tmp_path):
    rejects(r"nowhere: config\.json .*Dinov2Model", tmp_path / "nowhere")
    rejects(r"model\.safetensors: config\.json .*Dinov2Model", dinov2[1] / "model.safetensors")


def test_rejects_a_network_of_another_type(dinov2, clip):
    rejects(r"config\.json .*'clip_vision_model'; accepted: 'dinov2'", clip[1])
    rejects(r"config\.json .*'dinov2'; accepted: 'clip_vision_model'", dinov2[1], Clip)


def test_rejects_missing_weights(dinov2, tmp_path):
    network, _ = dinov2
    state = {key: value for key, value in network.state_dict().items() if key != "layernorm.bias"}
    network.save_pretrained(tmp_path / "half", state_dict=state)
    rejects(r"half: model\.safetensors .*\b1\b.*layernorm\.bias", tmp_path / "half")


def test_rejects_weights_of_other_shapes(dinov2):
    network, folder = dinov2
    network.config.hidden_size = 32
    network.config.save_pretrained(folder)
    rejects(r"dinov2/model\.safetensors: .*16,272 .*44,832", folder)


@pytest.mark.parametrize(("file", "content"), [("model.safetensors", b"no weights"), ("config.json", b"{")])
def test_rejects_a_damaged_file(dinov2, file, content):
    (dinov2[1] / file).write_bytes(content)
    rejects(r"dinov2(/model\.safetensors)?: ", dinov2[1])


def test_never_opens_pickled_weights(dinov2):
    network, folder = dinov2
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    rejects(r"dinov2: model\.safetensors .*Dinov2Model", folder)


def test_rejects_dinov2_with_registers(transformers, tmp_path):
    config = transformers.Dinov2WithRegistersConfig(**TINY, image_size=42)
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    rejects(r"'dinov2_with_registers'; accepted: 'dinov2'", tmp_path)


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_names_a_missing_package(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'tdpm-cli\[transformers\]'"):
        registry.load("features", name)(CPU, tmp_path)


@pytest.mark.parametrize(("name", "hub"), [("dinov2", "facebook/dinov2-large"), ("clip", "openai/clip-vit-large-pat")])
def test_without_hub_and_cache_the_error_names_the_options_at_once(name, hub, no_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it retries for minutes"))
    with pytest.raises(InputError) as caught:
        registry.load("features", name)(CPU)
    for key in (hub, f"--features {name}:PATH", "--weights PATH"):
        assert key in str(caught.value)


def test_a_cached_model_needs_no_hub(dinov2, no_hub):
    network, folder = dinov2
    cache = no_hub / "models--facebook--dinov2-large"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    network.save_pretrained(cache / "snapshots" / ("0" * 40))
    assert torch.equal(Dinov2(CPU)(draw(3)), Dinov2(CPU, folder)(draw(3)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere", "no such file"), ("text", "not a file of torch.save"), ("other", "other names or shapes")],
)
def test_rejects_weights_of_another_network_than_efficientnet(tmp_path, name, reason):
    pytest.importorskip("efficientnet_lite_pytorch")
    (tmp_path / "text").write_text("import this")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(InputError, match=rf"{name}: .*EfficientNet-Lite0.*{reason}"):
        registry.load("features", "efficientnet-lite0")(CPU, tmp_path / name)


class Means(torch.nn.Module):
    """Features [B, 3, 1, 1]; its input must be what is promised."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.uint8
        assert x.is_contiguous()
        return x.double().mean((2, 3), keepdim=True)


class Fussy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(2) != 299:
            raise ValueError("images must be 299 × 299")
        return x.float()


class Bytes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class Single(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((0, 2, 3)).unsqueeze(0)


class Flat(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((1, 2, 3))


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize("channels", [1, 3])
def test_torchscript_gets_rgb_bytes_and_returns_flat_features(channels, tmp_path):
    path = scripted(Means(), tmp_path / "means.pt")
    extract, images = TorchScript(CPU, path), draw(channels)
    features = extract(images)
    assert features.shape == (3, 3)
    assert features.dtype == torch.float32
    assert torch.allclose(features, images.expand(-1, 3, -1, -1).float().mean((2, 3)))
    assert extract.protocol == {
        "name": "torchscript",
        "resize": "by the module",
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, r"--features torchscript:PATH or --weights PATH"),
        ("none.pt", r"none\.pt: no such file"),
        ("text.pt", r"text\.pt: not TorchScript"),
        ("state.pt", r"state\.pt: not TorchScript"),
    ],
)
def test_rejects_files_that_are_not_torchscript(tmp_path, name, message):
    (tmp_path / "text.pt").write_text("no module")
    torch.save({"weight": torch.ones(2)}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=message):
        TorchScript(CPU, name and tmp_path / name)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fussy(), r"failed on images uint8 \[3, 3, 40, 30\]: builtins\.ValueError: images must be 299 × 299"),
        (Bytes(), r"returned uint8 \[3, 3600\]; accepted: floating point \[3, D\] for 3 images"),
        (Single(), r"returned float32 \[1, 3\]; accepted"),
        (Flat(), r"returned float32 \[3\]; accepted"),
        (Pair(), r"returned a tuple; accepted"),
    ],
)
def test_rejects_modules_with_other_outputs(module, message, tmp_path):
    extract = TorchScript(CPU, scripted(module, tmp_path / "module.pt"))
    with pytest.raises(InputError, match=rf"module\.pt: the module {message}"):
        extract(draw(3))


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_weights_than_the_published_are_not_called_inception(stand_in, monkeypatch):
    extract = inception.Inception(CPU, stand_in)
    assert extract(extract.prepare(draw(1))).shape == (3, 2048)
    assert extract.protocol["name"] == f"inception-{digest_of(stand_in)[:8]}"
    assert extract.protocol["weights_sha256"] == digest_of(stand_in)
    monkeypatch.setattr(inception, "SHA256", digest_of(stand_in))
    assert inception.Inception(CPU, stand_in).protocol["name"] == "inception"


def test_a_download_is_kept_only_if_it_is_the_published_file(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", stand_in.as_uri())
    cache = tmp_path / "cache" / "tdpm"
    with pytest.raises(InputError) as caught:
        inception.Inception(CPU)
    for part in (stand_in.as_uri(), digest_of(stand_in), inception.SHA256, "run again"):
        assert part in str(caught.value)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(inception, "SHA256", digest_of(stand_in))
    assert inception.Inception(CPU).protocol["name"] == "inception"
    assert [path.name for path in cache.iterdir()] == [inception.FILE]


def test_a_damaged_copy_in_the_cache_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "tdpm" / inception.FILE
    path.parent.mkdir()
    path.write_bytes(b"half a file")
    with pytest.raises(InputError) as caught:
        inception.Inception(CPU)
    for part in (str(path), digest_of(path), inception.SHA256, "delete it"):
        assert part in str(caught.value)
