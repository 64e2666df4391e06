"""Options that several commands share, and functions that read their values."""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeAlias, TypeVar, get_args, get_origin

import typer
from typer.models import OptionInfo

from tdpm_cli.config import registry, signatures
from tdpm_cli.config.external import Confirmation
from tdpm_cli.config.types import WithUnit, parse_count

DATA, MODEL, TRAINING, SAMPLING, MACHINE, OUTPUT = "Data", "Model", "Training", "Sampling", "Machine", "Output"
EVALUATION = "Evaluation"
SETTINGS = "tdpm_cli.config.settings"
ALIASES = {  # of 0.1.0
    "guidance_scale": "--scale",
    "prior_guidance_scale": "--prior-scale",
    "objective": "--phases",
}
SHORT_NAMES = {"denoiser_lr": "lr"}  # of options, by field
SAMPLER_OPTIONS = tuple(registry.all_keys("sampler"))  # such as eta
GUIDANCE = ("guidance_scale", "prior_guidance_scale")
LARGEST_SEED = 2**62  # with room for the seeds that follow it
Settings: TypeAlias = dict[str, Any]  # field of a section -> the value that the user set
KEYWORD = inspect.Parameter.KEYWORD_ONLY
Command = TypeVar("Command", bound=Callable[..., None])
Text = TypeVar("Text", bound=str | Path | None)


def existing(option: str, advice: str = "") -> Callable[[Text], Text]:
    """Return a callback of `option` that raises InputError, with advice, for a path that does not exist."""

    def check(path: Text) -> Text:
        from tdpm_cli.runtime.errors import InputError

        if path is not None and not Path(path).exists():
            raise InputError(f"{option} {path}: no such file or folder{advice and '; '}{advice}".strip())
        return path

    return check


def one_of(option: str, accepted: Iterable[str]) -> Callable[[Optional[str]], Optional[str]]:
    """Return a callback of `option` that raises InputError for a value that is not accepted."""

    def check(value: Optional[str]) -> Optional[str]:
        from tdpm_cli.runtime import errors

        if value is not None:
            errors.one_of(option, value, accepted)
        return value

    return check


