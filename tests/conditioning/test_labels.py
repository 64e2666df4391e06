"""Labels of classes that are empty or unequally large."""

import json

import pytest
import torch
from helpers import folder_of, sample, tiny_image_preset

from tdpm_cli.checkpoints.weights import write_weights
from tdpm_cli.conditioning.labels import Labels
from tdpm_cli.config import load_config
from tdpm_cli.config.presets import with_data
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.build import load_model
from tdpm_cli.sampling.model import load
from tdpm_cli.training.train import train


def data_with(labels):
    return TensorDataset(torch.zeros(len(labels), 2), None, "data", torch.tensor(labels))


@pytest.mark.parametrize(
    ("labels", "counts"),
    [([1, 2, 2, 1], [0, 2, 2]), ([0, 0, 4], [2, 0, 0, 0, 1]), ([0, 1], [1, 1])],
)
def test_empty_classes_are_never_drawn(labels, counts):
    fitted = Labels(classes=len(counts)).fit(data_with(labels))
    assert fitted["counts"] == counts
    condition = Labels(classes=len(counts), **fitted)
    drawn = condition.draw(200, Noise(0, range(200)))["label"]
    assert set(drawn.tolist()) == set(labels)
    for label, count in enumerate(counts):
        if count:
            assert condition.parse([str(label)], 1)["label"].tolist() == [label]
        else:
            with pytest.raises(InputError, match=rf"--labels.*'{label}'"):
                condition.parse([str(label)], 1)


def test_without_empty_classes_labels_are_those_of_before():
    drawn = [Labels(classes=3, counts=counts).draw(50, Noise(1, range(50)))["label"] for counts in ([], [5, 1, 2])]
    assert torch.equal(*drawn)


def test_labels_are_drawn_as_often_as_the_data_have_them():
    condition = Labels(classes=4, counts=[1, 0, 6, 3])
    drawn = condition.draw_as_data(10_000, Noise(0, range(10_000)))["label"]
    shares = drawn.bincount(minlength=4) / len(drawn)
    assert (shares - torch.tensor([0.1, 0, 0.6, 0.3])).abs().max() < 0.02
    again = condition.draw_as_data(5, Noise(0, range(5)))["label"]
    assert torch.equal(again, drawn[:5])  # label k depends on (seed, k) alone


def test_a_model_without_counts_does_not_draw_as_the_data():
    with pytest.raises(InputError, match="--labels data"):
        Labels(classes=2).draw_as_data(1, Noise(0, [0]))


@pytest.mark.parametrize("counts", [[1], [1, 2, 3], [0, 0]])
def test_wrong_counts_are_rejected(counts):
    with pytest.raises(InputError, match=r"condition\.counts"):
        Labels(classes=2, counts=counts)


def test_a_run_records_counts_and_samples_by_them(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(20)])
    labels = [[f"{k:02d}.png", 1 if k < 18 else 2] for k in range(20)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    values = tiny_image_preset("space.shape=[3, 10, 12]", "backbone.attention=[5]", "train.duration=32",
                               "condition.name=labels", "condition.classes=3")  # fmt: skip
    config = load_config(with_data({**values, "data": {"name": "images"}}, folder, False))
    run = train(config, tmp_path, "run")
    assert "labels begin at 1" in capsys.readouterr().err
    assert load_model(run).components.config.condition.options["counts"] == [0, 18, 2]
    sample(tmp_path / "uniform", 30, run, steps=1, format="npz")
    sample(tmp_path / "data", 30, run, steps=1, format="npz", labels=["data"])
    drawn = {}
    for name in ("uniform", "data"):
        manifest = json.loads((tmp_path / name / "samples.json").read_text())
        drawn[name] = torch.tensor(manifest["conditions"]["label"]).bincount(minlength=3)
    assert manifest["labels"] == ["data"]
    assert drawn["uniform"][0] == drawn["data"][0] == 0
    assert drawn["data"][1] > drawn["uniform"][1]


def test_the_python_api_draws_labels_as_the_data_have_them(tiny_images, tmp_path):
    components = build.build(
        load_config(tiny_images("condition.name=labels", "condition.classes=3", "condition.counts=[0, 1, 0]"))
    )
    write_weights(tmp_path / "m.safetensors", components.model, build.header(components.config, "ema-1", 0))
    model = load(tmp_path / "m.safetensors", "cpu")
    assert torch.equal(model.draw_x_T(3, labels="data"), model.draw_x_T(3, labels=[1]))
