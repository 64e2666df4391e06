"""`--init-prior`: a trained generator of clean images, ours or another's, as the prior whose images are noised to T."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config.presets import overlay
from tdpm_cli.config.schema import validate_section
from tdpm_cli.convert.external import Tensors, require
from tdpm_cli.models import torchscript_store as programs
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, sha256
from tdpm_cli.sampling.build import Components, build_component, config_in

OURS, PROGRAM = "x0-then-noise", "torchscript"  # the priors that such a generator can be
COPY = "prior.pt"  # of a program, in the folder of a run
OWN = "prior.generator."  # how a file of ours names the generator's weights
ACCEPTED = (
    "accepted: a TorchScript program; .safetensors of a generator named as in tdpm_cli/parts/priors/stylegan2.py; "
    f"a run or an exported file of tdpm whose prior is {OURS!r}"
)


def adopt(plain: dict[str, Any], given: str) -> dict[str, Any]:
    """Plain values of a preset, with the prior that the generator `given` is over them.

    A TorchScript program is trusted from here on: a copy of it is kept, by its hash. Raises InputError for what is no
    generator, or one of images of another size.
    """
    path = Path(given)
    if not path.exists():
        raise InputError(f"--init-prior {given}: no such file; {ACCEPTED}")
    if not path.is_dir() and path.suffix != ".safetensors":
        return overlay(plain, "prior", {"name": PROGRAM, "program": _trust(path)})
    shape = build_component("space", validate_section("space", plain.get("space"))).shape
    if len(shape) != 3:
        raise InputError(f"--init-prior {given}: it makes images, but the space's shape is {list(shape)}")
    _, options = _generator(path, shape)
    return overlay(plain, "prior", {"name": OURS, **options})


def load_into(made: Components, given: str) -> None:
    """Copy the weights of the generator `given` into the prior. Raises InputError, naming tensors, where they do not
    fit."""
    name, path = made.config.prior.name, Path(given)
    if name == OURS and (path.is_dir() or path.suffix == ".safetensors"):
        tensors, _ = _generator(path, made.space.shape)
        weights.load_tensors(made.model.prior.generator, tensors, f"--init-prior {given}")
    elif name != PROGRAM or made.config.prior.options["program"] != sha256(path):  # whose weights came with it
        raise InputError(f"--init-prior {given}: prior.name is {name!r}, which is not made of it; leave prior.name out")


def keep(made: Components, run: Path) -> None:
    """Put the prior's program, where it has one, into the folder of the run, which is whole with it."""
    if made.config.prior.name == PROGRAM:
        _copy(programs.place(made.config.prior.options["program"]), run / COPY)


def _trust(path: Path) -> str:
    """Keep a copy of a program that the user names, from where it may be run from now on; return its SHA-256."""
    programs.read(path)
    digest = sha256(path)
    _copy(path, programs.place(digest))
    return digest


def _copy(path: Path, to: Path) -> None:
    if not to.is_file():
        with replacing(to) as part:
            shutil.copyfile(path, part)


def _generator(path: Path, shape: Sequence[int]) -> tuple[Tensors, dict[str, Any]]:
    """The generator's weights by our names for them, and the keys of the prior that they are for."""
    tensors, says = weights.read_weights(checkpoint.newest_weights(path) if path.is_dir() else path)
    if "config" in says:
        config = config_in(path, says)
        if config.prior.name != OURS:
            raise InputError(f"--init-prior {path}: its prior {config.prior.name!r} makes no clean images; {ACCEPTED}")
        tensors = {name.removeprefix(OWN): tensor for name, tensor in tensors.items() if name.startswith(OWN)}
    found = partial(require, tensors, where=f"--init-prior {path}", kind="generator of ours")
    blocks = len([name for name in tensors if re.fullmatch(r"blocks\.\d+\.bias", name)])
    try:
        low, colours = found("blocks.0.constant").shape[2:], found(f"blocks.{blocks - 1}.bias").shape[0]
        widths = [found(f"blocks.{k}.conv_2.bias").shape[0] for k in range(blocks)]
        latent = found("mapping.0.weight").shape[0]
    except IndexError:
        raise InputError(f"--init-prior {path}: its tensors have not as many axes as those of our generator") from None
    sizes = [tuple(shape[1:])]
    while max(sizes[0]) > 4:  # halved, rounding up
        sizes.insert(0, tuple((side + 1) // 2 for side in sizes[0]))
    if colours != shape[0] or len(sizes) != blocks or sizes[0] != tuple(low):
        theirs = [colours, *(side << (blocks - 1) for side in low)]
        raise InputError(f"--init-prior {path}: it makes images of {theirs}, but the space's are {list(shape)}")
    return tensors, {
        "latent": latent, "layers": len([name for name in tensors if re.fullmatch(r"mapping\.\d+\.weight", name)]),
        # The least base that gives min(base // height, max) channels to every block.
        "channel_base": max(width * size[0] for width, size in zip(widths, sizes, strict=True)),
        "channel_max": max(widths),
    }  # fmt: skip
