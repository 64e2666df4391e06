"""Presets: YAML files of plain values, one laid over another, and single values over both."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tdpm_cli.config import legacy, registry
from tdpm_cli.config.constants import SECTIONS
from tdpm_cli.config.types import Value
from tdpm_cli.runtime.errors import InputError, nearest

Override: TypeAlias = str | Mapping[str, Mapping[str, Value]]  # "section.key=value", or sections with keys
LONGEST = 1 << 20  # characters of a preset


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as the number it is (YAML 1.1 wants 2.0e-4), and no aliases.

    A few lines of aliases of aliases stand for more values than fit in any memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias; compose anything else."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*) stands in line {self.peek_event().start_mark.line + 1}: write it out")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML safely. Raises InputError, naming `where`, for what is no YAML, or longer than any preset."""
    if len(text) > LONGEST:
        raise InputError(f"{where}: {len(text):,} characters; at most {LONGEST:,} are accepted")
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as the date 2024-99-99
        raise InputError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def preset_folder() -> Path:
    """Where the presets lie: in the package when installed from a wheel, beside it in a source tree."""
    inside = Path(__file__).parents[1] / "presets"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "presets"


def preset_names() -> list[str]:
    """Names of the presets that come with tdpm."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset, by name or by its own path. Raises InputError for an unknown one."""
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else preset_folder() / f"{name}.yaml"
    if not path.is_file() or (not is_file and name not in preset_names()):
        known = preset_names()
        raise InputError(
            f"no preset {name!r}{nearest(name, known)} Accepted: {', '.join(known)}, or the path of a YAML file."
        )
    return path


def read_preset(name: str) -> dict[str, Any]:
    """The plain values of a preset, by name or by the path of a YAML file, with what it `extends` beneath."""
    plain = _read_file(name)
    base = plain.pop("extends", None)
    if base is not None:
        below = _read_file(str(base))
        if "extends" in below:
            raise InputError(f"preset {name!r} extends {base!r}, which extends another; one level is accepted")
        plain = {**below, **{key: _merge(below.get(key), value) for key, value in plain.items()}}
    plain["preset"] = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return plain


def merge(preset: str | Path | Mapping[str, Any], overrides: Sequence[Override] = ()) -> dict[str, Any]:
    """Read a preset, unless it is a mapping already, and put the overrides over it, the last one on top.

    Assignments ("section.key=value") between two mappings count as one: their order does not matter.
    """
    if isinstance(preset, Mapping):
        legacy.refuse(preset, "the preset")
    plain = dict(preset) if isinstance(preset, Mapping) else read_preset(str(preset))
    assignments: list[str] = []
    for over in overrides:
        if isinstance(over, str):
            assignments.append(over)
            continue
        plain, assignments = override(plain, assignments), []
        for section, values in over.items():
            plain = overlay(plain, section, values)
    return override(plain, assignments)


def _read_file(name: str) -> dict[str, Any]:
    path = preset_path(name)
    try:
        with path.open(encoding="utf-8") as file:
            plain = read_yaml(file.read(LONGEST + 1), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: it must hold sections such as data, space, backbone and train")
    legacy.refuse(plain, str(path))
    known = ["extends", *SECTIONS]
    for key in plain:
        if key not in (*known, "preset"):  # "preset": of a run's config.yaml
            raise InputError(f"{path}: no such section {key!r}{nearest(str(key), known)} Accepted: {', '.join(known)}.")
    return plain


def _merge(below: Any, above: Any) -> Any:
    """Keys of `above` over those of `below`; another `name` begins the section anew."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    renamed = "name" in above and above["name"] != below.get("name")
    return above if renamed else {**below, **above}


def overlay(plain: dict[str, Any], section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values over those of a section; return new plain values."""
    below = plain.get(section) or {}
    if not isinstance(below, Mapping):
        raise InputError(f"{section} is {below!r}: it must be a section with keys of its own")
    return {**plain, section: _merge(below, values)}


def with_data(
    plain: dict[str, Any], path: Path | None, download: bool, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Point a preset at the data at `path`, read by the part that knows them; `download` lets it fetch them.

    Of the `assignments` made before, those of other keys than the data's name and path are made again, for another
    part begins the section anew.
    """
    name = (plain.get("data") or {}).get("name")
    if path is not None:
        if not path.exists():
            raise InputError(f"--data {path}: no such file or folder")
        if name is not None:
            registry.resolve("dataset", name, "data.name")
        name = registry.recognise(path, str(name))
        plain = overlay(plain, "data", {"name": name, "path": str(path.resolve())})
        key = lambda assignment: assignment.partition("=")[0].strip()
        decided = ("data.name", "data.path")
        plain = override(plain, [a for a in assignments if key(a).startswith("data.") and key(a) not in decided])
    if download:
        if "download" not in registry.keys("dataset", str(name)):
            raise InputError(f"--download: the data {name!r} cannot be fetched; give them with --data PATH")
        plain = overlay(plain, "data", {"download": True})
    return plain


def override(plain: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` assignments (values in YAML) to the plain values of a preset; return new ones."""
    above: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section, *keys = path.strip().split(".")
        if not equals or not 1 <= len(keys) <= 2 or not all(keys):
            raise InputError(f"--set {assignment}: it must read section.key=value, such as train.batch=64")
        if section not in SECTIONS and section not in legacy.SECTIONS:
            raise InputError(
                f"--set {assignment}: no such section {section!r}{nearest(section, SECTIONS)} "
                f"Accepted: {', '.join(SECTIONS)}."
            )
        value = read_yaml(text, f"--set {assignment}")
        legacy.refuse({section: {keys[0]: value}}, f"--set {assignment}")
        above.setdefault(section, {})[keys[0]] = value if len(keys) == 1 else {keys[1]: value}
    for section, values in above.items():
        plain = overlay(plain, section, values)
    return plain
