"""Captions: embedded once, learned from, and requested by prompts."""

import contextlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile

import pytest
import torch
from helpers import export, run_sweep, sample, score
from PIL import Image

import tdpm_cli
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.conditioning.captions import cache as embeddings
from tdpm_cli.conditioning.captions.cache import Embedding, Embeddings
from tdpm_cli.conditioning.text import Text
from tdpm_cli.config import registry
from tdpm_cli.config import schema as config
from tdpm_cli.engine.batch import Batch
from tdpm_cli.engine.losses.logistic import Logistic
from tdpm_cli.engine.terms import denoising_term, prior_term
from tdpm_cli.evaluation.extractors import load_extractor
from tdpm_cli.evaluation.image_text_training import matcher
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build
from tdpm_cli.sampling.conditions import read_prompts
from tdpm_cli.sampling.sample import grid_path
from tdpm_cli.training import helper_network
from tdpm_cli.training.train import train

TEXT = [
    "condition.name=text",
    "condition.tokens=8",
    "condition.names=[zero, one, two, three, four, five, six, seven, eight, nine]",
    "condition.templates=['the digit {class}', 'a {class}']",
]


class Letters:
    """Vectors of letters; records the texts that it embeds."""

    def __init__(self):
        self.texts = []

    def __call__(self, texts):
        self.texts += texts
        vectors = (torch.tensor([[ord(letter), 1.0] for letter in text[:4]]) for text in texts)
        return [Embedding(tokens, tokens.mean(0), len(text) > 4) for tokens, text in zip(vectors, texts, strict=True)]


def test_a_text_is_embedded_once():
    encode = Letters()
    known = Embeddings(encode, 2, "letters")
    first, second, third = known(["ab", "abcdef", "ab"])
    assert sorted(encode.texts) == ["ab", "abcdef"]
    assert first.tokens.tolist() == third.tokens.tolist() == [[97, 1], [98, 1]]
    assert (first.truncated, second.truncated) == (False, True)
    again = Embeddings(encode, 2, "letters")  # as another run would
    assert torch.equal(again(["ab"])[0].pooled, first.pooled)
    assert again.truncated(["ab", "abcdef"]) == ["abcdef"]
    assert sum(again.prepare(["ab", "cd", "ef"])) == 3
    assert sorted(encode.texts) == ["ab", "abcdef", "cd", "ef"]
    Embeddings(encode, 2, "other letters")(["ab"])  # vectors of one encoder are not those of another
    assert encode.texts.count("ab") == 2


def test_vectors_are_right_without_a_usable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(embeddings, "cache_folder", lambda _: tmp_path / "file")
    encode = Letters()
    known = Embeddings(encode, 2, "letters")
    assert known(["ab"])[0].pooled.tolist() == [97.5, 1]
    known(["ab"])
    assert encode.texts == ["ab"]
    monkeypatch.setattr(embeddings, "cache_folder", lambda _: tmp_path / "cache")
    Embeddings(encode, 2, "letters")
    (path,) = (tmp_path / "cache").rglob("*.sqlite")
    path.write_bytes(b"no database" * 1000)
    assert Embeddings(encode, 2, "letters")(["ab"])[0].pooled.tolist() == [97.5, 1]


def spoil_pages(path):
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"x" * (len(content) - 4096))


