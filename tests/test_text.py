"""Captions: embedded once, learned from, and asked for by prompts."""

import json
import shutil
import sqlite3

import pytest
import torch
from PIL import Image

from tdpm_cli import assemble, config
from tdpm_cli.commands.sample import grid_path, read_prompts, sample
from tdpm_cli.commands.train import train
from tdpm_cli.errors import InputError
from tdpm_cli.parts import embeddings
from tdpm_cli.parts.conditions.text import Text
from tdpm_cli.parts.embeddings import Embedded, Embeddings
from tdpm_cli.run import checkpoint

TEXT = ["condition.name=text", "condition.tokens=8", "condition.names=[zero, one, two, three, four, five, six, "
        "seven, eight, nine]", "condition.templates=['the digit {class}', 'a {class}']"]  # fmt: skip


class Letters:
    """Vectors of letters; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        found = (torch.tensor([[ord(letter), 1.0] for letter in text[:4]]) for text in texts)
        return [Embedded(tokens, tokens.mean(0), len(text) > 4) for tokens, text in zip(found, texts, strict=True)]


def test_a_text_is_embedded_once_ever():
    encode = Letters()
    known = Embeddings(encode, 2, "letters")
    first, second, third = known(["ab", "abcdef", "ab"])
    assert sorted(encode.asked) == ["ab", "abcdef"]
    assert first.tokens.tolist() == third.tokens.tolist() == [[97, 1], [98, 1]]
    assert (first.cut, second.cut) == (False, True)
    again = Embeddings(encode, 2, "letters")  # as another run would
    assert torch.equal(again(["ab"])[0].pooled, first.pooled)
    assert again.cut(["ab", "abcdef"]) == ["abcdef"]
    assert sum(again.prepare(["ab", "cd", "ef"])) == 3
    assert sorted(encode.asked) == ["ab", "abcdef", "cd", "ef"]
    Embeddings(encode, 2, "other letters")(["ab"])  # vectors of one encoder are not those of another
    assert encode.asked.count("ab") == 2


def test_a_cache_that_cannot_be_used_costs_time_alone(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(embeddings, "user_cache_path", lambda _: tmp_path / "file")
    encode = Letters()
    known = Embeddings(encode, 2, "letters")
    assert known(["ab"])[0].pooled.tolist() == [97.5, 1]
    known(["ab"])
    assert encode.asked == ["ab"]
    monkeypatch.setattr(embeddings, "user_cache_path", lambda _: tmp_path / "cache")
    Embeddings(encode, 2, "letters")
    (path,) = (tmp_path / "cache").rglob("*.sqlite")
    path.write_bytes(b"no database" * 1000)
    assert Embeddings(encode, 2, "letters")(["ab"])[0].pooled.tolist() == [97.5, 1]


def test_captions_become_vectors_and_zeros():
    condition = Text(tokens=6)
    cond = condition.encode({"captions": [("a cat", "a dog"), ("a very long caption of a cat and a dog",)]})
    assert cond["context"].shape == (2, 6, 384)
    lengths = (cond["context"].square().mean(-1) > 0.5).sum(1).tolist()
    assert lengths == [4, 6]  # with the marks of both ends
    assert cond["context"][0, 4:].abs().max() == 0
    assert cond["pooled"].square().mean(-1).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert all(value.abs().max() == 0 for value in condition.null(2).values())
    generator = torch.Generator().manual_seed(0)
    drawn = [condition.encode({"captions": [("a cat", "a dog")]}, generator)["pooled"] for _ in range(10)]
    assert {bool(torch.equal(each[0], cond["pooled"][0])) for each in drawn} == {True, False}


def test_what_a_condition_cannot_do_is_said():
    with pytest.raises(InputError, match=r"condition.encoder is 'minilmm'; did you mean 'minilm'"):
        Text(encoder="minilmm")
    with pytest.raises(InputError, match=r"condition.tokens is 257, but the encoder 'minilm' takes at most 256"):
        Text(tokens=257)
    with pytest.raises(InputError, match=r"'a photo' has no place \{class\}"):
        Text(templates=["a photo"])
    with pytest.raises(InputError, match=r"neither captions nor classes(.|\n)*dataset.json"):
        Text().encode({})
    with pytest.raises(InputError, match=r"prompt 2 of 2 is empty"):
        Text().parse(["a cat", "  "], 4)
    with pytest.raises(InputError, match=r"condition.dim is 512, but the encoder gives vectors of 384"):
        Text(dim=512).encode({"captions": [("a cat",)]})


def test_an_encoder_that_is_not_installed_is_named(monkeypatch):
    from tdpm_cli.parts.encoders import minilm

    minilm.loaded.cache_clear()
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'tdpm-cli\[text\]'"):
        Text().encode({"captions": [("a cat",)]})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from conftest import tiny_images

    plain = tiny_images.__wrapped__()(*TEXT)
    return train(config.from_dict(plain), tmp_path_factory.mktemp("text"), "text")


def test_training_with_captions_continues_bit_for_bit(run, tiny_images, tmp_path):
    half = tmp_path / "half"
    train(config.from_dict(tiny_images(*TEXT, "train.duration=64")), tmp_path, "half")
    train(config.from_dict(tiny_images(*TEXT)), tmp_path, "half")
    (whole, _), (resumed, _) = (
        checkpoint.read_weights(checkpoint.steps(folder)[-1] / "model.safetensors") for folder in (run, half)
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_prompts_are_drawn_told_and_written_under_their_rows(run, tmp_path):
    out = tmp_path / "out"
    prompts = ["the digit three", "a handwritten seven, which is a number that comes after six and before eight"]
    sample(out, 5, run, prompts=prompts, scale=2.0)
    manifest = json.loads((out / "samples.json").read_text())
    assert manifest["prompts"] == prompts
    assert [texts[0] for texts in manifest["conditions"]["captions"]] == [prompts[k % 2] for k in range(5)]
    assert manifest["nfe_text"] == "1 + 2·4"
    with Image.open(grid_path(out)) as grid:
        assert grid.height > 2 * grid.width / 8  # two rows and their texts
    shutil.rmtree(out)
    sample(out, 3, run, prompts=prompts[1:])
    alone = Image.open(out / "000001.png").tobytes()
    sample(tmp_path / "other", 3, run, prompts=prompts[::-1][:1], batch=1)
    assert abs(sum(alone) - sum(Image.open(tmp_path / "other" / "000001.png").tobytes())) <= 64
    with pytest.raises(InputError, match=r"prompts: .* there"):
        sample(out, 3, run, prompts=["another"])


def test_without_prompts_captions_of_the_data_are_drawn(run, tmp_path):
    sample(tmp_path / "out", 20, run)
    manifest = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert len({texts[0] for texts in manifest["conditions"]["captions"]}) > 5
    assert manifest["prompts"] is None
    examples = assemble.load(run).assembly.config.condition.options["examples"]
    assert len(examples) == 20
    assert {"the digit zero", "a nine"} <= set(examples)


def test_options_of_another_kind_of_model_are_refused(run, runs, tmp_path):
    for model, options, message in (
        (run, {"labels": ["3"]}, r"--labels, but the model takes --prompt"),
        (runs["labels"], {"prompts": ["three"]}, r"--prompt, but the model takes --labels"),
        (runs["images"], {"prompts": ["three"]}, r"--prompt, but the model is unconditional"),
        (run, {"prompts": [""]}, r"prompt 1 of 1 is empty"),
    ):
        with pytest.raises(InputError, match=message):
            sample(tmp_path / "out", 2, model, **options)
    assert not (tmp_path / "out").exists()


def test_a_file_of_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog \n")
    assert read_prompts(path) == ["a cat", "a dog"]
    for content, message in ((b"\xff\xfe\x00", "UTF-8"), (b"\n \n", "no prompt in it")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_prompts(path)
    with pytest.raises(InputError, match=r"cannot be read"):
        read_prompts(tmp_path)


def test_long_captions_are_counted(tiny_images, tmp_path, capsys):
    long = ["condition.templates=['a {class} that is written by hand on paper']", "train.duration=16"]
    train(config.from_dict(tiny_images(*TEXT, *long)), tmp_path, "long")
    assert "10 of 10 captions have more than 8 tokens and are cut there" in capsys.readouterr().err
    with sqlite3.connect(next((tmp_path / "cache" / "tdpm" / "texts").glob("*.sqlite"))) as database:
        assert database.execute("SELECT count(*) FROM texts").fetchone() == (10,)
