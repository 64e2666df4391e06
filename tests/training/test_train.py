import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tdpm_cli
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.config import load_config
from tdpm_cli.config.presets import override
from tdpm_cli.data.loader import Order, batches
from tdpm_cli.evaluation.while_training import checkpoint_scorer
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.training.train import dry_run, train


def everything(run):
    """All tensors of the newest checkpoint."""
    folder = checkpoint.list_checkpoints(run)[-1]
    result = {}
    for path in folder.glob("*.safetensors"):
        result |= {f"{path.name}/{key}": value for key, value in weights.read_weights(path)[0].items()}
    states = formats.read_optimizers(folder)
    for name, state in states.items():
        for index, moments in state["state"].items():
            result |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    return result


def seen_by(run):
    return formats.read_state(checkpoint.newest(run))["seen"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_what_it_promises(tiny, tmp_path):
    run = train(load_config(tiny()), tmp_path, "run")
    assert run == tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "data.json",
        "log.jsonl",
        "checkpoints",
        "grids",
        "lock",
    }
    assert [path.name for path in checkpoint.list_checkpoints(run)] == ["000000192", "000000256"]  # keep = 2
    assert {p.name for p in (run / "grids").iterdir()} == {f"{seen:09d}.png" for seen in (0, 64, 128, 192, 256)}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["seen"] for line in lines] == list(range(32, 257, 32))
    assert {"loss/denoise", "loss/prior", "loss/discriminator", "D/real", "D/fake", "img/s", "loader"} <= lines[
        0
    ].keys()
    assert {"gradient/model", "gradient/discriminator"} <= lines[0].keys()


@pytest.mark.parametrize(
    ("preset", "assignments"),
    [
        ("tiny", ["adversarial.penalty_every=3", "train.score=true", "eval.n=64"]),
        ("tiny", ["prior.name=copy", "adversarial.start=96", "train.ema=[100, 1000]", "adversarial.r2=0.1"]),
        ("tiny_images", ["backbone.dropout=0.2", "train.flip=true"]),
        ("tiny_images", ["condition.name=labels", "condition.classes=10", "train.workers=1"]),
        (
            "tiny_images",
            [
                "prior.name=x0-then-noise",
                "prior.channel_base=32",
                "prior.latent=8",
                "train.batch_gpu=4",
                "train.gradient_checkpointing=true",
            ],
        ),
    ],
)
def test_resuming_equals_never_stopping_bit_for_bit(preset, assignments, tmp_path, request):
    plain = request.getfixturevalue(preset)(*assignments)
    straight = train(load_config(plain), tmp_path, "straight", make_score=checkpoint_scorer)
    half = str(plain["train"]["duration"] // 2)
    train(load_config(override(plain, [f"train.duration={half}"])), tmp_path, "stopped", make_score=checkpoint_scorer)
    stopped = train(load_config(plain), tmp_path, "stopped", make_score=checkpoint_scorer)
    assert same(everything(straight), everything(stopped))
    losses = lambda run: [
        {key: value for key, value in json.loads(line).items() if key not in ("img/s", "loader")}
        for line in (run / "log.jsonl").read_text().splitlines()
    ]
    assert losses(straight) == losses(stopped)
    drawn = [tdpm_cli.load(run).sample(8, seed=3, batch=8) for run in (straight, stopped)]
    assert torch.equal(*drawn)


def test_another_seed_is_another_run(tiny, tmp_path):
    one, two = (train(load_config(tiny(f"train.seed={seed}")), tmp_path, f"run{seed}") for seed in (0, 1))
    assert not same(everything(one), everything(two))


def test_shared_weights_are_stored_once(tiny, tmp_path):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    loaded = build.load_model(run)
    model = loaded.components.model
    assert model.prior.network is model.denoiser.network
    tensors, header = weights.read_weights(loaded.source)
    assert not [name for name in tensors if name.startswith("prior")]
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in model.parameters())
    assert load_config(json.loads(header["config"])) == loaded.components.config