def spoil(statement):
    def run(path):
        with sqlite3.connect(path) as database:
            database.execute(statement)

    return run


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 1000),
        lambda path: os.truncate(path, 5000),
        spoil_pages,
        spoil("UPDATE texts SET tokens = x'0102'"),
        spoil("UPDATE texts SET pooled = NULL"),
        spoil("DROP TABLE texts"),
    ],
    ids=["other file", "truncated", "pages", "short vectors", "no vectors", "no table"],
)
def test_a_damaged_cache_ends_no_work(monkeypatch, tmp_path, damage, opened):
    monkeypatch.setattr(embeddings, "cache_folder", lambda _: tmp_path / "cache")
    encode = Letters()
    first = Embeddings(encode, 2, "letters")
    first(["ab"])
    (path,) = (tmp_path / "cache").rglob("*.sqlite")
    damage(path)
    embed = first if opened else Embeddings(encode, 2, "letters")
    assert embed(["ab", "cd"])[0].pooled.tolist() == [97.5, 1]
    assert sum(embed.prepare(["ab", "ef"])) == 2
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
    assert {bool(torch.equal(pooled[0], cond["pooled"][0])) for pooled in drawn} == {True, False}


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: Text(text_encoder="minilmm"), r"condition\.text_encoder.*'minilmm'.*'minilm'"),
        (lambda: Text(tokens=257), r"condition\.tokens.*\b257\b.*'minilm'.*\b256\b"),
        (lambda: Text(templates=["a photo"]), r"condition\.templates.*'a photo'.*\{class\}"),
        (lambda: Text().encode({}), r"dataset\.json"),
        (lambda: Text().parse(["a cat", "  "], 4), r"\b2 of 2\b"),
        (lambda: Text(dim=512).encode({"captions": [("a cat",)]}), r"condition\.dim.*\b512\b.*\b384\b"),
        (lambda: Text(text_encoder="bert-tokens", dim=100), r"condition\.dim.*\b100\b.*\b64\b"),
        (lambda: Text(text_encoder="bert-tokens", weights="folder"), r"condition\.weights.*'bert-tokens'"),
    ],
    ids=["encoder", "tokens", "template", "no captions", "empty prompt", "dim", "odd dim", "weights"],
)
def test_a_condition_of_text_rejects(work, message):
    with pytest.raises(InputError, match=message):
        work()


def test_an_encoder_that_is_not_installed_is_named(monkeypatch):
    from tdpm_cli.conditioning.text_encoders import minilm

    minilm.network.cache_clear()
    minilm.tokenizer.cache_clear()
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'tdpm-cli\[text\]'"):
        Text().encode({"captions": [("a cat",)]})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from helpers import tiny_image_preset

    plain = tiny_image_preset(*TEXT)
    return train(config.load_config(plain), tmp_path_factory.mktemp("text"), "text")


def test_training_with_captions_continues_bit_for_bit(run, tiny_images, tmp_path):
    half = tmp_path / "half"
    train(config.load_config(tiny_images(*TEXT, "train.duration=64")), tmp_path, "half")
    train(config.load_config(tiny_images(*TEXT)), tmp_path, "half")
    (straight, _), (resumed, _) = (
        weights.read_weights(checkpoint.list_checkpoints(folder)[-1] / "model.safetensors") for folder in (run, half)
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_prompts_are_drawn_recorded_and_written_under_their_rows(run, tmp_path):
    out = tmp_path / "out"
    prompts = ["the digit three", "a handwritten seven, which is a number that comes after six and before eight"]
    sample(out, 5, run, prompts=prompts, guidance_scale=2.0)
    manifest = json.loads((out / "samples.json").read_text())
    assert manifest["prompts"] == prompts
    assert [texts[0] for texts in manifest["conditions"]["captions"]] == [prompts[k % 2] for k in range(5)]
    assert manifest["nfe_text"] == "1 + 2·4"
    with Image.open(grid_path(out)) as grid:
        assert 2 * grid.width / 8 < grid.height < grid.width  # two rows, eight images wide, and their texts
    shutil.rmtree(out)
    sample(out, 3, run, prompts=prompts[1:])
    alone = Image.open(out / "000001.png").tobytes()
    sample(tmp_path / "other", 3, run, prompts=prompts[::-1][:1], batch=1)
    assert abs(sum(alone) - sum(Image.open(tmp_path / "other" / "000001.png").tobytes())) <= 64
    with pytest.raises(InputError, match=r"\bprompts\b"):
        sample(out, 3, run, prompts=["another"])


def test_the_api_takes_prompts(run):
    model = tdpm_cli.load(run, "cpu")
    three, four = (model.draw_x_T(2, labels=[f"the digit {word}"]) for word in ("three", "four"))
    assert not torch.equal(three, four)
    assert model.sample(3, steps=2).shape == (3, 1, 8, 8)


def test_without_prompts_captions_of_the_data_are_drawn(run, tmp_path):
    sample(tmp_path / "out", 20, run)
    manifest = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert len({texts[0] for texts in manifest["conditions"]["captions"]}) > 5
    assert manifest["prompts"] is None
    examples = build.load_model(run).components.config.condition.options["examples"]
    assert len(examples) == 20
    assert {"the digit zero", "a nine"} <= set(examples)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("text", {"labels": ["3"]}, r"--labels.*--prompt"),
        ("labels", {"prompts": ["three"]}, r"--prompt.*--labels"),
        ("images", {"prompts": ["three"]}, r"--prompt"),
        ("text", {"prompts": [""]}, r"\b1 of 1\b"),
    ],
)
def test_options_of_another_kind_of_model_are_rejected(run, runs, tmp_path, model, options, message):
    with pytest.raises(InputError, match=message):
        sample(tmp_path / "out", 2, {**runs, "text": run}[model], **options)
    assert not (tmp_path / "out").exists()


