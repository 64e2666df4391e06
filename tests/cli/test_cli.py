import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.main import get_command

from tdpm_cli.cli import app, main
from tdpm_cli.config import load_config
from tdpm_cli.config.settings import SampleConfig
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.training.train import train


@pytest.fixture
def tdpm(monkeypatch, capsys):
    """Run the command line in this process: tdpm(arguments) → status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tdpm", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out = capsys.readouterr()
        return int(caught.value.code or 0), out.out, out.err

    return run


SURFACE = {
    "train": {
        "--allow-external",
        "--preset",
        "--data",
        "--download",
        "--outdir",
        "--name",
        "--duration",
        "--budget",
        "--batch",
        "--batch-gpu",
        "--lr",
        "--seed",
        "--precision",
        "--compile",
        "--init",
        "--init-prior",
        "--objective",
        "--resume",
        "--on-save-error",
        "--set",
        "--nproc",
        "--max-restarts",
        "--profile",
        "--dry-run",
    },
    "sample": {
        "--allow-external",
        "--set",
        "--n",
        "--model",
        "--steps",
        "--spacing",
        "--seed",
        "--sampler",
        "--eta",
        "--batch",
        "--precision",
        "--labels",
        "--prompt",
        "--prompts",
        "--upsample",
        "--guidance-scale",
        "--prior-guidance-scale",
        "--format",
        "--compile",
        "--nproc",
        "--overwrite",
    },
    "eval": {
        "--allow-external",
        "--set",
        "--metrics",
        "--fid",
        "--kid",
        "--prdc",
        "--memorised",
        "--per-class",
        "--text",
        "--diagnose",
        "--features",
        "--weights",
        "--ref",
        "--n",
        "--model",
        "--steps",
        "--spacing",
        "--sampler",
        "--guidance-scale",
        "--prior-guidance-scale",
        "--seed",
        "--repeats",
        "--json",
        "--report",
        "--nproc",
        "--cache",
        "--ref-only",
        "--out",
        "--overwrite",
    },
    "sweep": {
        "--allow-external",
        "--set",
        "--metrics",
        "--steps",
        "--model",
        "--spacing",
        "--sampler",
        "--start",
        "--guidance-scale",
        "--prior-guidance-scale",
        "--n",
        "--seed",
        "--repeats",
        "--kid",
        "--prdc",
        "--text",
        "--features",
        "--weights",
        "--ref",
        "--cache",
        "--out",
        "--report",
        "--nproc",
        "--overwrite",
    },
    "encode": {
        "--allow-external",
        "--set",
        "--model",
        "--n",
        "--steps",
        "--spacing",
        "--iterations",
        "--seed",
        "--labels",
        "--prompt",
        "--guidance-scale",
        "--logits",
        "--overwrite",
    },
    "decode": {
        "--allow-external",
        "--set",
        "--model",
        "--steps",
        "--spacing",
        "--sampler",
        "--guidance-scale",
        "--seed",
        "--overwrite",
    },
    "reconstruct": {
        "--allow-external",
        "--set",
        "--model",
        "--steps",
        "--at",
        "--n",
        "--spacing",
        "--iterations",
        "--seed",
        "--labels",
        "--prompt",
        "--overwrite",
    },
    "interpolate": {
        "--allow-external",
        "--set",
        "--model",
        "--images",
        "--seeds",
        "--n",
        "--frames",
        "--steps",
        "--spacing",
        "--iterations",
        "--sampler",
        "--labels",
        "--prompt",
        "--guidance-scale",
        "--overwrite",
    },
    "edit": {
        "--allow-external",
        "--set",
        "--model",
        "--strength",
        "--n",
        "--seed",
        "--steps",
        "--spacing",
        "--sampler",
        "--labels",
        "--prompt",
        "--guidance-scale",
        "--overwrite",
    },
    "export": {
        "--allow-external",
        "--set",
        "--model",
        "--format",
        "--steps",
        "--spacing",
        "--sampler",
        "--eta",
        "--guidance-scale",
        "--prior-guidance-scale",
        "--rgb",
        "--licence",
        "--overwrite",
    },
    "presets": {"--schema"},
    "data inspect": {"--sheet", "--json", "--workers", "--overwrite"},
    "data verify": {"--out", "--workers"},
    "data prepare": {"--resolution", "--crop", "--upscale", "--skip-small", "--mode", "--workers", "--overwrite"},
    "data autoencoder": {"--data", "--resolution", "--channels", "--factor", "--width", "--images"},
    "data encode": {"--autoencoder", "--resolution", "--overwrite"},
    "data matcher": {"--preset", "--data", "--images", "--set", "--overwrite"},
}


def test_the_command_surface():
    surface = {
        name: {parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option"}
        for name, command in commands().items()
    }
    assert surface == SURFACE


HEAVY = {"torch", "numpy", "PIL", "yaml", "pydantic", "tdpm_cli.config.settings"}  # slow to import
BY_TYPER = {"pydantic"}  # which Typer imports to convert the options of a command


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["train", "--prset", "x"], ["smaple"], ["--version"]]
)
def test_help_and_mistyped_options_answer_without_torch(arguments, tmp_path):
    status, heavy, _ = answered(arguments, tmp_path)
    assert (status, heavy - BY_TYPER) == (2 if arguments[-1] in ("x", "smaple") else 0, set())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_without_pydantic(option, tmp_path):
    assert answered([option], tmp_path)[:2] == (0, set())


OF_PRESETS = {"yaml", "pydantic", "tdpm_cli.config.settings"}  # which presets need
DIGITS = ["train", "--preset", "digits", "--set"]
SAMPLE = ["sample", "--model", ".", "out"]

WRONG = [  # a command line, and what its message must name
    (["train", "--preset", "digts"], "digts", "'digits'"),
    (["train", "--preset", "digits", "--data", "nowhere"], "--data nowhere"),
    ([*DIGITS, "trian.batch=4"], "'trian'", "'train'"),
    (["sample", "--n", "many", "out"], "--n is 'many'"),
    (["sample", "out"], "--model"),
    (["sample", "--model", "nowhere", "out"], "--model nowhere"),
    (["eval", "nowhere"], "IMAGES nowhere"),
    (["eval"], "--model"),
    (["sweep", "--steps", "1,x"], "--steps is 'x'"),
    (["export", "--model", "nowhere", "out.onnx"], "--model nowhere"),
    (["export", "--model", ".", "out.bin"], "--format", "safetensors", "torch", "onnx", "diffusers"),
    ([*DIGITS, "train.bacth=4"], "train.bacth", "'batch'"),
    ([*DIGITS, "backbone.chanels=4"], "backbone.chanels", "'channels'"),
    ([*DIGITS, "backbone.channels=many"], "backbone.channels is 'many'"),
    ([*DIGITS, "backbone.name=unett"], "backbone.name is 'unett'", "'unet'"),
    ([*DIGITS, "schedule.name=lineer"], "schedule.name is 'lineer'", "'linear'"),
    ([*DIGITS, "sample.sampler=dim"], "sample.sampler is 'dim'", "'ddim'"),
    ([*DIGITS, "denoiser.prediction=eps0"], "denoiser.prediction is 'eps0'"),
    ([*DIGITS, "adversarial.r1=-1"], "adversarial.r1 is -1"),
    ([*DIGITS, "train.batch_gpu=5"], "train.batch_gpu is 5", "train.batch"),
    ([*DIGITS, "train.objective=tdmp"], "train.objective is 'tdmp'", "'tdpm'"),
    ([*DIGITS, "eval.features=inceptoin"], "eval.features is 'inceptoin'", "'inception'"),
    (["train", "--preset", "digits", "--data", ".", "--precision", "fp8"], "train.precision is 'fp8'"),
    (["train", "--preset", "digits", "--init", ".", "--batch", "1"], "train.batch is 1"),
    ([*SAMPLE, "--sampler", "dim"], "--sampler is 'dim'", "'ddim'"),
    ([*SAMPLE, "--steps", "0"], "--steps is 0"),
    ([*SAMPLE, "--sampler", "ddpm", "--eta", "1"], "ddpm", "eta"),
    ([*SAMPLE, "--prior-guidance-scale", "0"], "--prior-guidance-scale is 0"),
    ([*SAMPLE, "--scale", "0"], "--guidance-scale is 0"),
    ([*SAMPLE, "--format", "jpg"], "--format is 'jpg'"),
    (["eval", "--features", "inceptoin", "."], "--features is 'inceptoin'", "'inception'"),
    (["eval", "--text", "clib", "."], "--text is 'clib'", "'clip'"),
    (["eval", "--metrics", "text", "."], "--metrics", "--text clip"),
    (["sweep", "--model", ".", "--metrics", "text"], "--metrics", "--text clip"),
    (["sweep", "--model", ".", "--start", "priro"], "--start is 'priro'", "'prior'"),
    (["sweep", "--model", ".", "--spacing", "0.5"], "--spacing is 0.5"),
    (["sweep", "--model", ".", "--guidance-scale", "big"], "--guidance-scale is 'big'"),
    (["encode", "nowhere", "out"], "IMAGES nowhere"),
    (["decode", "nowhere", "out"], "nowhere", "tdpm encode"),
    (["sweep", "--steps", ","], "--steps is ','"),
    (["sweep", "--start", ","], "--start is ','", "prior, data"),
    (["train", "--preset", "auto"], "--preset auto", "--data PATH"),
    (["train", "--preset", "digits", "--resume", "nowhere"], "--resume nowhere", "auto, never"),
    (["train", "--preset", "digits", "--init", "nowhere"], "--init nowhere", "diffusers:PATH"),
    (["train", "--preset", "digits", "--init-prior", "nowhere"], "--init-prior nowhere"),
    (["train", "--preset", "ffhq-64", "--download"], "--download", "'images'"),
    ([*DIGITS, "data.name=imagse", "--data", "."], "data.name is 'imagse'", "'images'"),
    (["interpolate", "--model", ".", "--n", "few", "out"], "--n is 'few'"),
    (["interpolate", "--model", ".", "--seeds", "1,-2", "out"], "--seeds", "'-2'"),
    (["data", "inspect", "nowhere"], "nowhere"),
    (["data", "prepare", ".", "x.zip", "--resolution", "8", "--crop", "center"], "--crop is 'center'", "'centre'"),
    (["data", "prepare", ".", "x.zip", "--resolution", "big"], "--resolution is 'big'"),
    (["data", "matcher", "--preset", "digits", "--set", "train.bacth=4", "x"], "train.bacth"),
    ([*DIGITS, "game.r1=0.5"], "game", "adversarial"),
    ([*DIGITS, "sample.scale=2"], "sample.scale", "sample.guidance_scale"),
]


@pytest.mark.parametrize(
    ("arguments", "named"), [(arguments, named) for arguments, *named in WRONG], ids=lambda value: value[0]
)
def test_wrong_values_are_named_without_importing_torch(arguments, named, tmp_path):
    status, heavy, err = answered(arguments, tmp_path)
    assert (status, heavy - OF_PRESETS) == (2, set())
    assert [text for text in named if text not in err] == []


@pytest.mark.parametrize(
    ("preset", "assignment", "named"),
    [
        ("digits", "schedule.truncate.step=5000", "schedule.truncate"),
        ("toy-mixture", "train.flip=true", "train.flip"),
        ("digits", "adversarial.mismatch=0.5", "adversarial.mismatch"),
        ("digits", "sample.steps=900", "sample.steps"),
        ("digits", "sample.guidance_scale=2.0", "sample.guidance_scale"),
    ],
)
def test_settings_that_exclude_each_other_start_no_process(tdpm, preset, assignment, named, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tdpm_cli.runtime.launch.launch", lambda *arguments: pytest.fail("processes were started"))
    status, _, err = tdpm("train", "--preset", preset, "--nproc", "2", "--set", assignment)
    assert status == 2
    assert named in err


@pytest.mark.parametrize("assignment", ["sample.steps=900", "adversarial.mismatch=0.5"])
def test_settings_that_exclude_each_other_open_no_data(assignment, tmp_path, monkeypatch):
    monkeypatch.setattr("tdpm_cli.training.train.open_dataset", lambda config: pytest.fail("the data were opened"))
    with pytest.raises(InputError, match=assignment.partition("=")[0]):
        train(load_config("digits", [assignment]), tmp_path, "run")


def answered(arguments, folder):
    """A command line's exit status, the slow modules that it imported, and its stderr."""
    code = f"""
import sys
sys.argv = {["tdpm", *arguments]!r}
from tdpm_cli.cli import main
try:
    main()
except SystemExit as done:
    print("STATUS", done.code, *({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    _, status, *heavy = done.stdout.splitlines()[-1].split()
    return int(status), set(heavy), done.stderr


MAX_HELP_LENGTH = 10


def commands():
    """Every command of the command line by its name, such as "data inspect"."""
    result = dict(get_command(app).commands)
    return result | {f"data {name}": command for name, command in result.pop("data").commands.items()}


@pytest.mark.parametrize("name", commands())
def test_help_is_short_and_options_are_in_panels(name):
    command = commands()[name]
    assert len(command.help.split()) <= MAX_HELP_LENGTH
    for parameter in command.params:
        assert len(parameter.help.split()) <= MAX_HELP_LENGTH, parameter.name
        if parameter.param_type_name == "option" and name != "presets":
            assert parameter.rich_help_panel in PANELS, parameter.name


PANELS = {"Data", "Model", "Training", "Sampling", "Evaluation", "Machine", "Output"}
ALL_SAMPLING = {"steps", "spacing", "sampler", "eta", "guidance_scale", "prior_guidance_scale", "precision", "batch"}


def test_sampling_options_come_from_the_section():
    options = {parameter.name: parameter for parameter in commands()["sample"].params}
    fields = SampleConfig.model_fields
    assert set(fields) - {"options"} == ALL_SAMPLING - {"eta"}
    for name in ALL_SAMPLING - {"eta"}:
        assert options[name].help == fields[name].description


def test_the_aliases_of_0_1_0_are_accepted():
    options = {parameter.name: parameter.opts for parameter in commands()["sample"].params}
    assert options["guidance_scale"] == ["--guidance-scale", "--scale"]
    assert options["prior_guidance_scale"] == ["--prior-guidance-scale", "--prior-scale"]
    options = {parameter.name: parameter.opts for parameter in commands()["train"].params}
    assert options["objective"] == ["--objective", "--phases"]
    for phases, objective in (("all", "tdpm"), ("prior", "adversarial")):
        config = load_config("digits", ["prior.name=copy", {"train": {"objective": phases}}])
        assert config.train.objective == objective


@pytest.fixture
def images(tmp_path):
    """A folder of two classes with three images each, and the same as a zip."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (10 + k, 12), (k * 80, 0, 255)).save(tmp_path / "images" / name / f"{k}.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted((tmp_path / "images").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "images"))
    return tmp_path / "images"