def test_another_config_is_refused_with_the_differences(tiny, tmp_path):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    before = everything(run)
    with pytest.raises(InputError, match=r"train.denoiser_lr: 0\.\d+ there, 0.5 here") as caught:
        train(load_config(tiny("train.denoiser_lr=0.5")), tmp_path, "run")
    assert "duration" not in str(caught.value)
    assert f"--init {run}" in str(caught.value)
    assert same(before, everything(run))
    other = train(load_config(tiny("train.denoiser_lr=1e-4", f"train.init={run}")), tmp_path, "other")
    assert seen_by(other) == 256


@pytest.mark.parametrize("assignment", ["train.snapshot=32", "train.keep=5", "train.log=64", "train.workers=1"])
def test_what_leaves_the_weights_may_change_in_a_run(assignment, tiny, tmp_path):
    straight = train(load_config(tiny("train.duration=128")), tmp_path, "straight")
    train(load_config(tiny("train.duration=64")), tmp_path, "changed")
    changed = train(load_config(tiny("train.duration=128", assignment)), tmp_path, "changed")
    assert same(everything(straight), everything(changed))


def test_a_duration_below_what_was_trained_is_reported(tiny, tmp_path, capsys):
    run = train(load_config(tiny("train.duration=128")), tmp_path, "run")
    before = everything(run)
    train(load_config(tiny("train.duration=64")), tmp_path, "run")
    assert re.search(r"train\.duration is 64 .*\b128\b", capsys.readouterr().err)
    assert same(before, everything(run))


@pytest.mark.parametrize(("snapshot", "due"), [("96", "96"), ("1M", "256")])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_run_without_a_checkpoint_reports_when_the_first_is_due(snapshot, due, is_named, tiny, tmp_path, monkeypatch):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    config = load_config(tiny(f"train.snapshot={snapshot}"))
    (tmp_path / "runs" / "run" / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"runs/run: .*\b{due} images"):
        build.load_model(Path("runs/run") if is_named else None)


def test_a_run_continues_under_another_sampler(tiny, tmp_path):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    train(load_config(tiny("train.duration=128", "sample.steps=2", "eval.batch=8")), tmp_path, "run")
    assert seen_by(run) == 128


def test_resume_never_and_resume_from_a_path(tiny, tmp_path):
    plain = tiny("train.duration=64")
    run = train(load_config(plain), tmp_path, "run")
    other = train(load_config(plain), tmp_path, "run", resume="never")
    assert other == tmp_path / "run-2"
    assert same(everything(run), everything(other))
    longer = load_config(tiny("train.duration=128"))
    assert train(longer, tmp_path, "elsewhere", resume=str(checkpoint.list_checkpoints(run)[-1])) == run
    with pytest.raises(InputError, match="--resume"):
        train(longer, tmp_path, "run", resume=str(tmp_path))


def test_going_back_behind_newer_checkpoints_is_refused(tiny, tmp_path):
    run = train(load_config(tiny()), tmp_path, "run")
    older = checkpoint.list_checkpoints(run)[0]
    with pytest.raises(InputError, match=r"newer checkpoints \(000000256\)"):
        train(load_config(tiny()), tmp_path, "run", resume=str(older))


def test_what_a_killed_writer_leaves_is_no_checkpoint(tiny, tmp_path):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    part = run / "checkpoints" / "000000999.part"
    part.mkdir()
    (part / "state.json").write_text("")
    assert [path.name for path in checkpoint.list_checkpoints(run)] == ["000000064"]
    train(load_config(tiny("train.duration=128")), tmp_path, "run")
    assert not part.exists()