def test_a_file_of_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog \n")
    assert read_prompts(path) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe\x00", "UTF-8"), (b"\n \n", r"prompts\.txt"), (None, "--prompts")]
)
def test_a_file_without_prompts_is_rejected(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_long_captions_are_counted(tiny_images, tmp_path, capsys):
    long = ["condition.templates=['a {class} that is written by hand on paper']", "train.duration=16"]
    train(config.load_config(tiny_images(*TEXT, *long)), tmp_path, "long")
    assert re.search(r"\b10 of 10\b.*\b8\b", capsys.readouterr().err)
    with sqlite3.connect(next((tmp_path / "cache" / "tdpm" / "texts").glob("*.sqlite"))) as database:
        assert database.execute("SELECT count(*) FROM texts").fetchone() == (10,)


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """A matcher of digits and their captions, trained for seconds."""
    from helpers import tiny_image_preset

    file = tmp_path_factory.mktemp("matcher") / "matcher.safetensors"
    matcher(config.load_config(tiny_image_preset(*TEXT)), file, 20_000)
    assert not file.with_name(file.name + ".state").exists()
    return f"image-text:{file}"


def digits_with_captions(folder, shift):
    """60 digits as PNGs, each with the caption of its class + shift."""
    class_names = TEXT[2].partition("[")[2].rstrip("]").split(", ")
    raw, cond = registry.load("dataset", "digits")(None, (1, 8, 8))[range(60)]
    folder.mkdir()
    for k, (image, label) in enumerate(zip(raw, cond["label"].tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"a {class_names[(label + shift) % 10]}\n")
    return folder


def test_the_text_score_is_high_for_right_captions_only(matched, pooled, tmp_path):
    right, wrong = (
        score(digits_with_captions(tmp_path / name, shift), ref="digits", features=pooled, text=matched)
        for name, shift in (("right", 0), ("wrong", 1))
    )
    (name,) = [name for name in right["scores"] if "R@1 of 10" in name]
    assert name.startswith("image-text-")
    assert [name for name in right["scores"] if name.startswith("FD-torchscript")]
    assert right["protocol"]["text"]["weights_sha256"]
    assert right["scores"][name] > 80
    assert wrong["scores"][name] < 20
    assert right["standard_errors"][name] > 0


def test_samples_are_scored_by_the_prompts_that_they_were_drawn_from(run, matched, pooled, tmp_path):
    sample(tmp_path / "out", 12, run, prompts=["the digit three", "a four"])
    scores = score(tmp_path / "out", features=pooled, text=matched)["scores"]
    drawn = score(model=run, n=12, features=pooled, text=matched)["scores"]
    assert scores.keys() == drawn.keys()
    assert all(0 <= result[name] <= 100 for result in (scores, drawn) for name in result if "R@1" in name)


def test_a_sweep_over_scales_has_both_scores_in_every_row(run, matched, pooled, tmp_path, capsys):
    rows = run_sweep(
        [1, 2],
        [run],
        guidance_scales=[1, 3],
        prior_guidance_scales=[1, 2],
        n=12,
        features=pooled,
        text=matched,
        out=tmp_path / "sweep",
    )
    settings = [(row["guidance_scale"], row["prior_guidance_scale"], row["steps"], row["nfe"]) for row in rows]
    assert settings == [
        (1, 1, 1, 2),
        (1, 1, 2, 3),
        (1, 2, 1, 3),
        (1, 2, 2, 4),
        (3, 1, 1, 3),
        (3, 1, 2, 5),
        (3, 2, 1, 4),
        (3, 2, 2, 6),
    ]
    assert all(len(row["scores"]) == 2 and row["metric"].startswith("FD-") for row in rows)
    header = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()[0].split(",")
    assert {"prior_guidance_scale", "nfe"} <= set(header)
    assert any("R@1" in column for column in header)
    assert re.search(
        r"next: tdpm sample .* --guidance-scale [13] --prior-guidance-scale [12] ", capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_matcher_continues_where_it_stopped(tiny_images, tmp_path, monkeypatch):
    plain = tiny_images(*TEXT)
    file = tmp_path / "matcher.safetensors"

    class Stop(helper_network.Interruption):
        reads = 0

        @property
        def number(self):
            Stop.reads += 1
            return 15 if Stop.reads > 40 else None

        @number.setter
        def number(self, value):
            pass

    monkeypatch.setattr(helper_network.devices, "fastest", lambda work, where: "fp32")
    matcher(config.load_config(plain), tmp_path / "straight.safetensors", 20_000)
    with monkeypatch.context() as patched:
        patched.setattr(helper_network, "Interruption", Stop)
        with pytest.raises(Interrupted):
            matcher(config.load_config(plain), file, 20_000)
    assert not file.exists()
    with pytest.raises(InputError, match=r"matcher\.safetensors\.state"):
        matcher(config.load_config(plain), file, 30_000)
    # On a busy machine, another number format may be the faster one; training continues in the first.
    monkeypatch.setattr(helper_network.devices, "fastest", lambda work, where: "bf16")
    matcher(config.load_config(plain), file, 20_000)
    (straight, _), (resumed, _) = (weights.read_weights(path) for path in (tmp_path / "straight.safetensors", file))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    ("name", "assignments", "message"),
    [("m.safetensors", [], r"'digits'.*cifar10-text"), ("m.pt", TEXT, r"m\.pt.*\.safetensors")],
    ids=["no captions", "suffix"],
)
def test_a_matcher_is_not_trained(tiny_images, tmp_path, name, assignments, message):
    with pytest.raises(InputError, match=message):
        matcher(config.load_config(tiny_images(*assignments)), tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [("", "tdpm data matcher FILE --preset"), ("y", r"/y\b"), ("x.safetensors", r"x\.safetensors.*not a safetensors")],
)
def test_a_matcher_is_not_loaded(tmp_path, file, message):
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=message):
        load_extractor(f"image-text:{tmp_path / file}" if file else "image-text", None, torch.device("cpu"))


def saved_text_network(name, folder):
    """A tiny network of transformers with random weights, and a tokenizer of five words, in a folder."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: k for k, token in enumerate(["<s>", "</s>", "<pad>", "a", "red", "apple"])}
    split = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    split.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    if name == "clip":
        settings = transformers.CLIPTextConfig(
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=6,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        network = transformers.CLIPTextModel(settings)
    else:
        settings = transformers.T5Config(d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2, vocab_size=6)
        network = transformers.T5EncoderModel(settings)
    network.eval().save_pretrained(folder)
    return network


@pytest.mark.parametrize("name", ["clip", "t5"])
def test_encoders_of_transformers(name, tmp_path):
    network = saved_text_network(name, tmp_path)
    condition = Text(text_encoder=name, weights=str(tmp_path), tokens=6)
    assert condition.sizes == {"context": 12, "pooled": 12}  # read from its config
    short, long = condition.vectors.encoder(["a red apple", "a a a a a a a"], 6)
    with torch.inference_mode():
        (expected,) = network(input_ids=torch.tensor([[0, 3, 4, 5, 1]])).last_hidden_state
    assert torch.allclose(short.tokens, expected, atol=1e-5)  # the padding beside the longer one changes nothing
    assert torch.allclose(short.pooled, expected[-1] if name == "clip" else expected.mean(0), atol=1e-5)
    assert (len(long.tokens), short.truncated, long.truncated) == (6, False, True)
    cond = condition.encode({"captions": [("a red apple",), ("a apple",)]})
    assert cond["context"].shape == (2, 6, 12)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer"):
        Text(text_encoder=name, weights=str(tmp_path), tokens=6).encode({"captions": [("a",)]})
    with pytest.raises(InputError, match=r"config.json"):
        Text(text_encoder=name, weights=str(tmp_path / "nowhere"), tokens=6).encode({"captions": [("a",)]})


def test_the_code_of_a_tokenizer_is_neither_executed_nor_offered(tmp_path, monkeypatch):
    saved_text_network("clip", tmp_path)
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Trap: pass\n")
    for name in ("tokenizer_config.json", "config.json"):
        content = json.loads((tmp_path / name).read_text())
        content |= {
            "auto_map": {"AutoTokenizer": ["trap.Trap", None], "AutoModel": "trap.Trap"},
            "tokenizer_class": "Trap",
        }
        (tmp_path / name).write_text(json.dumps(content))
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr("sys.stdin", answers)
    with contextlib.suppress(InputError):
        Text(text_encoder="clip", weights=str(tmp_path), tokens=6).encode({"captions": [("a",)]})
    assert not (tmp_path / "executed").exists()
    assert answers.tell() == 0


@pytest.mark.parametrize("name", ["clip", "t5"])
@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 1 << 16, "d_model": 1 << 16}, {"num_hidden_layers": 1 << 20, "num_layers": 1 << 20}]
)
def test_a_text_network_larger_than_its_file_takes_no_memory(name, sizes, tmp_path):
    saved_text_network(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **sizes}))
    with pytest.raises(InputError, match=r"model\.safetensors: weights of another model"):
        Text(text_encoder=name, weights=str(tmp_path), tokens=6).encode({"captions": [("a",)]})


@pytest.mark.parametrize("value", [[], "x", -1, {"a": 1}, 1.5])
@pytest.mark.parametrize("key", ["hidden_size", "text_config"])
def test_a_damaged_config_of_a_text_network_is_named(tmp_path, key, value):
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    if (key, value) == ("text_config", {"a": 1}):
        return
    with pytest.raises(InputError, match=rf"config\.json: damaged, {key}"):
        Text(text_encoder="clip", weights=str(tmp_path))


LEARNED = [*TEXT, "condition.text_encoder=bert-tokens", "condition.dim=64"]


def test_the_gradients_of_a_trained_encoder_are_sent_last(tiny_images):
    components = build.build(config.load_config(tiny_images(*LEARNED)))
    sent = [name for name, _ in components.model.denoiser.named_parameters()][::-1]
    assert sent[0].startswith("network.")
    assert sent[-1].startswith("text_encoder.")


def test_an_encoder_that_is_trained_learns_from_the_denoising_loss_and_is_kept(tiny_images, tmp_path):
    plain = tiny_images(*LEARNED)
    begun = weights.tensors_of(build.build(config.load_config(plain)).model.denoiser.text_encoder)
    run = train(config.load_config(plain), tmp_path, "learned")
    folder = checkpoint.list_checkpoints(run)[-1]
    for file in (folder / "model.safetensors", checkpoint.newest_weights(run)):
        kept, _ = weights.read_weights(file)
        moved = [not torch.equal(kept[f"denoiser.text_encoder.{name}"], tensor) for name, tensor in begun.items()]
        assert sum(moved) > 0.9 * len(moved)
    discriminator, _ = weights.read_weights(folder / "discriminator.safetensors")
    assert not [name for name in discriminator if "text_encoder" in name]
    half = tmp_path / "half"
    train(config.load_config(tiny_images(*LEARNED, "train.duration=64")), tmp_path, "half")
    train(config.load_config(plain), tmp_path, "half")
    straight, resumed = (
        weights.read_weights(checkpoint.list_checkpoints(folder)[-1] / "model.safetensors")[0] for folder in (run, half)
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)

    export(tmp_path / "model.safetensors", run)
    models = [tdpm_cli.load(path, "cpu") for path in (run, tmp_path / "model.safetensors")]
    drawn = [
        model.sample(2, labels=["the digit three", "a four"], guidance_scale=2.0, prior_guidance_scale=1.5)
        for model in models
    ]
    assert torch.equal(*drawn)
    x_T = [models[0].draw_x_T(1, labels=[f"the digit {word}"]) for word in ("three", "nine", "three")]
    assert torch.equal(x_T[0], x_T[2])
    assert not torch.equal(x_T[0], x_T[1])
    with pytest.raises(InputError, match=r"condition.text_encoder=minilm"):
        matcher(config.load_config(plain), tmp_path / "matcher.safetensors")


def test_adversarial_training_does_not_change_a_trained_encoder(tiny_images):
    components = build.build(config.load_config(tiny_images(*LEARNED)))
    x, cond = torch.randn(8, 1, 8, 8), components.condition.encode({"captions": [("a four",)] * 8})
    losses = {
        "denoise": denoising_term(components.model),
        "adversarial": prior_term(components.model, components.discriminator, Logistic()),
    }
    for name, loss in losses.items():
        components.model.zero_grad()
        loss(Batch(x, cond, torch.Generator().manual_seed(0)))[0].backward()
        has_gradient = [p.grad is not None for p in components.model.denoiser.text_encoder.parameters()]
        assert (any if name == "adversarial" else all)(has_gradient) == (name == "denoise")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.pt2", "model.onnx"])
def test_a_trained_encoder_is_in_the_exported_graph(tiny_images, tmp_path, file):
    run = train(config.load_config(tiny_images(*LEARNED, "train.duration=32")), tmp_path, "learned")
    export(tmp_path / file, run, steps=2, guidance_scale=2.0)  # which compares both runtimes


def photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (len(path.name) * 9, 80, 0)).save(path)


def test_coco_as_it_is_published(tmp_path):
    for name in ("000001.jpg", "000002.jpg"):
        photograph(tmp_path / "train2017" / name)
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "captions_train2017.json"
    content = {
        "images": [{"id": 7, "file_name": "000002.jpg"}, {"id": 9, "file_name": "000001.jpg"}],
        "annotations": [
            {"image_id": 7, "caption": "A bus.\n"},
            {"image_id": 9, "caption": "A  cat."},
            {"image_id": 7, "caption": "A red bus."},
        ],
    }
    file.write_text(json.dumps(content))
    assert registry.recognise(tmp_path, "images") == "coco"
    data = registry.load("dataset", "coco")(tmp_path, (3, 8, 8))
    raw, cond = data[[0, 1]]
    assert raw.shape == (2, 3, 8, 8)
    assert cond == {"captions": [("A cat.",), ("A bus.", "A red bus.")]}
    content["annotations"].pop(1)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"\b1 of 2\b.*'000001\.jpg'"):
        registry.load("dataset", "coco")(tmp_path, (3, 8, 8))
    file.write_text("{}")
    with pytest.raises(InputError, match=r"captions_train2017\.json"):
        registry.load("dataset", "coco")(tmp_path, (3, 8, 8))
    with pytest.raises(InputError, match=r"annotations_trainval2017\.zip"):
        registry.load("dataset", "coco")(tmp_path / "nowhere", (3, 8, 8))


def test_birds_as_they_are_published(tmp_path):
    for kind, name in (("001.Albatross", "a_1"), ("002.Wren", "w_1")):
        photograph(tmp_path / "images" / kind / f"{name}.jpg")
        (tmp_path / "text_c10" / kind).mkdir(parents=True)
        (tmp_path / "text_c10" / kind / f"{name}.txt").write_text(f"a bird\nthis is {name}\n")
    assert registry.recognise(tmp_path, "images") == "cub"
    data = registry.load("dataset", "cub")(tmp_path, (3, 8, 8))
    _, cond = data[[1]]
    assert data.class_names == ["001.Albatross", "002.Wren"]
    assert cond["captions"] == [("a bird", "this is w_1")]
    (tmp_path / "text_c10" / "002.Wren" / "w_1.txt").unlink()
    with pytest.raises(InputError, match=r"\b1 of 2\b.*'002\.Wren/w_1\.jpg'"):
        registry.load("dataset", "cub")(tmp_path, (3, 8, 8))
    with pytest.raises(InputError, match=r"text_c10"):
        registry.load("dataset", "cub")(tmp_path / "images", (3, 8, 8))


def three_with_two_captions(source, folder, second):
    """Three images of a source, of which the second has the caption None (no entry at all) or "" (an empty one)."""
    captions = ["a square", second, "another"]
    names = ["a.png", "b.png", "c.png"]
    if source == "images":
        for name, text in zip(names, captions, strict=True):
            photograph(folder / name)
            if text is not None:
                (folder / name).with_suffix(".txt").write_text(text)
    elif source == "coco":
        for name in names:
            photograph(folder / "train2017" / name)
        (folder / "annotations").mkdir()
        content = {
            "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
            "annotations": [{"image_id": k, "caption": text} for k, text in enumerate(captions) if text is not None],
        }
        (folder / "annotations" / "captions_train2017.json").write_text(json.dumps(content))
    elif source == "cub":
        (folder / "text_c10").mkdir(parents=True)
        for name, text in zip(names, captions, strict=True):
            photograph(folder / "images" / name)
            if text is not None:
                (folder / "text_c10" / name).with_suffix(".txt").write_text(text)
    elif source == "webdataset":
        folder.mkdir()
        with tarfile.open(folder / "0.tar", "w") as archive:
            for name, text in zip(names, captions, strict=True):
                photograph(folder / name)
                archive.add(folder / name, name)
                if text is not None:
                    (folder / "text").write_text(text)
                    archive.add(folder / "text", name.replace("png", "txt"))
    else:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        rows = {"image": [Image.new("RGB", (20, 16))] * 3, "text": captions}
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))


SOURCES = ["images", "coco", "cub", "webdataset", "huggingface"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("second", [None, " "])
def test_images_without_a_caption_are_named_dropped_or_empty(source, second, tmp_path):
    three_with_two_captions(source, tmp_path / "data", second)
    options = {"captions": "text"} if source == "huggingface" else {}
    open_as = lambda way: registry.load("dataset", source)(tmp_path / "data", (3, 8, 8), uncaptioned=way, **options)
    with pytest.raises(InputError, match=r"\b(b|1)\b.*data\.uncaptioned"):
        open_as("fail")[range(3)]
    dropped, empty = open_as("drop"), open_as("empty")
    assert dropped[range(len(dropped))][1]["captions"] == [("a square",), ("another",)]
    assert empty[range(len(empty))][1]["captions"] == [("a square",), ("",), ("another",)]
    assert "without a caption: 1" in " ".join(empty.notes)
