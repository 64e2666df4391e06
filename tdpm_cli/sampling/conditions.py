"""The conditions of `tdpm sample`: from options, from small images to enlarge, or drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tdpm_cli.conditioning.labels import Labels
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.stored_images import StoredImages, open_stored
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Condition
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_regular
from tdpm_cli.sampling.build import Components
from tdpm_cli.sampling.options import ConditionedOptions, SampleOptions
from tdpm_cli.sampling.output import read_manifest
from tdpm_cli.sampling.sample_store import MANIFEST

SmallImages = StoredImages | TensorDataset
AS_DATA = "data"  # of --labels: classes as often as the training data have them, unless a class has this name


def open_small_images(components: Components, folder: Path) -> SmallImages:
    """Open the small images of `--upsample`.

    Raises InputError for a model that does not enlarge images, and for images of another shape than it enlarges.
    """
    if "low" not in components.condition.sizes:
        raise InputError("--upsample, but the model does not enlarge images; leave it out")
    manifest = read_manifest(folder / MANIFEST, "sample the small images again, or remove the file")
    small = open_stored(folder, "--upsample", manifest)
    expected = list(cast(list[int], components.config.condition.options["low"]))
    if list(small.shape) != expected:
        raise InputError(f"--upsample {folder}: images of {list(small.shape)}; the model enlarges {expected}; bring "
                         "images to that shape with `tdpm data prepare`")  # fmt: skip
    return small


def conditions(condition: Condition, n: int, options: SampleOptions, small: SmallImages | None) -> RawCondition:
    """Return n conditions: those of the options, those of small images, or drawn from the seed.

    Raises InputError for an option that the model does not take, and for small images that are too few or, without
    prompts, lack captions.
    """
    chosen = _chosen(condition, n, options)
    if small is None:
        return condition.draw(n, Noise(options.seed, range(n))) if chosen is None else chosen
    if n > len(small):
        raise InputError(f"--n is {n:,}, but --upsample contains {len(small):,} images")
    raw, raw_condition = small[range(n)]
    if chosen is None and "captions" not in raw_condition:
        raise InputError("--upsample: its images have no captions; use --prompt, or add a .txt beside each image")
    return {**(raw_condition if chosen is None else chosen), "low": raw}


def _chosen(condition: Condition, n: int, options: SampleOptions) -> RawCondition | None:
    check_option(condition, options)
    return named_condition(condition, options.condition, options.seed, range(n)) if options.condition else None


def named_condition(condition: Condition, texts: Sequence[str], seed: int, indices: range) -> RawCondition:
    """Return the conditions of samples that texts name; the label "data" draws classes as often as the data have them.

    Raises InputError for texts that the condition does not accept.
    """
    if list(texts) == [AS_DATA] and isinstance(condition, Labels) and AS_DATA not in condition.names:
        return condition.draw_as_data(len(indices), Noise(seed, indices))
    return condition.parse(texts, len(indices))


def check_option(condition: Condition, options: ConditionedOptions) -> None:
    """Raise InputError for labels or prompts that the model does not take."""
    for option, values in (("--labels", options.labels), ("--prompt", options.prompts)):
        if values and option != condition.option:
            accepted = f"takes {condition.option}" if condition.option else "is unconditional"
            raise InputError(f"{option}, but the model {accepted}; leave {option} out")


def read_prompts(path: Path) -> Sequence[str]:
    """Return the prompts of a file, one a line. Raises InputError for a file that is not text, or is empty."""
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {path}: not text in UTF-8 ({error})") from None
    if not (prompts := [line.strip() for line in lines if line.strip()]):
        raise InputError(f"--prompts {path}: contains no prompt; write one per line")
    return prompts
