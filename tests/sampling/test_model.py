"""The public Python API, and the model as an auto-encoder."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import sample

import tdpm_cli as tdpm
from tdpm_cli.engine.inversion import invert
from tdpm_cli.engine.samplers.ddim import ddim
from tdpm_cli.engine.schedules.linear import linear

NAMES = ["Confirmation", "Denoiser", "InputError", "Model", "Noise", "Schedule", "TDPM", "invert", "load", "samplers"]
METHODS = ["cond", "config", "decode", "draw_x_T", "edit", "encode", "interpolate", "interpolate_z", "logits", "nfe",
           "noised", "sample", "schedule", "settings", "tdpm"]  # fmt: skip


def test_the_public_names():
    assert sorted(tdpm.__all__) == NAMES
    assert all(getattr(tdpm, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(tdpm))
    assert sorted(name for name in vars(tdpm.Model) if not name.startswith("_")) == METHODS
    assert all(inspect.getdoc(getattr(tdpm.Model, name)) for name in METHODS)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tdpm.nothing  # noqa: B018


def test_importing_the_package_is_light(tmp_path):
    code = "import sys, tdpm_cli; print(sorted({'torch', 'numpy', 'PIL', 'yaml', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("which", ["images", "labels", "points"])
def test_samples_are_those_of_the_command(runs, tmp_path, which):
    import numpy as np

    model = tdpm.load(runs[which], "cpu")
    sample(tmp_path / "out", 5, runs[which], steps=3, seed=7, format="npz")
    with np.load(tmp_path / "out" / "samples.npz") as file:
        theirs = torch.from_numpy(file["arr_0"])
    theirs = theirs.permute(0, 3, 1, 2) if theirs.ndim == 4 else theirs
    ours = model.sample(5, steps=3, seed=7)
    assert torch.equal(ours, theirs)
    later = model.sample(2, first=3, steps=3, seed=7, batch=1)
    assert (later.double() - theirs[3:].double()).abs().max() <= (1 if ours.dtype == torch.uint8 else 1e-5)
    assert model.nfe(steps=3) == 4


def test_labels_choose_and_are_checked(runs):
    model = tdpm.load(runs["labels"], "cpu")
    assert not torch.equal(model.draw_x_T(4, labels=[3]), model.draw_x_T(4, labels=[4]))
    with pytest.raises(tdpm.InputError, match=r"^labels.*'11'"):
        model.sample(1, labels=[11])


def test_decoding_the_priors_draws_is_sampling(runs):
    model = tdpm.load(runs["images"], "cpu")
    again = model.decode(model.draw_x_T(3, seed=1), steps=4)
    assert torch.equal(again, model.sample(3, seed=1, steps=4))


def test_decoding_a_later_part_uses_the_noise_of_its_examples(runs):
    model = tdpm.load(runs["images"], "cpu")
    x_T, options = model.draw_x_T(4), {"steps": 4, "sampler": "ddpm", "seed": 5}
    together, first = model.decode(x_T, **options), model.decode(x_T[2:], **options)
    later = model.decode(x_T[2:], first=2, **options)
    assert (later.int() - together[2:].int()).abs().max() <= 1
    assert (first.int() - together[2:].int()).abs().max() > 1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda model, images: model.sample(1, steps=101), "steps is 101"),
        (lambda model, images: model.sample(1, stepz=3), "stepz"),
        (lambda model, images: model.encode(images[:, :, :4]), r"\[n, 1, 8, 8\]"),
        (lambda model, images: model.encode(images, iterations=0), "iterations is 0"),
        (lambda model, images: model.decode(torch.zeros(2, 3)), r"\[2, 3\]"),
        (lambda model, images: model.noised(images, t=0), "t is 0"),
        (lambda model, images: model.edit(images, 1.5), "strength is 1.5"),
        (lambda model, images: model.interpolate(images[0], images[1], 1), "frames is 1"),
        (lambda model, images: model.interpolate(images[0], images[1], 3, iterations=0), "iterations is 0"),
        (lambda model, images: model.interpolate(images[0].float(), images[1], 3), "a have the type"),
        (lambda model, images: model.sample(0), "n is 0"),
        (lambda model, images: model.sample(-1), "n is -1"),
        (lambda model, images: model.sample(1.5), r"n is 1\.5"),
        (lambda model, images: model.sample("2"), "n is '2'"),
        (lambda model, images: model.sample(True), "n is True"),
        (lambda model, images: model.sample(None), "n is None"),
        (lambda model, images: model.sample(1, seed=-1), "seed is -1"),
        (lambda model, images: model.sample(1, seed=2**64), "seed is"),
        (lambda model, images: model.sample(1, first=-1), "first is -1"),
        (lambda model, images: model.sample(1, labels=["cat"]), "labels"),
        (lambda model, images: model.draw_x_T(0), "n is 0"),
        (lambda model, images: model.sample(1, guidance_scale=2), "guidance_scale is 2"),
        (lambda model, images: model.sample(1, precision="fp8"), "precision"),
        (lambda model, images: model.sample(1, sampler="dim"), "sampler"),
        (lambda model, images: model.sample(1, batch=0), "batch is 0"),
        (lambda model, images: model.encode(images.float() / 255), "uint8"),
        (lambda model, images: model.encode(images.long()), "uint8"),
        (lambda model, images: model.encode(images.numpy() / 255), "uint8"),
        (lambda model, images: model.encode(images[:0]), r"\[0, 1, 8, 8\]"),
        (lambda model, images: model.encode(images[0]), r"\[1, 8, 8\]"),
        (lambda model, images: model.encode(images.tolist()), "images is list"),
        (lambda model, images: model.encode(np.array(["a"])), "images"),
        (lambda model, images: model.encode(np.array([None])), "images"),
        (lambda model, images: model.edit("x.png", 0.5), "images is str"),
        (lambda model, images: model.noised(images, seed=-1), "seed is -1"),
        (lambda model, images: model.decode(None), "x_t is NoneType"),
        (lambda model, images: model.decode(torch.full((1, 1, 8, 8), torch.nan)), "x_t has values"),
        (lambda model, images: model.logits(images.double()), "uint8"),
        (lambda model, images: model.interpolate_z((0, -1), 3), r"seeds\[1\] is -1"),
    ],
)
def test_invalid_arguments_are_rejected(runs, call, match):
    model = tdpm.load(runs["images"], "cpu")
    with pytest.raises(tdpm.InputError, match=match) as rejected:
        call(model, model.sample(2))
    assert "--" not in str(rejected.value)


@pytest.mark.parametrize(
    "device", ["cuda:99", "nonsense", "meta", 3.5, "cuda" if not torch.cuda.is_available() else "xpu"]
)
def test_a_device_that_does_not_work_is_rejected(runs, device):
    with pytest.raises(tdpm.InputError, match="device"):
        tdpm.load(runs["images"], device)


@pytest.mark.parametrize("source", [3, "no/such/run", b"x"])
def test_a_source_without_a_model_is_rejected(runs, source):
    with pytest.raises(tdpm.InputError) as rejected:
        tdpm.load(source)
    assert "--" not in str(rejected.value)


def test_arrays_of_numpy_are_images(runs):
    model = tdpm.load(runs["images"], "cpu")
    images = model.sample(2)
    array = images.numpy()[:, :, ::-1]
    array.flags.writeable = False
    x_T = model.encode(images.flip(2))
    assert torch.equal(model.encode(array), x_T)
    assert torch.equal(model.decode(x_T.numpy()), model.decode(x_T))
    assert torch.equal(model.edit(array, 0.5), model.edit(images.flip(2), 0.5))
    assert torch.equal(model.interpolate(array[0], array[1], 2), model.interpolate(*images.flip(2), 2))
    assert len(model.sample(np.int64(2), seed=np.int64(1))) == 2


@pytest.mark.parametrize("labels", [3, "3", [3], ["3"], np.array([3]), torch.tensor([3])], ids=str)
def test_labels_of_any_type(runs, labels):
    model = tdpm.load(runs["labels"], "cpu")
    assert torch.equal(model.draw_x_T(2, labels=labels), model.draw_x_T(2, labels=["3"]))


@pytest.mark.parametrize("which", ["images", "labels", "points"])
def test_a_model_shows_what_it_is(runs, which):
    model = tdpm.load(runs[which], "cpu")
    text = repr(model)
    assert str(list(model.space.raw_shape)) in text
    assert model.config.preset in text
    assert f"T={model.schedule.T}" in text
    assert "\n" not in text


def gaussian_denoiser(schedule, variance):
    """E[x_0 | x_t] for x_0 ~ N(0, variance): linear in x_t."""

    def denoise(x_t, t):
        alpha, sigma = schedule.coefficients(t, x_t)
        return alpha * variance / (alpha**2 * variance + sigma**2) * x_t

    return denoise


def test_settings_go_over_the_presets(runs):
    model = tdpm.load(runs["images"])
    settings = model.settings(sampler="ddim", eta=1, steps=2)
    assert (settings.sampler, settings.options, settings.steps) == ("ddim", {"eta": 1.0}, 2)
    assert type(settings.options["eta"]) is float
    assert model.settings(sampler="ddim", options={"eta": 1.0}, steps=2) == settings
    with pytest.raises(tdpm.InputError, match=r"^stepz: no such key; did you mean 'steps'\? Accepted: steps, spacing"):
        model.settings(stepz=3)


def test_inversion_with_many_iterations_undoes_ddim(generator):
    schedule = linear().truncate(step=300)
    denoise, times = gaussian_denoiser(schedule, 2.0), schedule.respace(6)
    x_0 = torch.randn(50, 3, generator=generator, dtype=torch.float64)

    def error(iterations):
        x_T = invert(denoise, x_0, times, schedule, iterations=iterations)
        return float((ddim(denoise, x_T, times, schedule, noise=None) - x_0).abs().max())

    assert error(1) > 0.01
    assert error(60) < 1e-9


def test_inversion_comes_nearer_with_more_steps(generator):
    """Of N(0, v), DDIM's limit is the map that scales by √(alpha_T² v + sigma_T²) / √v; the error is first order."""
    schedule = linear().truncate(step=512)
    denoise = gaussian_denoiser(schedule, 2.0)
    x_0 = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    exact = x_0 * ((schedule.alpha(512) ** 2 * 2 + schedule.sigma(512) ** 2) / 2) ** 0.5
    errors = [
        float((invert(denoise, x_0, schedule.respace(steps, 2.0), schedule) - exact).abs().max())
        for steps in (8, 16, 32)
    ]
    assert errors[0] > 1.6 * errors[1] > 2.56 * errors[2]


def test_inverting_and_decoding_through_the_model(runs, generator):
    model = tdpm.load(runs["images"], "cpu")
    for weight in model.tdpm.parameters():  # a network that does something: its last layer began at 0
        weight += 0.1 * torch.randn(weight.shape, generator=generator)
    images = model.sample(8, seed=3)

    def error(steps, iterations=1):
        x_T = model.encode(images, steps=steps, iterations=iterations)
        back = model.decode(x_T, steps=steps, sampler="ddim", clip=False)
        return float((back.double() - images.double()).square().mean())

    assert error(64) < error(4)
    x_T = model.noised(images, seed=5)
    expected = model.schedule.alpha(100) * (images.float() / 127.5 - 1)
    assert float((x_T - expected).std()) == pytest.approx(model.schedule.sigma(100), rel=0.1)


def test_editing_keeps_more_at_less_strength(runs):
    model = tdpm.load(runs["images"], "cpu")
    images = model.sample(8, seed=3)
    changed = [
        float((model.edit(images, strength, steps=4).double() - images.double()).abs().mean())
        for strength in (0.02, 0.3, 1.0)
    ]
    assert changed == sorted(changed)
