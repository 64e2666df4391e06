"""`dataset.json` of EDM and StyleGAN: {"labels": [["00000/img00000000.png", 6], ...], "captions": {...}}."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tdpm_cli.data.containers import Container
from tdpm_cli.runtime.errors import InputError

NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetJson:
    """Labels and captions by image, as a file states them: their values are not checked yet."""

    labels: Mapping[str, object] = field(default_factory=dict)
    captions: Mapping[str, object] = field(default_factory=dict)
    classes: object = None  # the names of the classes
    unlabelled: bool = False  # whether it states that images have no labels: then folders are not classes
    file: str = NAME  # or the files that state the same, for messages


def read_dataset_json(container: Container) -> DatasetJson:
    """Read the file in a container. Raises InputError if it is damaged."""
    try:
        content = json.loads(container.read(NAME))
        labels, captions = content.get("labels"), content.get("captions")
        return DatasetJson(dict(labels or []), dict(captions or []), content.get("classes"),
                           "labels" in content and labels is None)  # fmt: skip
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{container.path}: {NAME} is damaged ({error}); repair or remove it") from None
