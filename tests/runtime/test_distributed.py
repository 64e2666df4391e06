import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import sample, score
from PIL import Image

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import load_config
from tdpm_cli.runtime import distributed, launch
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.training.train import train

TDPM = str(Path(sys.executable).with_name("tdpm"))
ALONE = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")}
pytestmark = pytest.mark.skipif(cores() < 2, reason="needs two CPU cores")


RELATIVISTIC = "adversarial.loss=relativistic"


def tdpm(*arguments, **environment):
    return subprocess.run([TDPM, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env=ALONE | environment)  # fmt: skip


def preset(plain, tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def tensors(run):
    files = [path for path in checkpoint.list_checkpoints(run)[-1].glob("*.safetensors") if path.stem != "optimizers"]
    return {f"{path.name}/{key}": value for path in files for key, value in weights.read_weights(path)[0].items()}


@pytest.mark.parametrize(
    "assignments",
    [
        pytest.param(["adversarial.penalty_every=2", "adversarial.r2=0.1", "train.clip=0.5"], marks=pytest.mark.slow),
        ["prior.name=copy", RELATIVISTIC, "adversarial.penalty_every=1", "condition.name=labels",
         "condition.classes=10", "train.batch_gpu=4"],
    ],
)  # fmt: skip
def test_two_processes_train_as_one(tiny_images, tmp_path, assignments):
    plain = tiny_images("train.duration=64", "train.denoiser_lr=1e-4", "train.flip=true", *assignments)
    one = train(load_config(plain), tmp_path, "one")
    done = tdpm("train", "--preset", preset(plain, tmp_path), "--outdir", tmp_path, "--name", "two", "--nproc", 2)
    assert done.returncode == 0, done.stderr
    ours, theirs = tensors(one), tensors(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    # The relativistic loss compares logits: their level has no gradient but rounding, which Adam magnifies.
    level = {"discriminator.safetensors/leave.bias", "D/real", "D/fake"} if RELATIVISTIC in assignments else set()
    worst = max(float((ours[key] - theirs[key]).abs().max()) for key in ours.keys() - level)
    assert worst < 1e-5
    read = lambda run: [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines = [read(run) for run in (one, tmp_path / "two")]
    for a, b in zip(*lines, strict=True):
        assert a.keys() == b.keys()
        kept = a.keys() - level - {"img/s", "loader"}
        assert {key: a[key] for key in kept} == pytest.approx({key: b[key] for key in kept}, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_two_processes_are_interrupted_together_and_continue(tiny, tmp_path):
    plain = tiny("train.duration=10M", "train.snapshot=10M")
    command = ["train", "--preset", preset(plain, tmp_path), "--outdir", tmp_path, "--name", "run", "--nproc", 2]
    process = subprocess.Popen([TDPM, *map(str, command)], stderr=subprocess.PIPE, text=True, env=ALONE)
    log = tmp_path / "run" / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.stat().st_size:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert error.count("saved in") == 1
    (saved,) = checkpoint.list_checkpoints(tmp_path / "run")
    done = tdpm(*command, "--duration", int(saved.name) + 64)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["shared", "copy"])
def test_sharded_weights_learn_as_others_and_continue_in_one_process(tiny_images, tmp_path, prior):
    def run(name, duration, nproc, shard):
        assignments = [f"train.duration={duration}", "train.denoiser_lr=1e-4", f"train.shard={shard}",
                       f"prior.name={prior}", "condition.name=labels", "condition.classes=10",
                       "train.batch_gpu=4"]  # fmt: skip
        arguments = ["--preset", preset(tiny_images(*assignments), tmp_path), "--outdir", tmp_path, "--name", name]
        done = tdpm("train", *arguments, "--nproc", nproc, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("alone", 128, 1, "false")
    run("shared", 64, 2, "true")
    assert "train.shard: " in run("shared", 128, 1, "false")
    run("sharded", 64, 2, "true")
    run("sharded", 128, 2, "true")
    one, others = tensors(tmp_path / "alone"), [tensors(tmp_path / name) for name in ("shared", "sharded")]
    for other in others:
        assert one.keys() == other.keys()
        assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-5


@pytest.mark.slow
def test_a_run_of_two_processes_continues_in_one(tiny_images, tmp_path):
    def run(name, duration, nproc):
        path = preset(tiny_images(f"train.duration={duration}", "train.denoiser_lr=1e-4"), tmp_path)
        return tdpm("train", "--preset", path, "--outdir", tmp_path, "--name", name, "--nproc", nproc)

    assert run("straight", 128, 1).returncode == 0
    assert run("changed", 64, 2).returncode == 0
    done = run("changed", 128, 1)
    assert done.returncode == 0, done.stderr
    assert re.search(r"processes: 2\b.*\b1\b", done.stderr)
    assert "continuing" in done.stderr
    one, other = tensors(tmp_path / "straight"), tensors(tmp_path / "changed")
    assert one.keys() == other.keys()
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-5  # the same images in the same order


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_all_restart(tiny, tmp_path):
    plain = tiny("train.duration=256", "train.snapshot=64", "train.keep=10")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.environ.get('RANK') == '1' and not os.path.exists(os.environ['DIED']):\n"
        "    import tdpm_cli.training.trainer as training\n"
        "    step = training.train_on\n"
        "    def train_on(state, *args):\n"
        "        if state.seen == 128:\n"
        "            open(os.environ['DIED'], 'w').close()\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return step(state, *args)\n"
        "    training.train_on = train_on\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = ["train", "--preset", preset(plain, tmp_path), "--outdir", tmp_path, "--nproc", 2, "--name"]
    failed = tdpm(*command, "failed", **environment, DIED=str(tmp_path / "died-1"))
    assert failed.returncode == 1, failed.stderr
    assert re.search(r"process 1 of 2: .*SIGKILL", failed.stderr)
    assert "process 0 of 2: error" not in failed.stderr
    again = tdpm(*command, "again", "--max-restarts", 1, **environment, DIED=str(tmp_path / "died-2"))
    assert again.returncode == 0, again.stderr
    assert "(1 of 1)" in again.stderr
    straight = train(load_config(plain), tmp_path, "straight")
    ours, theirs = tensors(straight), tensors(tmp_path / "again")
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", 99], r"--nproc is 99\b"),
        pytest.param(["--batch", 33, "--nproc", 2], r"train\.batch is 33\b", marks=pytest.mark.slow),
        pytest.param(["--nproc", 2, "--resume", "."], r"--resume \.", marks=pytest.mark.slow),
    ],
)
def test_wrong_input_is_reported_once_with_status_2(tiny, tmp_path, arguments, message):
    path = preset(tiny(), tmp_path)
    done = tdpm("train", "--preset", path, "--outdir", tmp_path / "runs", *arguments)
    assert done.returncode == 2, done.stderr
    assert len(re.findall(message, done.stderr)) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_rendezvous_without_other_processes_ends_in_time(tiny, tmp_path):
    begin = time.monotonic()
    done = tdpm("train", "--preset", preset(tiny(), tmp_path), "--outdir", tmp_path / "runs", RANK="1", WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1", MASTER_PORT="9", TDPM_TIMEOUT="2")  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert re.search(r"process 1 of 2\b(.|\n)*127\.0\.0\.1:9\b(.|\n)*\b2\s+s\b(.|\n)*TDPM_TIMEOUT", done.stderr)
    assert time.monotonic() - begin < 60


def of_two_machines(commands):
    """Run a command in each of two folders as process 0 and 1, and return their errors; both must end with status 2."""
    port, started = launch._free_port(), []
    for rank, (folder, command) in enumerate(commands.items()):
        environment = ALONE | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                               "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "TDPM_TIMEOUT": "60"}  # fmt: skip
        started.append(subprocess.Popen([TDPM, *map(str, command)], cwd=folder, env=environment,
                                        stderr=subprocess.PIPE, text=True))  # fmt: skip
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], errors
    return errors


@pytest.mark.slow
def test_processes_with_other_settings_are_rejected(tiny, tmp_path):
    commands = {}
    for rank, count in enumerate((512, 513)):
        folder = tmp_path / str(rank)
        folder.mkdir()
        path = preset(tiny(f"data.count={count}"), folder)
        commands[folder] = ["train", "--preset", path, "--outdir", tmp_path / "runs", "--name", "run"]
    for rank, error in enumerate(of_two_machines(commands)):
        assert re.search(rf"process {rank}: .*data\.count: .*\b512\b", error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_processes_with_other_data_are_rejected(tiny_images, tmp_path):
    commands = {}
    path = preset(tiny_images("data.name=images", "data.path=pictures"), tmp_path)
    for rank in range(2):
        folder = tmp_path / str(rank)
        (folder / "pictures").mkdir(parents=True)
        for k in range(40 + rank):
            Image.new("L", (8, 8), k).save(folder / "pictures" / f"{k}.png")
        commands[folder] = ["train", "--preset", path, "--outdir", tmp_path / "runs", "--name", "run"]
    for error in of_two_machines(commands):
        assert re.search(r"\bdata: examples: .*\b40\b.*\b41\b", error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_training_is_saved_if_one_process_cannot_read_its_image(tiny_images, tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(128):
        image = np.random.default_rng(k).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{k:03d}.png")
    broken = tmp_path / "pictures" / "100.png"  # only decoding notices it, because its header is intact
    broken.write_bytes(broken.read_bytes()[:60])
    plain = tiny_images("data.name=images", f"data.path={tmp_path / 'pictures'}", "train.cache=false",
                        "train.duration=128", "train.batch=8", "train.snapshot=10M")  # fmt: skip
    done = tdpm("train", "--preset", preset(plain, tmp_path), "--outdir", tmp_path, "--name", "run", "--nproc", 2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("100.png") == 1
    assert done.stderr.count("of 2: error: ") == 1
    assert checkpoint.list_checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_a_process_that_does_not_answer_ends_all_in_time(tiny, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import tdpm_cli.training.trainer as training\n"
        "    step = training.train_on\n"
        "    def train_on(state, *args):\n"
        "        if state.seen == 128:\n"
        "            os.kill(os.getpid(), signal.SIGSTOP)\n"
        "        return step(state, *args)\n"
        "    training.train_on = train_on\n"
    )
    begin = time.monotonic()
    done = tdpm("train", "--preset", preset(tiny("train.duration=10M"), tmp_path), "--outdir", tmp_path, "--nproc", 2,
                TDPM_TIMEOUT="5", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")  # fmt: skip
    assert done.returncode not in (0, 2), done.stderr
    assert re.search(r"process 0 of 2: error: .*\b5 s\b", done.stderr)
    assert "SIGKILL" not in done.stderr
    assert time.monotonic() - begin < 120


def test_an_interrupted_process_has_the_time_that_it_needs_to_save(monkeypatch, tmp_path):
    code = (
        "import os, pathlib, sys, time\n"
        "if os.environ['RANK'] == '0':\n"
        "    time.sleep(1.5)\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'saved').touch()\n"
        "sys.exit(143)\n"
    )
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", code])
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    assert launch.launch(2, max_restarts=1) == 143
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("kind", ["png", pytest.param("npz", marks=pytest.mark.slow)])
def test_samples_are_the_same_from_two_processes(runs, tmp_path, kind):
    sample(tmp_path / "one", 11, runs["images"], batch=3, seed=3, format=kind)
    done = tdpm("sample", "--model", runs["images"], "--n", 11, "--batch", 3, "--seed", 3, "--format", kind,
                "--nproc", 2, tmp_path / "two")  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = ({path.name: path for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, path in one.items():
        if kind == "png":
            assert path.read_bytes() == two[name].read_bytes(), name
        elif name == "samples.npz":
            assert np.array_equal(*(np.load(file)["arr_0"] for file in (path, two[name])))


def test_two_processes_score_as_one(runs, pooled, tmp_path):
    one = score(model=runs["images"], n=100, features=pooled, metrics=["kid", "prdc"], cache=False)
    done = tdpm("eval", "--model", runs["images"], "--n", 100, "--features", pooled, "--kid", "--prdc", "--no-cache",
                "--nproc", 2, "--json", tmp_path / "two.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tdpm eval") == 1
    assert json.loads((tmp_path / "two.json").read_text())["scores"] == one["scores"]


@pytest.mark.slow
def test_two_processes_sweep_as_one(runs, pooled, tmp_path):
    command = ["sweep", "--model", runs["images"], "--n", 64, "--features", pooled, "--steps", "1,2", "--out"]
    for count in (1, 2):
        done = tdpm(*command, tmp_path / str(count), "--nproc", count)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("tdpm sweep") == 1
    assert (tmp_path / "1" / "sweep.csv").read_text() == (tmp_path / "2" / "sweep.csv").read_text()


@pytest.fixture
def two_hosts():
    """Two connected network namespaces in place of two machines; the arguments that run a command in each."""
    names = [f"tdpm-{os.getpid()}-{k}" for k in range(2)]
    cables = [f"t{os.getpid()}-{k}" for k in range(2)]
    ip = lambda *arguments: subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for k, (name, cable) in enumerate(zip(names, cables, strict=True)):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{k + 1}/24", "dev", cable)
            for device in (cable, "lo"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', None) or error}")
    yield [(["ip", "netns", "exec", name], cable) for name, cable in zip(names, cables, strict=True)]
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False)


def on_both(hosts, *arguments):
    """Run a command on two hosts as one; return what the first one printed."""
    started = []
    for rank, (on_host, cable) in enumerate(hosts):
        command = [*on_host, str(Path(sys.executable).with_name("torchrun")), "--nnodes", "2", "--nproc-per-node", "1",
                   "--node-rank", str(rank), "--master-addr", "10.77.0.1", "--master-port", "29511", "-m", "--",
                   "tdpm_cli", *map(str, arguments)]  # fmt: skip
        environment = ALONE | {"GLOO_SOCKET_IFNAME": cable, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    printed = []
    for process in started:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        printed.append(out)
    return printed[0]


@pytest.mark.slow
def test_two_hosts_train_as_one(tiny_images, tmp_path, two_hosts):
    plain = tiny_images("train.duration=64", "train.denoiser_lr=1e-4")
    on_both(two_hosts, "train", "--preset", preset(plain, tmp_path), "--outdir", tmp_path, "--name", "two")
    ours, theirs = tensors(train(load_config(plain), tmp_path, "one")), tensors(tmp_path / "two")
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-5


@pytest.mark.slow
def test_two_hosts_sample_and_score_as_one(runs, pooled, tmp_path, two_hosts):
    drawn = ["sample", "--model", runs["images"], "--n", 11, "--batch", 3]
    scored = ["eval", "--model", runs["images"], "--n", 60, "--features", pooled, "--no-cache", "--json"]
    on_both(two_hosts, *drawn, tmp_path / "two")
    on_both(two_hosts, *scored, tmp_path / "two.json")
    for command, name in ((drawn, "one"), (scored, "one.json")):
        assert tdpm(*command, tmp_path / name).returncode == 0
    images = {path.name for path in (tmp_path / "one").glob("*.png")}
    assert len(images) == 11
    assert images == {path.name for path in (tmp_path / "two").glob("*.png")}
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in images)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())["scores"] for name in ("one", "two"))
    assert one == two


def test_one_process_is_the_first_of_one():
    assert (distributed.size(), distributed.rank(), distributed.is_first()) == (1, 0, True)
    assert distributed.rows(8) == range(8)
    assert distributed.gathered(3) == [3]
    assert list(distributed.together(iter([1, 2]))) == [1, 2]
    assert distributed.own_here([1, 2]) == [1, 2]
    distributed.agree("anything", {"of": object()})
    distributed.wait()


def test_a_timeout_that_is_no_number_is_rejected(monkeypatch):
    monkeypatch.setenv("TDPM_TIMEOUT", "soon")
    with pytest.raises(InputError, match=r"TDPM_TIMEOUT.*'soon'"):
        distributed.timeout()


def test_an_environment_that_no_launcher_set_is_rejected(tiny, tmp_path):
    done = tdpm("train", "--preset", preset(tiny(), tmp_path), "--outdir", tmp_path / "runs", WORLD_SIZE="two")
    assert done.returncode == 2
    assert re.search(r"WORLD_SIZE.*'two'", done.stderr)
