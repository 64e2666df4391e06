import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import export, rewrite_with_keys_of_0_1_0, sample
from PIL import Image
from safetensors.torch import save_file

from tdpm_cli.config import load_config, registry
from tdpm_cli.config import schema as config
from tdpm_cli.engine.noise import Noise
from tdpm_cli.runtime import locks
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build, sample_store
from tdpm_cli.sampling.sample import grid_path
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.settings import nfe_text, settings_of


def pixels(folder):
    images = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            images[path.name] = np.array(image).astype(int)
    return images


def test_the_manifest_records_what_the_images_depend_on(runs, tmp_path):
    out = tmp_path / "out"
    sample(out, 5, runs["images"], steps=3, seed=7)
    assert {p.name for p in out.iterdir()} == {"samples.json", *(f"{k:06d}.png" for k in range(5))}
    assert all(image.shape == (8, 8) for image in pixels(out).values())
    with Image.open(grid_path(out)) as grid:
        assert grid.format == "PNG"
    manifest = json.loads((out / "samples.json").read_text())
    assert (manifest["steps"], manifest["seed"], manifest["nfe"], manifest["nfe_text"]) == (3, 7, 4, "1 + 3")
    assert manifest["model_sha256"] == build.load_model(runs["images"]).sha256
    assert load_config(manifest["config"]).data.name == "digits"


@pytest.mark.parametrize(
    "options", [{"steps": 4}, {"steps": 2, "sampler": "ddpm"}, {"steps": 2, "sampler": "ddim", "eta": 0.7}]
)
def test_the_same_seed_is_the_same_image_at_any_batch(runs, tmp_path, options):
    for batch in (1, 4, 16):
        sample(tmp_path / str(batch), 8, runs["images"], batch=batch, seed=3, **options)
    one, four, sixteen = (pixels(tmp_path / str(batch)) for batch in (1, 4, 16))
    for name in one:  # networks round differently at another batch size: at most one grey level
        assert np.abs(one[name] - four[name]).max() <= 1
        assert np.abs(one[name] - sixteen[name]).max() <= 1
    assert np.abs(one["000000.png"] - one["000001.png"]).max() > 1


def test_a_folder_of_0_1_0_is_continued(runs, tmp_path):
    sample(tmp_path / "out", 3, runs["images"])
    drawn = pixels(tmp_path / "out")
    rewrite_with_keys_of_0_1_0(tmp_path / "out" / "samples.json")
    assert "scale" in json.loads((tmp_path / "out" / "samples.json").read_text())
    (tmp_path / "out" / "000001.png").unlink()
    sample(tmp_path / "out", 3, runs["images"])
    assert all((pixels(tmp_path / "out")[name] == image).all() for name, image in drawn.items())