def test_the_last_losses_are_logged_however_short_the_run(tiny, tmp_path):
    run = train(load_config(tiny("train.duration=64", "train.log=10k")), tmp_path, "run")
    (line,) = (run / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["seen"] == 64


def test_learning_rates_rise_at_the_start_and_fall_at_the_end(tiny, tmp_path):
    def rates(duration, *assignments):
        plain = tiny("train.denoiser_lr=1e-3", f"train.duration={duration}", "train.snapshot=1M", *assignments)
        run = train(load_config(plain), tmp_path, f"{duration}{len(assignments)}{assignments[-1]}")
        saved = formats.read_optimizers(checkpoint.list_checkpoints(run)[-1])
        return saved["denoiser"]["param_groups"][0]["lr"]

    assert rates(64, "train.warmup=128") == pytest.approx(0.5e-3)  # after 2 steps of 32 images
    assert rates(128, "train.warmup=128") == pytest.approx(1e-3)
    assert rates(256, "train.cooldown=0") == pytest.approx(1e-3)
    assert rates(256, "train.cooldown=0.5") == pytest.approx(0.25e-3)  # the last of 4 falling steps
    with pytest.raises(InputError, match=r"train\.cooldown"):
        load_config(tiny("train.cooldown=2"))


def test_a_place_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/runs/run/lock: "):
        train(load_config(tiny()), tmp_path / "file" / "runs", "run")


def test_a_copy_begins_its_average_where_it_starts(tiny, tmp_path):
    plain = tiny(
        "prior.name=copy", "adversarial.start=64", "train.duration=96", "train.ema=[1M]", "train.ema_ramp=null"
    )
    loaded = build.load_model(train(load_config(plain), tmp_path, "run"))
    random = build.build(load_config(plain)).model
    prior = dict(loaded.components.model.prior.named_parameters())
    away = sum((p - prior[name]).abs().sum().item() for name, p in random.prior.named_parameters())
    still = sum(
        (p - q).abs().sum().item()
        for p, q in zip(random.denoiser.parameters(), loaded.components.model.denoiser.parameters(), strict=True)
    )
    assert away > 100 * still  # the denoiser's average has hardly moved; the prior's was restarted


def test_a_dry_run_writes_nothing(tiny, tmp_path):
    dry_run(load_config(tiny()), tmp_path / "runs", "run")
    assert not (tmp_path / "runs").exists()


def test_numbers_that_are_not_finite_stop_the_run_and_spare_the_checkpoint(tiny, tmp_path):
    with pytest.raises(InputError, match="became infinite or NaN"):
        train(
            load_config(tiny("train.denoiser_lr=1e30", "train.duration=10k", "train.snapshot=10k")),
            tmp_path,
            "run",
        )
    assert checkpoint.list_checkpoints(tmp_path / "run") == []


def test_tensorboard_gets_what_the_log_gets(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    run = train(load_config(tiny("train.duration=64", "train.tensorboard=true")), tmp_path, "run")
    assert list((run / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("assignment", ["backbone.width=8", "backbone.blocks=2"])
def test_weights_of_another_model_are_refused(tiny, tmp_path, assignment):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    tensors, _ = weights.read_weights(checkpoint.newest_weights(run))
    other = build.build(load_config(tiny(assignment)))
    with pytest.raises(InputError, match=r"^x\.safetensors: "):
        weights.load_tensors(other.model, tensors, "x.safetensors")


@pytest.mark.parametrize(
    ("number", "send"),
    [
        *(
            pytest.param(signal.Signals[name], os.kill, marks=pytest.mark.slow)
            for name in ("SIGINT", "SIGTERM", "SIGUSR1")
        ),
        (signal.SIGINT, os.killpg),  # Ctrl-C in a terminal also reaches the processes that read data
        pytest.param(  # of `timeout`
            signal.SIGTERM,
            lambda leader, number: [os.killpg(leader, number), os.kill(leader, number)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_interrupted_run_saves_and_the_same_command_continues(tmp_path, number, send):
    command = [
        str(Path(sys.executable).with_name("tdpm")), "train", "--preset", "toy-mixture", "--outdir", str(tmp_path),
        "--duration", "100M", "--set", "backbone.width=16", "--set", "data.count=512", "--set", "train.log=1k",
        "--set", "train.workers=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    log = tmp_path / "toy-mixture" / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.stat().st_size:
            break
        time.sleep(0.1)
    send(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143), error
    assert f"saved in {tmp_path / 'toy-mixture'}" in error
    seen = seen_by(tmp_path / "toy-mixture")
    command[command.index("100M")] = str(seen + 256)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stderr
    assert seen_by(tmp_path / "toy-mixture") >= seen + 256


class Numbers:
    def __len__(self):
        return 10

    def __getitem__(self, indices):
        return torch.tensor(indices)[:, None].float() + torch.tensor([0.0, 0.5]), {}


def test_every_epoch_shows_each_example_once_and_continues_anywhere():
    take = lambda seen, count: [
        raw[:, 0].int().tolist()
        for raw, _ in (
            next(stream)
            for stream in [batches(Numbers(), Order(4, 0, seen, flip=False), workers=0)]
            for _ in range(count)
        )
    ]
    order = sum(take(0, 10), [])
    for epoch in range(4):
        assert sorted(order[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert order[:10] != order[10:20]
    for seen in (4, 12, 20, 28):
        assert sum(take(seen, 2), []) == order[seen : seen + 8]


def test_flipping_shows_each_example_and_its_mirror_image_once():
    stream = batches(Numbers(), Order(5, 0, 0, flip=True), workers=0)
    rows = torch.cat([next(stream)[0] for _ in range(4)])
    mirrored = rows[:, 0] > rows[:, 1]
    assert sorted(rows[mirrored][:, 1].int().tolist()) == list(range(10))
    assert sorted(rows[~mirrored][:, 0].int().tolist()) == list(range(10))


def test_a_second_ctrl_c_leaves_at_once_and_a_second_sigterm_does_not(tmp_path):
    code = (
        "import time; from tdpm_cli.runtime.signals import *\n"
        "with Interruption() as asked:\n"
        "    print('ready', flush=True)\n"
        "    while not asked.number: time.sleep(0.01)\n"
        "    print('noted', flush=True)\n"
        "    time.sleep(60 if asked.number == signal.SIGINT else 1)\n"
        "print('saved', flush=True)"
    )
    for number, output, status in ((signal.SIGINT, "", -signal.SIGINT), (signal.SIGTERM, "saved\n", 0)):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "noted\n"
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == output
        assert process.returncode == status


def test_a_longer_run_with_falling_rates_is_reported(tiny, tmp_path, capsys):
    plain = tiny("train.duration=64", "train.cooldown=0.5")
    train(load_config(plain), tmp_path, "run")
    assert "train.cooldown" not in capsys.readouterr().err
    train(load_config(tiny("train.duration=128", "train.cooldown=0.5")), tmp_path, "run")
    assert "note: train.duration: 64 there, 128 here; train.cooldown" in capsys.readouterr().err


def test_optimizers_of_separate_networks_are_joined(tiny, tmp_path, monkeypatch):
    settings = ["prior.name=copy", "adversarial.penalty_every=1"]
    for name in ("joint", "separate"):
        train(load_config(tiny(*settings, "train.duration=64")), tmp_path, name)
    expected = train(load_config(tiny(*settings, "train.duration=128")), tmp_path, "joint")
    read = formats.read_optimizers

    def separate(folder):
        """The states as tdpm saved them before prior and discriminator learned in one phase."""
        states = read(folder)
        joint = states.pop("prior-discriminator")
        first = 0
        for network, group in zip(("prior", "discriminator"), joint["param_groups"], strict=True):
            size = len(group["params"])
            state = {k - first: joint["state"][k] for k in range(first, first + size)}
            states[network] = {"state": state, "param_groups": [{**group, "params": list(range(size))}]}
            first += size
        return states

    monkeypatch.setattr(formats, "read_optimizers", separate)
    run = train(load_config(tiny(*settings, "train.duration=128")), tmp_path, "separate")
    monkeypatch.undo()
    assert same(everything(run), everything(expected))
