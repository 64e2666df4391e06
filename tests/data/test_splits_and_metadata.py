"""Folders that are splits, and the metadata of Hugging Face's imagefolder."""

import csv
import json

import pytest
from helpers import encoded, folder_of, zip_of

from tdpm_cli.config import registry
from tdpm_cli.data.stored_images import open_stored
from tdpm_cli.runtime.errors import InputError


def load(path, **options):
    return registry.load("dataset", "images")(path, (3, 8, 8), **options)


def paths(*folders):
    return [f"{folder}/{k}.png" for folder in folders for k in range(2)]


@pytest.mark.parametrize("make", [folder_of, zip_of])
@pytest.mark.parametrize(
    ("folders", "split", "read", "classes"),
    [
        (["train/cat", "train/dog", "test/cat", "test/dog"], None, "train", ["cat", "dog"]),
        (["train/cat", "train/dog", "test/cat", "test/dog"], "test", "test", ["cat", "dog"]),
        (["train/cat", "train/dog", "test/cat", "test/dog"], "all", "all", ["cat", "dog"]),
        (["x/Train/cat", "x/Train/dog", "x/val/cat", "x/test/cat"], None, "Train", ["cat", "dog"]),
        (["training", "validation"], None, "training", []),
        (["training", "validation"], "all", "all", []),
        (["train", "bus", "car"], None, "all", ["bus", "car", "train"]),
        (["train/cat", "train/dog"], None, "all", ["cat", "dog"]),
        (["cat/train", "dog/train", "dog/test"], None, "all", ["cat", "dog"]),
    ],
)
def test_folders_of_splits_are_no_classes(tmp_path, make, folders, split, read, classes):
    path = make(tmp_path / ("x.zip" if make is zip_of else "y"), paths(*folders))
    data = load(path, split=split)
    assert data.files.split == read
    assert data.class_names == classes
    assert len(data) == 2 * len([folder for folder in folders if read == "all" or read in folder.split("/")])
    assert bool([note for note in data.notes if "data.split" in note]) == (len(data.files.splits) > 0)


@pytest.mark.parametrize("folders", [["test", "val"], ["train", "training"], ["train/a", "test/a", "unlabeled/a"]])
def test_an_unclear_split_needs_a_choice(tmp_path, folders):
    path = folder_of(tmp_path / "x", paths(*folders))
    with pytest.raises(InputError, match=r"data\.split"):
        load(path)
    assert load(path, split=folders[1].split("/")[0]).files.split == folders[1].split("/")[0]


@pytest.mark.parametrize(("folders", "split"), [(["train", "test"], "val"), (["cat", "dog"], "train")])
def test_an_unknown_split_is_rejected(tmp_path, folders, split):
    with pytest.raises(InputError, match=rf"data\.split.*{split}"):
        load(folder_of(tmp_path / "x", paths(*folders)), split=split)


def test_a_class_folder_without_images_counts_in_its_split(tmp_path):
    path = folder_of(tmp_path / "x", paths("train/a", "train/b", "test/a"))
    (path / "test" / "b").mkdir()
    assert load(path).class_names == ["a", "b"]
    (path / "train" / "c").mkdir()
    with pytest.raises(InputError, match=r"1 of 3 .*'c'"):
        load(path)


def test_images_to_score_are_those_of_all_splits(tmp_path):
    path = folder_of(tmp_path / "x", paths("train/cat", "test/cat"))
    assert len(open_stored(path, "IMAGES")) == 4


def write_metadata(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("folder", ["", "train/"])
@pytest.mark.parametrize(("labels", "classes"), [([1, 0], ["0", "1"]), (["dog", "cat"], ["cat", "dog"])])
def test_metadata_give_captions_and_labels(tmp_path, name, folder, labels, classes):
    path = folder_of(tmp_path / "x", [f"{folder}1.png", f"{folder}sub/2.png", *(["test/3.png"] if folder else [])])
    rows = [{"file_name": "1.png", "text": "a\nred dog, é", "label": labels[0]},
            {"file_name": "./sub/2.png", "text": "a cat", "label": labels[1]}]  # fmt: skip
    write_metadata(path / folder / name, rows)
    data = load(path)
    assert data.class_names == classes
    raw_condition = data.raw_condition([0, 1])
    assert raw_condition["label"].tolist() == [1, 0]
    assert raw_condition["captions"] == [("a\nred dog, é",), ("a cat",)]
    assert not data.files.other_files


def test_captions_alone_leave_folders_as_classes(tmp_path):
    path = folder_of(tmp_path / "x", ["a/1.png", "b/2.png"])
    write_metadata(path / "metadata.jsonl", [{"file_name": "a/1.png", "caption": "one"},
                                             {"file_name": "b/2.png", "caption": ["two", "zwei"]}])  # fmt: skip
    data = load(path)
    assert data.class_names == ["a", "b"]
    assert data.raw_condition([1])["captions"] == [("two", "zwei")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", "{"),
        ("metadata.jsonl", "[1]"),
        ("metadata.jsonl", '{"text": "a"}'),
        ("metadata.jsonl", '{"file_name": 3}'),
        ("metadata.jsonl", "[" * 100_000),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 0}'),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 0.5}\n{"file_name": "2.png", "label": 1}'),
        ("metadata.jsonl", '{"file_name": "1.png", "label": true}\n{"file_name": "2.png", "label": 1}'),
        ("metadata.csv", "a,b\n1,2\n"),
        ("metadata.csv", "\x80"),
        ("metadata.csv", f"file_name,text\n1.png,{'x' * 200_000}\n"),
    ],
)
def test_damaged_metadata_are_named(tmp_path, name, text):
    path = folder_of(tmp_path / "x", ["1.png", "2.png"])
    (path / name).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"{name}"):
        load(path)


def test_dataset_json_comes_first(tmp_path):
    path = folder_of(tmp_path / "x", ["1.png"])
    (path / "dataset.json").write_text(json.dumps({"labels": [["1.png", 0]], "classes": ["cat"]}))
    write_metadata(path / "metadata.jsonl", [{"file_name": "1.png", "label": "dog"}])
    assert load(path).class_names == ["cat"]
    (path / "2.png").write_bytes(encoded(2))
    with pytest.raises(InputError, match=r"dataset\.json"):
        load(path)
