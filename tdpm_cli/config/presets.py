"""Presets: reads YAML files, and merges a preset with what it extends and with overrides."""

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml

from tdpm_cli.config import legacy, registry
from tdpm_cli.config.constants import SECTIONS
from tdpm_cli.config.types import PlainConfig, Value
from tdpm_cli.runtime.errors import InputError, nearest

Override: TypeAlias = str | Mapping[str, Mapping[str, Value]]  # "section.key=value", or sections with keys
MAX_CHARACTERS = 1 << 20  # characters of a preset


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads 2e-4 as a number (YAML 1.1 requires 2.0e-4), and rejects aliases and repeated keys.

    A few lines of nested aliases can expand to more values than fit in memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Reject an alias; compose any other node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1} contains an alias (*): write the value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Value]:
        """Reject a key that occurs twice: YAML would silently use its last value."""
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(f"line {line} sets {key.value!r} again, after line {lines[key.value]}: remove one")
            lines[key.value] = line
        mapping: dict[Hashable, Value] = super().construct_mapping(node, deep)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, where: str) -> Value:
    """Parse YAML without executing anything. Raises InputError, naming `where`, for invalid or too long text."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{where}: {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted")
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as the date 2024-99-99
        raise InputError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def preset_folder() -> Path:
    """Return the folder of the presets: inside the package in a wheel, beside it in a source tree."""
    inside = Path(__file__).parents[1] / "presets"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "presets"


def preset_names() -> list[str]:
    """Return the names of the presets that are part of tdpm."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return the file of a preset, from its name or path. Raises InputError for an unknown preset."""
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else preset_folder() / f"{name}.yaml"
    if not path.is_file() or (not is_file and name not in preset_names()):
        known = preset_names()
        raise InputError(
            f"no preset {name!r}{nearest(name, known)} Accepted: {', '.join(known)}, or the path of a YAML file."
        )
    return path


def is_stored(name: str) -> bool:
    """Return whether a preset is the `config.yaml` of a run, which tdpm wrote and which may come from anyone."""
    return "preset" in _read_file(name)


def read_preset(name: str) -> PlainConfig:
    """Return the plain values of a preset, from its name or path, merged with the preset that it extends."""
    plain = _read_file(name)
    base = plain.pop("extends", None)
    if base is not None:
        extended = _read_file(str(base))
        if "extends" in extended:
            raise InputError(f"preset {name!r} extends {base!r}, which extends another preset; one level is accepted")
        plain = {**extended, **{key: _merge(extended.get(key), value) for key, value in plain.items()}}
    plain["preset"] = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return plain


def merge(preset: str | Path | Mapping[str, Value], overrides: Sequence[Override] = ()) -> PlainConfig:
    """Read a preset, unless it is a mapping already, and apply overrides; later ones take precedence.

    Consecutive assignments ("section.key=value") apply together, so that their order does not matter.
    """
    if isinstance(preset, Mapping):
        legacy.refuse(preset, "the preset")
    plain = dict(preset) if isinstance(preset, Mapping) else read_preset(str(preset))
    assignments: list[str] = []
    for item in overrides:
        if isinstance(item, str):
            assignments.append(item)
            continue
        plain, assignments = override(plain, assignments), []
        for section, values in item.items():
            plain = overlay(plain, section, values)
    return override(plain, assignments)


def _read_file(name: str) -> PlainConfig:
    path = preset_path(name)
    try:
        with path.open(encoding="utf-8") as file:
            plain = read_yaml(file.read(MAX_CHARACTERS + 1), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: a preset has sections such as data, space, backbone and train")
    legacy.refuse(plain, str(path))
    known = ["extends", *SECTIONS]
    for key in plain:
        if key not in (*known, "preset"):  # "preset": of a run's config.yaml
            raise InputError(f"{path}: no such section {key!r}{nearest(str(key), known)} Accepted: {', '.join(known)}.")
    return plain


def _merge(values: Value, overrides: Value) -> Value:
    """Merge a section with overrides. Another `name` replaces the section: its keys belong to another component."""
    if not isinstance(values, dict) or not isinstance(overrides, dict):
        return overrides
    renamed = "name" in overrides and overrides["name"] != values.get("name")
    return overrides if renamed else {**values, **overrides}


def overlay(plain: Mapping[str, Value], section: str, values: Mapping[str, Value]) -> PlainConfig:
    """Return plain values with some keys of one section replaced. Raises InputError for a section without keys."""
    return {**plain, section: _merge(section_of(plain, section), values)}


def section_of(plain: Mapping[str, Value], section: str) -> Mapping[str, Value]:
    """Return the keys of a section, none if the preset omits it. Raises InputError for a section without keys."""
    values = plain.get(section)
    if not isinstance(values, Mapping | None):
        raise InputError(f"{section} is {values!r}: it must be a section with keys of its own")
    return values or {}


def with_data(
    plain: Mapping[str, Value], path: Path | None, download: bool, assignments: Sequence[str] = ()
) -> PlainConfig:
    """Return plain values that read the data at `path`, with the dataset that recognizes them, or download them.

    Another dataset replaces section `data`, so those of the `assignments` that set its other keys are applied again.
    Raises InputError for a path that does not exist, and for a dataset that cannot be downloaded.
    """
    plain, name = dict(plain), section_of(plain, "data").get("name")
    if path is not None:
        if not path.exists():
            raise InputError(f"--data {path}: no such file or folder")
        if name is not None:
            registry.resolve("dataset", name, "data.name")
        name = registry.recognise(path, str(name))
        plain = overlay(plain, "data", {"name": name, "path": str(path.resolve())})
        plain = override(plain, [assignment for assignment in assignments if _sets_option_of_data(assignment)])
    if download:
        if "download" not in registry.keys("dataset", str(name)):
            raise InputError(f"--download: the dataset {name!r} cannot be downloaded; use --data PATH")
        plain = overlay(plain, "data", {"download": True})
    return plain


def _sets_option_of_data(assignment: str) -> bool:
    key = assignment.partition("=")[0].strip()
    return key.startswith("data.") and key not in ("data.name", "data.path")


def override(plain: PlainConfig, assignments: Sequence[str]) -> PlainConfig:
    """Return plain values with `section.key=value` assignments applied; values are YAML.

    Raises InputError for an assignment that cannot be read, or that names an unknown section.
    """
    overrides: dict[str, PlainConfig] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section, *keys = path.strip().split(".")
        if not equals or not 1 <= len(keys) <= 2 or not all(keys):
            raise InputError(f"--set {assignment}: expected section.key=value, such as train.batch=64")
        if section not in SECTIONS and section not in legacy.SECTIONS:
            raise InputError(
                f"--set {assignment}: no such section {section!r}{nearest(section, SECTIONS)} "
                f"Accepted: {', '.join(SECTIONS)}."
            )
        value = read_yaml(text, f"--set {assignment}")
        legacy.refuse({section: {keys[0]: value}}, f"--set {assignment}")
        overrides.setdefault(section, {})[keys[0]] = value if len(keys) == 1 else {keys[1]: value}
    for section, values in overrides.items():
        plain = overlay(plain, section, values)
    return plain