def known_features(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """Return a callback of `option` that raises InputError for unknown features; they read "name" or "name:weights"."""

    def check(features: Optional[str]) -> Optional[str]:
        if features is not None:
            registry.resolve("features", features.partition(":")[0], option)
        return features

    return check


def known_metrics(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """Return a callback of `option` that raises InputError for an unknown metric in a list."""

    def check(metrics: Optional[str]) -> Optional[str]:
        for name in split_list(metrics):
            registry.resolve("metric", name, option)
        return metrics

    return check


def known_images(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """Return a callback of `option` that raises InputError for what is neither a path nor a preset."""

    def check(source: Optional[str]) -> Optional[str]:
        from tdpm_cli.config.presets import preset_names
        from tdpm_cli.runtime.errors import InputError, nearest

        if source is not None and not Path(source).exists() and source not in (known := preset_names()):
            raise InputError(f"{option} {source}: no such file, folder or preset{nearest(source, known)} "
                             "Accepted: a folder, a zip or a file of images, or a preset's name.")  # fmt: skip
        return source

    return check


Preset = partial(typer.Option, show_default="the preset's")  # an option whose default is a key of the preset
Model = Annotated[
    Optional[Path],
    typer.Option(
        help="Run, checkpoint or exported file.",
        show_default="the newest run under runs/",
        callback=existing("--model"),
        rich_help_panel=MODEL,
    ),
]
Images = Annotated[
    str,
    typer.Argument(help="Folder, zip or file of images, or a preset's name.", callback=known_images("IMAGES")),
]
OutFolder = Annotated[Path, typer.Argument(help="Folder to write.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what the folder contains.", rich_help_panel=OUTPUT)
]
OverwriteFile = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that tdpm did not write.", rich_help_panel=OUTPUT)
]
FirstN = Annotated[
    Optional[str],
    typer.Option("--n", help="Number of images, from the first.", show_default="all", rich_help_panel=DATA),
]
Labels = Annotated[
    Optional[str],
    typer.Option(
        help="Classes, such as 3,cat, repeated; for samples also data.",
        show_default="the images' labels; random for samples",
        rich_help_panel=SAMPLING,
    ),
]
Prompts = Annotated[
    Optional[list[str]],
    typer.Option("--prompt", help="Caption of the images; repeatable.", rich_help_panel=SAMPLING),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the noise.", rich_help_panel=SAMPLING)]
InversionSeed = Annotated[
    Optional[int],
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        help="Add noise of this seed instead of inverting.",
        show_default="DDIM's inversion",
        rich_help_panel=SAMPLING,
    ),
]
Iterations = Annotated[
    int, typer.Option(min=1, help="Iterations of each inversion step; more are closer.", rich_help_panel=SAMPLING)
]
Processes = Annotated[int, typer.Option("--nproc", min=1, help="Processes on this machine.", rich_help_panel=MACHINE)]
Metrics = Annotated[
    Optional[str],
    typer.Option(
        help="Metrics beside the Fréchet distance, such as kid,prdc.",
        callback=known_metrics("--metrics"),
        show_default="the distance",
        rich_help_panel=EVALUATION,
    ),
]
Kid = Annotated[bool, typer.Option("--kid", help="Same as --metrics kid.", rich_help_panel=EVALUATION)]
Prdc = Annotated[bool, typer.Option("--prdc", help="Same as --metrics prdc.", rich_help_panel=EVALUATION)]
TextScore = Annotated[
    Optional[str],
    typer.Option(
        help="Score how well images fit captions: clip or image-text:FILE.",
        callback=known_features("--text"),
        rich_help_panel=EVALUATION,
    ),
]
Features = Annotated[
    Optional[str],
    Preset(
        help="Features: inception, efficientnet-lite0, dinov2, clip, torchscript:PATH.",
        callback=known_features("--features"),
        rich_help_panel=EVALUATION,
    ),
]
FeatureWeights = Annotated[
    Optional[Path], typer.Option(help="File or folder of the features' weights.", rich_help_panel=EVALUATION)
]
Reference = Annotated[
    Optional[str],
    typer.Option(help="Reference to compare with.", show_default="the model's training data", rich_help_panel=DATA),
]
ScoredN = Annotated[Optional[str], Preset("--n", help="Number of samples to score.", rich_help_panel=EVALUATION)]
Repeats = Annotated[int, typer.Option(min=1, help="Number of seeds: mean ± sd.", rich_help_panel=SAMPLING)]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Cache features of references.", rich_help_panel=MACHINE)
]
Report = Annotated[Optional[Path], typer.Option(help="HTML page to write.", rich_help_panel=OUTPUT)]
Assignments = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Set any key of the preset; repeatable.", rich_help_panel=TRAINING
    ),
]


def settings_options(parameter: str, model: str, *names: str, panel: str) -> Callable[[Command], Command]:
    """Replace a command's `parameter` by an option for each of these fields of a section's model.

    The command receives a dict of the values that the user set, by field. With SampleConfig, the options of samplers,
    such as eta, count as fields, and the values are validated first.
    """
    fields = dict(signatures.fields(SETTINGS, model, names))
    if model == "SampleConfig":
        fields |= registry.all_keys("sampler")
    options = {name: _option(name, fields[name], panel) for name in names}

    def receive(values: Settings) -> Settings:
        if model == "SampleConfig":
            from tdpm_cli.config.schema import check_options

            check_options(values)
        return values

    return _with_options(parameter, options, receive)


sampling_options = partial(settings_options, "sampling", "SampleConfig", panel=SAMPLING)


def lists_of_sampling_options(*names: str) -> Callable[[Command], Command]:
    """Replace a command's `sampling` by options that take several values between commas, for a sweep.

    The command receives a dict of lists, by field.
    """
    fields = signatures.fields(SETTINGS, "SampleConfig", names)
    options = {name: (Optional[str], _declared(name, fields[name], SAMPLING)) for name in names}

    def receive(values: Settings) -> Settings:
        from tdpm_cli.config.schema import check_options

        for name, text in values.items():
            option = f"--{name.replace('_', '-')}"
            values[name] = numbers(option, text) if _type_of(fields[name]) is float else split_list(text)
            for value in values[name]:
                check_options({name: value})
        return values

    return _with_options("sampling", options, receive)


def confirms(command: Command) -> Command:
    """Replace a command's parameter `external` by options with which the user confirms what a stored config names.

    The command receives a Confirmation.
    """
    options: dict[str, tuple[object, OptionInfo]] = {
        "allow_external": (Optional[bool], typer.Option(
            "--allow-external", help="Open all files and hubs that the model names.", rich_help_panel=MODEL,
        )),
        "set_": (Optional[list[str]], typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", rich_help_panel=MODEL,
            help="Name what the model opens, such as data.path; repeatable.",
        )),
    }  # fmt: skip

    def confirmation(values: Settings) -> Confirmation:
        return Confirmation(bool(values.get("allow_external")), tuple(values.get("set_") or ()))

    return _with_options("external", options, confirmation)(command)