SMALL = [
    "--set",
    "backbone.channels=8",
    "--set",
    "backbone.mult=[1,1]",
    "--set",
    "backbone.attention=[4]",
    "--set",
    "discriminator.channel_base=64",
    "--set",
    "space.shape=[3, 8, 8]",
    "--set",
    "train.workers=0",
    "--batch",
    "4",
    "--duration",
    "8",
]


def test_train_sample_evaluate_and_export_with_a_folder_of_images(tdpm, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = ["--set", "condition.name=labels", "--set", "condition.classes=2"]
    crop = ["--set", "data.crop=dhariwal"]  # a key of what reads a folder, not of the preset's data
    status, _, err = tdpm("train", "--preset", "cifar10", "--data", images, *SMALL, *labels, *crop)
    assert status == 0, err
    assert "crop: dhariwal" in (tmp_path / "runs" / "cifar10" / "config.yaml").read_text()
    decided = ["--set", "data.name=cifar10", "--set", "data.path=/nowhere", "--set", "train.seed=5", "--seed", "3"]
    status, _, err = tdpm("train", "--preset", "cifar10", "--data", images, *SMALL, *labels, "--name", "b", *decided)
    assert status == 0, err  # --data names the data, and a flag takes precedence over --set
    settled = yaml.safe_load((tmp_path / "runs" / "b" / "config.yaml").read_text())
    assert (settled["data"]["name"], settled["data"]["path"]) == ("images", str(images))
    assert settled["train"]["seed"] == 3
    assert "next: tdpm sample" in err
    status, _, err = tdpm("sample", "--n", "6", "--steps", "2", "--labels", "dog", "out")
    assert status == 0, err
    assert "NFE 1 + 2 = 3" in err
    assert "next: tdpm eval --fid out" in err
    status, out, err = tdpm("eval", "--fid", "--features", "efficientnet-lite0", "out")
    assert status == 0, err
    assert "FD-efficientnet-lite0-6" in out
    status, _, err = tdpm("export", "model.safetensors")
    assert status == 0, err
    status, _, err = tdpm("sample", "--model", "model.safetensors", "--n", "1", "out2")
    assert status == 0, err


def test_a_zip_of_class_folders_is_read_as_the_folder_is(images, tmp_path):
    from tdpm_cli.config.registry import load

    folder = load("dataset", "images")(images, (3, 8, 8))
    archive = load("dataset", "images")(tmp_path / "images.zip", (3, 8, 8))
    assert folder.class_names == archive.class_names == ["cat", "dog"]
    (raw, cond), (raw_zip, cond_zip) = folder[range(6)], archive[range(6)]
    assert torch.equal(raw, raw_zip)
    assert cond["label"].tolist() == cond_zip["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.shape == (6, 3, 8, 8)
    grey = load("dataset", "images")(images, (1, 12, 10))
    assert grey[[0]][0].shape == (1, 1, 12, 10)


def test_folders_that_wrap_everything_and_hidden_files_do_not_count(images, tmp_path):
    from tdpm_cli.config.registry import load

    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for path in sorted(images.rglob("*.png")):
            name = path.relative_to(tmp_path)
            archive.write(path, f"data/{name}")
            archive.writestr(f"__MACOSX/data/{name.parent}/._{name.name}", "not an image")
    data = load("dataset", "images")(tmp_path / "mac.zip", (3, 8, 8))
    assert (len(data), data.class_names) == (6, ["cat", "dog"])
    flat = load("dataset", "images")(images / "cat", (3, 8, 8))
    assert (len(flat), flat.class_names, flat[[0]][1]) == (3, [], {})


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    from tdpm_cli.config.registry import load

    ramp = np.linspace(0, 65535, 16, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    raw, _ = load("dataset", "images")(tmp_path, (1, 4, 4))[[0]]
    assert raw.flatten().tolist() == [17 * k for k in range(16)]


LABELS = ["--set", "condition.name=labels"]
TRAIN = ["train", "--preset", "cifar10", *SMALL, "--data"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--preset", "digits", "--set", "prior.z_dmi=3"], "prior.z_dmi"),
        (["train", "--preset", "digits", "--duration", "soon"], "train.duration is 'soon'"),
        (["train", "--preset", "digits", "--set", "schedule.truncate.step=2000"], "1 to 1000"),
        (["train", "--preset", "cifar10"], "--download"),
        (["train", "--preset", "ffhq-64"], "--data"),
        (["train", "--preset", "digits", "--download"], "--download"),
        (["data", "verify", "nowhere"], "nowhere"),
        ([*TRAIN, "empty"], "empty"),
        ([*TRAIN, "bad.zip"], "bad.zip"),
        ([*TRAIN, "bad"], "a/broken.png"),
        (["data", "verify", "bad"], "1 of 1 images"),
        (
            [*TRAIN, "images", "--set", "condition.name=labels", "--set", "condition.classes=1"],
            "condition.classes is 1",
        ),
        (["eval", "--ref-only", "images"], "--out"),
        (["presets", "digit"], "'digits'"),
    ],
)
def test_wrong_input_gets_one_message_and_status_2(tdpm, images, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "broken.png").write_text("no image")
    (tmp_path / "bad.zip").write_text("no zip")
    status, _, err = tdpm(*arguments)
    assert (status, named in err) == (2, True), err
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tdpm", "train", "--preset", "none", "--debug"])
    with pytest.raises(InputError):
        main()


def test_a_defect_of_ours_has_status_1(tdpm, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("tdpm_cli.config.presets.preset_names", broken)
    status, _, err = tdpm("presets")
    assert status == 1
    assert "defect: ZeroDivisionError" in err


def test_presets_lists_and_prints(tdpm):
    status, out, _ = tdpm("presets")
    assert status == 0
    assert "digits" in out
    status, out, _ = tdpm("presets", "digits")
    assert status == 0
    assert "# parameters:" in out


def test_continuing_a_finished_run_is_reported(tdpm, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(load_config(tiny()), tmp_path / "runs", "toy-mixture")
    (tmp_path / "tiny.yaml").write_text(load_config(tiny()).to_yaml())
    status, _, err = tdpm("train", "--preset", "tiny.yaml", "--name", "toy-mixture")
    assert status == 0, err
    assert "continuing" in err


@pytest.mark.parametrize(
    ("processes", "arguments", "status"), [(1, "presets", 0), (2, "presets", 0), (2, "no-such-command", 2)]
)
def test_one_of_several_processes_ends_without_finalising_python(processes, arguments, status, tmp_path):
    script = "import atexit; atexit.register(print, 'finalised'); from tdpm_cli.cli import main; main()"
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    done = subprocess.run(
        [sys.executable, "-c", script, arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status
    assert ("finalised" in done.stdout) == (processes == 1)
    assert ("digits" in done.stdout) == (status == 0), "the output is complete"


LONG = "a" * 300
LONG_PATHS = [
    ("sample", "out", "--model", LONG), ("eval", LONG), ("eval", "--ref", LONG), ("sweep", "--model", LONG),
    ("encode", LONG, "out"), ("decode", LONG, "out"), ("edit", "digits", "out", "--model", LONG),
    ("export", f"{LONG}.onnx"), ("train", "--preset", f"{LONG}.yaml"), ("train", "--preset", LONG),
    ("train", "--preset", "digits", "--data", LONG), ("train", "--preset", "digits", "--resume", LONG),
    ("train", "--preset", "digits", "--init", LONG), ("data", "inspect", LONG), ("data", "verify", LONG),
    ("data", "prepare", LONG, "a.zip", "--resolution", "8"), ("presets", LONG), ("eval", "/".join(["a" * 200] * 30)),
]  # fmt: skip


@pytest.mark.parametrize("arguments", LONG_PATHS, ids=lambda arguments: " ".join(arguments).replace("a" * 200, "…"))
def test_a_path_that_is_too_long_is_wrong_input(tmp_path, monkeypatch, capfd, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdpm", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "defect" not in capfd.readouterr().err
