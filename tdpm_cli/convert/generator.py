"""`--init-prior`: begin a run from a trained generator of clean images, whose images the prior noises to T."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config.presets import overlay, section_of
from tdpm_cli.config.schema import validate_component
from tdpm_cli.convert.external import Tensors, require
from tdpm_cli.models import torchscript_programs as programs
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, replacing, sha256
from tdpm_cli.sampling.build import Components, build_component, config_in

NETWORK, PROGRAM = "x0-then-noise", "torchscript"  # the priors that a generator can become
PROGRAM_COPY = "prior.pt"  # in the folder of a run
GENERATOR = "prior.generator."  # the prefix of the generator's tensors in a file of tdpm
ACCEPTED = (
    "accepted: a TorchScript program; .safetensors with the tensor names of tdpm_cli/models/stylegan2.py; "
    f"a run or an exported file of tdpm whose prior is {NETWORK!r}"
)


def preset_of_generator(plain: Json, source: str) -> Json:
    """Return a preset whose prior is the generator `source`.

    Trusts a TorchScript program from now on, and keeps a copy of it under its hash. Raises InputError for anything but
    a generator of images of the space's shape.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"--init-prior {source}: no such file; {ACCEPTED}")
    if not path.is_dir() and path.suffix != ".safetensors":
        return overlay(plain, "prior", {"name": PROGRAM, "program": _trust(path)})
    shape = build_component("space", validate_component("space", section_of(plain, "space"))).shape
    if len(shape) != 3:
        raise InputError(f"--init-prior {source}: space.shape is {list(shape)}; a generator needs a space of images")
    _, options = _generator(path, shape)
    return overlay(plain, "prior", {"name": NETWORK, **options})


def load_generator(components: Components, source: str) -> None:
    """Load the weights of the generator `source` into the prior.

    Raises InputError, naming tensors, for weights that do not fit.
    """
    name, path = components.config.prior.name, Path(source)
    if name == NETWORK and (path.is_dir() or path.suffix == ".safetensors"):
        tensors, _ = _generator(path, components.space.shape)
        weights.load_tensors(components.model.prior.generator, tensors, f"--init-prior {source}")
    elif name != PROGRAM or components.config.prior.options["program"] != sha256(path):  # which contains its weights
        raise InputError(f"--init-prior {source}: prior.name is {name!r}, which is another generator; omit prior.name")


def copy_program(components: Components, run: Path) -> None:
    """Copy the prior's TorchScript program, if it has one, into the folder of the run, which is complete with it."""
    if components.config.prior.name == PROGRAM:
        _copy(programs.place(str(components.config.prior.options["program"])), run / PROGRAM_COPY)


def _trust(path: Path) -> str:
    """Copy a program that the user names to where programs may be run from; return its SHA-256."""
    programs.read(path)
    digest = sha256(path)
    _copy(path, programs.place(digest))
    return digest


def _copy(path: Path, to: Path) -> None:
    if not to.is_file():
        with replacing(to) as part:
            shutil.copyfile(path, part)


def _generator(path: Path, shape: Sequence[int]) -> tuple[Tensors, dict[str, int]]:
    """Return the weights by our names, and the keys of the prior that they fit."""
    tensors, header = weights.read_weights(checkpoint.newest_weights(path) if path.is_dir() else path)
    if "config" in header:
        config = config_in(path, header)
        if config.prior.name != NETWORK:
            raise InputError(
                f"--init-prior {path}: its prior {config.prior.name!r} does not make clean images; {ACCEPTED}"
            )
        tensors = {
            name.removeprefix(GENERATOR): tensor for name, tensor in tensors.items() if name.startswith(GENERATOR)
        }
    tensor = partial(require, tensors, where=f"--init-prior {path}", kind="generator of tdpm")
    blocks = len([name for name in tensors if re.fullmatch(r"blocks\.\d+\.bias", name)])
    try:
        low, colours = tensor("blocks.0.constant").shape[2:], tensor(f"blocks.{blocks - 1}.bias").shape[0]
        widths = [tensor(f"blocks.{k}.conv_2.bias").shape[0] for k in range(blocks)]
        latent = tensor("mapping.0.weight").shape[0]
    except IndexError:
        raise InputError(
            f"--init-prior {path}: its tensors have fewer axes than expected; expected: those of our generator"
        ) from None
    sizes = [tuple(shape[1:])]
    while max(sizes[0]) > 4:  # halved, rounding up
        sizes.insert(0, tuple((side + 1) // 2 for side in sizes[0]))
    if colours != shape[0] or len(sizes) != blocks or sizes[0] != tuple(low):
        actual = [colours, *(side << (blocks - 1) for side in low)]
        raise InputError(
            f"--init-prior {path}: it makes images of {actual}, but the space's shape is {list(shape)}; they must agree"
        )
    return tensors, {
        "latent": latent, "layers": len([name for name in tensors if re.fullmatch(r"mapping\.\d+\.weight", name)]),
        # The least base that gives min(base // height, max) channels to every block.
        "channel_base": max(width * size[0] for width, size in zip(widths, sizes, strict=True)),
        "channel_max": max(widths),
    }  # fmt: skip