def _with_options(
    parameter: str, options: Mapping[str, tuple[object, OptionInfo]], receive: Callable[[Settings], object]
) -> Callable[[Command], Command]:
    """Replace a command's `parameter` by options; the command gets what `receive` makes of the values that are set."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for declared in signature.parameters.values():
            if declared.name == parameter:
                parameters += [
                    inspect.Parameter(name, KEYWORD, default=None, annotation=Annotated[kind, option])
                    for name, (kind, option) in options.items()
                ]
            else:
                parameters.append(declared.replace(kind=KEYWORD))  # so that any order of defaults is allowed

        @wraps(command)
        def run(**values: object) -> None:
            settings = {name: value for name in options if (value := values.pop(name)) is not None}
            command(**values, **{parameter: receive(settings)})

        vars(run)["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {declared.name: declared.annotation for declared in parameters}
        return run  # type: ignore[return-value]

    return decorate


def _option(name: str, key: signatures.Key, panel: str) -> tuple[object, OptionInfo]:
    return Optional[_type_of(key)], _declared(name, key, panel)


def _declared(name: str, key: signatures.Key, panel: str) -> OptionInfo:
    """Declare the option of a field: its name, its alias, and the field's docstring as help."""
    hyphenated = SHORT_NAMES.get(name, name).replace("_", "-")
    option = f"--{hyphenated}"
    if _type_of(key) is bool:
        option += f"/--no-{hyphenated}"
    aliases = [ALIASES[name]] if name in ALIASES else []
    declared: OptionInfo = Preset(option, *aliases, help=key.help, rich_help_panel=panel)
    return declared


def _type_of(key: signatures.Key) -> type:
    """Return the type that the command line converts to: the model checks the rest."""
    kind = key.type
    while (origin := get_origin(kind)) is not None:
        first, *metadata = (argument for argument in get_args(kind) if argument is not type(None))
        if origin is Literal or WithUnit() in metadata:
            return str
        kind = first
    assert isinstance(kind, type), f"--{kind} is no type of an option"
    return kind


def require_model(model: Optional[Path]) -> None:
    """Raise InputError if no model was named and there is no run."""
    from tdpm_cli.checkpoints.runs import newest_run

    if model is None:
        newest_run()


def in_processes(processes: int, max_restarts: int = 0) -> None:
    """Run this command line in several processes and exit as they do, unless this is one of them already."""
    if processes > 1:
        from tdpm_cli.runtime.launch import is_launched, launch

        if not is_launched():
            sys.exit(launch(processes, max_restarts))


def split_list(text: Optional[str]) -> list[str]:
    """Split at commas."""
    return [item.strip() for item in text.split(",") if item.strip()] if text else []


def nonempty_list(option: str, text: str, expected: str = "a list, such as 1,2,4") -> list[str]:
    """Split at commas. Raises InputError, naming the option and what it expects, for an empty list."""
    from tdpm_cli.runtime.errors import InputError

    if not (items := split_list(text)):
        raise InputError(f"{option} is {text!r}: it must be {expected}")
    return items


def numbers(option: str, text: Optional[str]) -> list[float]:
    """Read numbers between commas. Raises InputError, naming the option, for anything else."""
    from tdpm_cli.runtime.errors import InputError

    try:
        return [float(item) for item in split_list(text)]
    except ValueError:
        raise InputError(f"{option} is {text!r}: it must be numbers, such as 1,2.5,4") from None


def count(option: str, text: str) -> int:
    """Read a count such as 64, 50k or 1M. Raises InputError, naming the option, for anything else."""
    from tdpm_cli.runtime.errors import InputError

    count = parse_count(text)
    if not isinstance(count, int) or count < 1:
        raise InputError(f"{option} is {text!r}: it must be a count of at least 1, such as 64, 50k or 1M")
    return count


def optional_count(option: str, text: Optional[str]) -> Optional[int]:
    """Read a count, or None. Raises InputError as `count` does."""
    return count(option, text) if text else None


def counts(option: str, items: Sequence[str]) -> list[int]:
    """Read counts. Raises InputError as `count` does."""
    return [count(option, item) for item in items]
