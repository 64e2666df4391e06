"""Write docs/reference.md: the tables of presets, components and keys, all read from the code without PyTorch.

    scripts/docs [--check]

Prints the path that it writes. `--check` writes nothing, and ends with status 1 if the page is out of date.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt

from tdpm_cli.config import registry
from tdpm_cli.config.presets import preset_names, preset_path, read_preset
from tdpm_cli.config.schema import SETTINGS
from tdpm_cli.config.settings import StageConfig

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
TITLES = {  # kind -> title, and how a user names a component of it
    "dataset": ("Datasets", "`data.name`; or by `--data PATH`, which recognises the dataset from the files"),
    "space": ("Spaces", "`space.name`"),
    "condition": ("Conditions", "`condition.name`"),
    "text_encoder": ("Text encoders", "`condition.text_encoder`"),
    "schedule": ("Schedules", "`schedule.name`"),
    "backbone": ("Backbones", "`backbone.name`"),
    "prior": ("Priors", "`prior.name`"),
    "discriminator": ("Discriminators", "`discriminator.name`"),
    "encoder": ("Encoders", "`encoder.name`"),
    "objective": ("Objectives", "`train.objective`"),
    "loss": ("Adversarial losses", "`adversarial.loss`"),
    "sampler": ("Samplers", "`sample.sampler` or `--sampler`"),
    "features": ("Feature extractors", "`eval.features` or `--features`"),
    "metric": ("Metrics", "`tdpm eval --metrics`"),
    "importer": ("Importers", "`--init NAME:PATH`"),
    "export": ("Export targets", "`tdpm export --format`"),
}
WITHOUT_KEYS = {"importer", "export"}  # read and write files; a preset cannot set them
INTRODUCTION = """\
# Reference: presets, components and keys

<!-- Written by scripts/docs from the code. Edit the code, then run scripts/docs again. -->

A preset names one component of each kind, and sets its keys: `backbone: {name: unet, channels: 128}`. On the command
line, `--set backbone.channels=64` does the same. Each component is one file; see
[CONTRIBUTING.md](../CONTRIBUTING.md) for how to add one.
"""


def text() -> str:
    """Return the text of the page."""
    lines = [INTRODUCTION, *presets(), *(line for kind in kinds() for line in components(kind)), *settings()]
    return "\n".join(lines) + "\n"


def kinds() -> list[str]:
    """Every kind of the registry, in the order of the page."""
    assert set(registry.KINDS) <= set(TITLES), f"scripts/docs.py has no title for {set(registry.KINDS) - set(TITLES)}"
    return [kind for kind in TITLES if kind in registry.KINDS]


def presets() -> Iterator[str]:
    """Yield the lines of the table of presets."""
    yield "## Presets\n\n`tdpm train --preset NAME`; `tdpm presets NAME` prints one.\n"
    yield from table(("preset", "data", "truncation", "what it is"), map(preset_row, preset_names()))


def preset_row(name: str) -> tuple[str, ...]:
    """Return a preset's name, dataset, truncation, and the first sentence of its file."""
    values = read_preset(name)
    truncation = values["schedule"].get("truncate") or {}
    lines = preset_path(name).read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    summary = next(comment for comment in comments if comment and not comment.startswith("yaml-language-server"))
    return (
        f"`{name}`",
        f"`{values['data']['name']}`",
        ", ".join(f"{key} {value}" for key, value in truncation.items()) or "none",
        summary,
    )


def components(kind: str) -> Iterator[str]:
    """Yield the lines of a kind's tables: its components, and their keys."""
    title, use = TITLES[kind]
    aliases = registry.aliases(kind)
    other = {name: [alias for alias in aliases if aliases[alias] == name] for name in registry.names(kind)}
    yield f"\n## {title}\n\nSet by {use}.\n"
    rows = [
        (f"`{name}`", registry.summary(kind, name), ", ".join(f"`{alias}`" for alias in other[name])) for name in other
    ]
    columns = ("name", "what it is", "other names")
    width = 3 if aliases else 2
    yield from table(columns[:width], [row[:width] for row in rows])
    if rows := key_rows(kind):
        yield ""
        yield from table(("key", "of", "values", "default"), rows)


def settings() -> Iterator[str]:
    """Yield the lines of the tables of sections that hold settings."""
    yield "\n## Settings\n\nCounts of images accept suffixes: `200k`, `2M`."
    for section, model in (SETTINGS | {"train.stages": StageConfig}).items():
        yield f"\n### {section}\n\n{model.__doc__}\n"
        yield from table(("key", "values", "default", "meaning"), (
            (f"`{key}`", values_of(field.annotation) + ranges(tuple(field.metadata)),
             "required" if field.is_required() else f"`{plain(field.get_default(call_default_factory=True))}`",
             field.description or "")
            for key, field in model.model_fields.items()
        ))  # fmt: skip


def key_rows(kind: str) -> list[tuple[str, ...]]:
    """Return the keys of a kind; a key that several components declare in the same way has one row."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for name in registry.names(kind) if kind not in WITHOUT_KEYS else ():
        for key, declared in registry.keys(kind, name).items():
            default = "required" if declared.default is MISSING else f"`{plain(declared.default)}`"
            owners.setdefault((key, values_of(declared.type), default), []).append(name)
    every = len(registry.names(kind))
    return [
        (f"`{key}`", "all" if len(names) == every > 1 else ", ".join(names), values, default)
        for (key, values, default), names in owners.items()
    ]


def values_of(kind: Any) -> str:
    """Describe the values of a type: "integer ≥ 1", "`conv` or `block`", "list of …"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{values_of(arguments[0])}{ranges(arguments[1:])}"
    if origin is Literal:
        return ", ".join(f"`{plain(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        rest = [values_of(argument) for argument in arguments if argument is not NoneType]
        return " or ".join(rest) + (", or `null`" if NoneType in arguments else "")
    if origin is dict:
        return "mapping"
    if origin in (list, tuple):
        return f"list of {values_of(arguments[0]).replace('integer', 'integers').replace('number', 'numbers')}"
    names = {int: "integer", float: "number", bool: "`true`, `false`", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def ranges(metadata: tuple[Any, ...]) -> str:
    """Describe the bounds of a number, without the upper bounds that only guard against mistakes."""
    bounds = {
        name: bound
        for item in metadata if isinstance(item, Interval | Ge | Gt | Le | Lt)
        for name in ("ge", "gt", "le", "lt") if (bound := getattr(item, name, None)) is not None and bound < 1 << 20
    }  # fmt: skip
    if "gt" in bounds:
        bounds.pop("ge", None)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(f"{',' if k else ''} {signs[name]} {bound}" for k, (name, bound) in enumerate(bounds.items()))


def plain(value: Any) -> str:
    """Write a value as YAML does."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def table(columns: tuple[str, ...], rows: Any) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        PAGE.write_text(text(), encoding="utf-8")
        print(PAGE)
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text():
        sys.exit("docs/reference.md is out of date: run scripts/docs")


if __name__ == "__main__":
    main()