def test_sampling_continues_where_it_stopped(runs, tmp_path):
    complete, out = tmp_path / "complete", tmp_path / "out"
    sample(complete, 9, runs["images"], batch=3)
    sample(out, 6, runs["images"], batch=3)
    (out / "000002.png").unlink()
    kept = (out / "000001.png").stat().st_mtime_ns
    sample(out, 9, runs["images"], batch=3)
    assert (out / "000001.png").stat().st_mtime_ns == kept
    assert pixels(out).keys() == pixels(complete).keys()
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(pixels(out).values(), pixels(complete).values(), strict=True))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("model", "store"), [("images", sample_store.SampleImages), ("points", sample_store.SampleArray)]
)
def test_interrupted_sampling_is_finished_byte_for_byte(runs, tmp_path, monkeypatch, model, store):
    complete, out = tmp_path / "complete", tmp_path / "out"
    sample(complete, 11, runs[model], batch=4)
    write, written = store.write, []

    def interrupted_write(self, piece, raw):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(piece)
        write(self, piece, raw)

    monkeypatch.setattr(store, "write", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        sample(out, 11, runs[model], batch=4)
    monkeypatch.undo()
    (out / "000009.png.4711.part").write_bytes(b"half a picture")
    first = (out / "000000.png").stat().st_mtime_ns if model == "images" else 0
    sample(out, 11, runs[model], batch=4)
    left = {} if model == "images" else {"000009.png.4711.part"}
    assert {name: content for name, content in contents(out).items() if name not in left} == contents(complete)
    assert not first or (out / "000000.png").stat().st_mtime_ns == first


def test_several_processes_fill_one_folder(runs, tmp_path):
    complete, out = tmp_path / "complete", tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "tdpm_cli",
        "sample",
        "--n",
        "300",
        "--batch",
        "10",
        "--model",
        str(runs["images"]),
    ]
    processes = [
        subprocess.Popen(
            [*command, str(folder)], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        for folder in (complete, out, out)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert contents(out) == contents(complete)


def test_a_piece_belongs_to_one_process_at_a_time(tmp_path):
    code = (
        "import sys, time; from tdpm_cli.runtime.locks import *; held = WorkLocks(Path(sys.argv[1]))\n"
        "print(held.acquire(1), flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    mine, done = locks.WorkLocks(tmp_path / "x"), set()
    assert [mine.acquire(k) for k in range(3)] == [True, False, True]
    pieces = [range(k, k + 1) for k in range(3)]
    stream = locks.unfinished(pieces, done.__contains__, mine, 0, lambda: False)
    order = []
    for piece in stream:
        order.append(piece.start)
        done.add(piece)
        if piece.start == 2:
            other.kill()  # which frees its pieces
            other.wait()
    other.stdout.close()
    assert order == [0, 2, 1]


def test_other_settings_and_a_smaller_count_are_rejected(runs, tmp_path):
    out = tmp_path / "out"
    sample(out, 2, runs["images"], steps=4)
    before = pixels(out)
    with pytest.raises(InputError, match=r"steps: 4\b.*\b3\b(.|\n)*--overwrite"):
        sample(out, 2, runs["images"], steps=3)
    with pytest.raises(InputError, match=r"model_sha256"):
        sample(out, 2, runs["labels"])
    with pytest.raises(InputError, match=r"--n 1"):
        sample(out, 1, runs["images"], steps=4)
    assert all((pixels(out)[name] == before[name]).all() for name in before)
    sample(out, 1, runs["images"], steps=3, overwrite=True)
    assert len(pixels(out)) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "message"), [("", r"samples\.json"), ("notes.txt", r"notes\.txt")], ids=["folder", "file"]
)
def test_other_folders_and_files_are_not_overwritten(runs, tmp_path, name, message, overwrite):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=message):
        sample(tmp_path / "mine" / name, 1, runs["images"], overwrite=overwrite)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 101}, r"--steps is 101\b.*\b1 to 100\b"),
        ({"sampler": "dmpp"}, r"--sampler is 'dmpp'.*'dpmpp_2m'"),
        ({"sampler": "ddpm", "eta": 0.5}, r"\bddpm\.eta\b"),
        ({"guidance_scale": 2.0}, r"--guidance-scale is 2"),
        ({"labels": ["3"]}, r"--labels"),
        ({"format": "jpg"}, r"--format is 'jpg'.*'png'"),
        ({"sampler": "ddim", "eta": float("nan")}, r"eta is nan"),
        ({"guidance_scale": -1.0}, r"--guidance-scale is -1\.0"),
        ({"batch": 0}, r"--batch is 0"),
        ({"steps": 0}, r"--steps is 0"),
    ],
)
def test_settings_that_do_not_fit_are_rejected_before_anything_is_written(runs, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        sample(tmp_path / "out", 2, runs["images"], **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, r"--model"),
        (".", r"checkpoint"),
        ("damaged.safetensors", r"damaged\.safetensors"),
        ("other.safetensors", r"other\.safetensors.*\bheader\b"),
    ],
    ids=["no run", "no checkpoint", "damaged", "of another program"],
)
def test_a_missing_or_wrong_model_is_named(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=message):
        sample(tmp_path / "out", 1, name and tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_labels_by_number_or_name_repeat_in_order(runs, tmp_path):
    sample(tmp_path / "a", 4, runs["labels"], labels=["3", "7"], guidance_scale=2.0, format="npz")
    with np.load(tmp_path / "a" / "samples.npz") as file:
        assert file["arr_0"].shape == (4, 8, 8, 1)
        assert file["arr_0"].dtype == np.uint8
        assert file["arr_1"].tolist() == [3, 7, 3, 7]
    assert json.loads((tmp_path / "a" / "samples.json").read_text())["nfe_text"] == "1 + 2·4"
    with pytest.raises(InputError, match=r"--labels.*'ten'"):
        sample(tmp_path / "b", 4, runs["labels"], labels=["ten"])


def test_the_label_of_every_image_is_recorded(runs, tmp_path):
    sample(tmp_path / "a", 3, runs["labels"], seed=1)
    sample(tmp_path / "a", 6, runs["labels"], seed=1)
    drawn = json.loads((tmp_path / "a" / "samples.json").read_text())["conditions"]["label"]
    assert len(drawn) == 6
    sample(tmp_path / "b", 6, runs["labels"], seed=1, labels=[str(label) for label in drawn])
    assert all(
        (a == b).all() for a, b in zip(pixels(tmp_path / "a").values(), pixels(tmp_path / "b").values(), strict=True)
    )


def test_the_grid_is_beside_the_folder_under_every_name_of_it(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert grid_path(Path(".")) == grid_path(tmp_path / "out") == tmp_path / "out-grid.png"


def test_guidance_takes_the_calls_that_nfe_states(runs):
    components = build.load_model(runs["labels"]).components
    examples = []
    network = components.model.denoiser.network
    network.register_forward_hook(lambda module, args, output: examples.append(len(args[0])))
    for scale, prior_guidance_scale in itertools.product((1.0, 3.0), repeat=2):
        examples.clear()
        guidance = {"guidance_scale": scale, "prior_guidance_scale": prior_guidance_scale}
        sample_batch(components, settings_of(components, steps=3, **guidance), BatchInput(0, range(2)))
        assert sum(examples) == 2 * components.model.nfe(3, **guidance)
    settings = settings_of(components, steps=3, guidance_scale=3.0, prior_guidance_scale=2.0)
    assert nfe_text(components.model, settings) == "2 + 2·3"


def test_a_guided_prior_is_drawn_and_recorded_and_needs_a_condition(runs, tmp_path):
    sample(tmp_path / "guided", 4, runs["labels"], labels=["3"], prior_guidance_scale=3.0)
    sample(tmp_path / "plain", 4, runs["labels"], labels=["3"])
    pictures = [[Image.open(tmp_path / name / f"{k:06d}.png").tobytes() for k in range(4)] for name in
                ("guided", "plain")]  # fmt: skip
    assert pictures[0] != pictures[1]
    manifest = json.loads((tmp_path / "guided" / "samples.json").read_text())
    assert (manifest["prior_guidance_scale"], manifest["nfe"], manifest["nfe_text"]) == (3.0, 6, "2 + 4")
    with pytest.raises(InputError, match=r"--prior-guidance-scale is 2\b"):
        sample(tmp_path / "out", 2, runs["images"], prior_guidance_scale=2.0)


@pytest.mark.parametrize("name", ["shared-x0", "x0-then-noise"])
def test_guidance_leaves_the_noise_of_a_prior_of_x_0_at_T(tiny_images, name):
    labels = ["condition.name=labels", "condition.classes=10", f"prior.name={name}"]
    components = build.build(config.load_config(tiny_images(*labels)))
    for parameter in components.model.parameters():
        if not parameter.any():  # zeroed layers would hide a difference
            torch.nn.init.normal_(parameter, std=0.1)
    cond, null = {"label": torch.tensor([3, 3])}, components.condition.null(2)
    z = Noise(0, [0, 1]).normal(components.model.prior.z_shape)
    other = z.clone()
    size = 64  # the noise comes last, or, where z is an image, in the last channel
    other.flatten(1)[:, -size:] = Noise(1, [0, 1]).normal((size,))
    eps = (other - z).flatten(1)[:, -size:].view(2, 1, 8, 8)
    schedule = components.model.denoiser.schedule
    with torch.no_grad():
        guided, moved = (components.model.x_T_of(noise, cond, guidance_scale=4.0, null=null) for noise in (z, other))
        plain = components.model.x_T_of(z, cond)
    assert torch.allclose(moved - guided, schedule.sigma(schedule.T) * eps, atol=1e-4)
    assert not torch.allclose(guided, plain, atol=1e-3)


@pytest.mark.parametrize("sampler", registry.names("sampler"))
def test_every_sampler_is_reached_by_its_name(runs, tmp_path, sampler):
    sample(tmp_path / sampler, 2, runs["points"], sampler=sampler, steps=3)
    with np.load(tmp_path / sampler / "samples.npz") as file:
        assert np.isfinite(file["arr_0"]).all()


def test_an_exported_file_contains_the_complete_model(runs, tmp_path):
    file = export(tmp_path / "model.safetensors", runs["labels"])
    for name, model in (("run", runs["labels"]), ("file", file)):
        sample(tmp_path / name, 3, model, seed=1)
    first, second = pixels(tmp_path / "run"), pixels(tmp_path / "file")
    assert all((first[name] == second[name]).all() for name in first)
    assert build.load_model(file).components.config.condition.options["names"] == [str(k) for k in range(10)]
    with pytest.raises(InputError, match="pickle"):
        export(tmp_path / "x", runs["labels"], "pickle")
    with pytest.raises(InputError, match=rf"{tmp_path}: "):
        export(tmp_path, runs["labels"])
    with pytest.raises(InputError, match=r"000000\.png/model\.safetensors"):
        export(tmp_path / "run" / "000000.png" / "model.safetensors", runs["labels"])


def test_a_folder_keeps_the_number_format_of_its_first_samples(runs, tmp_path, monkeypatch):
    sample(tmp_path / "out", 2, runs["images"], precision="bf16")
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["precision"] == "bf16"
    sample(tmp_path / "out", 4, runs["images"])
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["precision"] == "bf16"
    with pytest.raises(InputError, match=r"precision: 'bf16'.*'fp32'"):
        sample(tmp_path / "out", 4, runs["images"], precision="fp32")
    sample(tmp_path / "exact", 4, runs["images"], precision="fp32")
    ours, exact = (np.stack(list(pixels(tmp_path / name).values())) for name in ("out", "exact"))
    assert 0 < np.abs(ours - exact).mean() < 2  # grey levels


def test_sampling_reports_where_the_time_goes(runs, tmp_path, capsys):
    sample(tmp_path / "out", 4, runs["images"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("time: ")]
    shares = dict(part.rsplit(" ", 1) for part in line.removeprefix("time: ").split(", "))
    assert set(shares) == {"network", "waiting for files", "encoding (threads)", "writing (threads)"}
    assert all(0 <= float(share.rstrip("%")) <= 200 for share in shares.values())


def test_a_compiled_network_draws_the_same_images(runs, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: lambda *a, **k: calls.append(1) or call(*a, **k))
    sample(tmp_path / "compiled", 2, runs["images"], steps=3, compile=True)
    assert len(calls) == 8, "a call of the prior and three steps; once more, to compile before the clock runs"
    assert "compiled in" in capsys.readouterr().err
    sample(tmp_path / "plain", 2, runs["images"], steps=3)
    for name, image in pixels(tmp_path / "plain").items():
        assert np.abs(image - pixels(tmp_path / "compiled")[name]).max() <= 1
    with pytest.raises(InputError, match=r"compile: True\b.*\bFalse\b"):
        sample(tmp_path / "compiled", 4, runs["images"], steps=3)


def test_the_manifest_records_whether_the_network_was_compiled(runs, tmp_path, monkeypatch):
    def broken(call, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    sample(tmp_path / "out", 2, runs["images"], compile=True)
    sample(tmp_path / "out", 4, runs["images"])  # the same settings: neither was compiled
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["compile"] is False


OTHERS = ["000001.png.txt", "000002.png-notes.md", "20240101.png", "0000001.png", "000000.png.part", "notes.part"]


@pytest.mark.parametrize("model", ["images", "points"])
def test_overwrite_removes_only_what_the_manifest_lists(runs, tmp_path, model):
    out = tmp_path / "out"
    sample(out, 3, runs[model])
    for name in OTHERS:
        (out / name).write_text("precious")
    sample(out, 2, runs[model], seed=1, overwrite=True)
    assert [(out / name).read_text() for name in OTHERS] == ["precious"] * len(OTHERS)
    own = ["000000.png", "000001.png"] if model == "images" else ["samples.npz"]
    assert {path.name for path in out.iterdir()} == {*OTHERS, *own, "samples.json"}
    sample(out, 2, runs[model], seed=1)


@pytest.mark.parametrize("n", [None, 10**12])
def test_overwrite_removes_the_samples_of_a_manifest_without_their_number(runs, tmp_path, n):
    out = tmp_path / "out"
    sample(out, 3, runs["images"])
    path = out / "samples.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n": n}))
    (out / "20240101-mine.png").write_text("precious")
    sample(out, 1, runs["images"], overwrite=True)
    assert {path.name for path in out.iterdir()} == {"20240101-mine.png", "000000.png", "samples.json"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_with_the_name_of_a_sample_is_not_taken_for_one(runs, tmp_path, overwrite):
    out = tmp_path / "out"
    sample(out, 2, runs["images"])
    (out / "000003.png").write_text("precious")
    with pytest.raises(InputError, match=r"000003\.png"):
        sample(out, 4, runs["images"], overwrite=overwrite)
    assert (out / "000003.png").read_text() == "precious"


def hold(out, n):
    """A process that writes n samples to a folder: it holds the lock of the folder until it is killed."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tdpm_cli.sampling.sample_store import SampleArray, begin_samples\n"
        "store = SampleArray(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "begin_samples(store, store.n, {'format': 'npz'}, {}, False)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(n)], cwd=out.parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize(("n", "overwrite"), [(3, False), (9, False), (5, True)])
def test_another_number_of_samples_waits_for_the_process_that_writes(tmp_path, n, overwrite):
    out = tmp_path / "out"
    other = hold(out, 5)
    begin = lambda n, overwrite: sample_store.begin_samples(
        sample_store.SampleArray(out, n), n, {"format": "npz"}, {}, overwrite
    )
    with pytest.raises(InputError, match=rf"{out}.*\b5 samples"):
        begin(n, overwrite)
    assert json.loads((out / "samples.json").read_text())["n"] == 5
    begin(5, False)
    other.kill()
    other.wait()
