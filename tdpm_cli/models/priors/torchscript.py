"""A generator of clean images, saved as TorchScript, as the prior, whose images are then noised to T."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import Positive
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.models import torchscript_store as programs
from tdpm_cli.runtime.errors import InputError

__all__ = ["TorchScript"]


class TorchScript(nn.Module):
    """x_T = alpha_T · G(z) + sigma_T · eps, G being the program whose file has the SHA-256 `program`.

    G maps float32 [B, *`z`] to clean examples as the space encodes them: images in -1..1. A model with conditions hands
    it those that its `forward` names. Only the way they are used is the program's: its weights, in eval mode, are
    trained, averaged and saved with the others. `tdpm train --init-prior FILE` sets `program`. z and eps come as one
    draw. Raises InputError for a program that is not trusted here, or does not fit.
    """

    nfe, learns, shares = 1, True, False

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module, *,
        program: str, z: list[Positive] = [512],  # noqa: B006 (never written to)
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator = programs.load(program).float()
        self.shape, self.z = tuple(shape), tuple(z)
        self.z_shape = (math.prod(z) + math.prod(shape),)
        self.alpha_T, self.sigma_T = schedule.alpha(schedule.T), schedule.sigma(schedule.T)
        self.file = programs.place(program)
        if not any(True for _ in self.generator.parameters()):
            raise InputError("the prior's program has no weights to learn: it was frozen; save it without freezing")
        named = {argument.name for argument in self.generator.forward.schema.arguments}  # type: ignore[attr-defined]
        self.takes = [key for key in sizes if key in named]
        if sizes and not self.takes:
            raise InputError(
                f"the model is conditional, but the prior's program takes {', '.join(sorted(named - {'self'}))}: name "
                f"{' or '.join(sizes)} in its forward, or use condition.name=none"
            )
        self._try(sizes)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, z_shape] to x_T [B, *shape]."""
        z, eps = z.split([math.prod(self.z), math.prod(self.shape)], 1)
        x_0 = self.generator(z.reshape(-1, *self.z), **{key: cond[key] for key in self.takes})
        return self.alpha_T * x_0 + self.sigma_T * eps.reshape(-1, *self.shape)

    def start(self, network: nn.Module) -> None:
        """Nothing to begin from: the weights came with the program."""

    @torch.no_grad()
    def _try(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError unless two z become two examples of the space's shape, the same ones every time."""
        of = {"label": (2,), "pooled": (2, sizes.get("pooled", 0)), "context": (2, 1, sizes.get("context", 0))}
        cond = {key: torch.zeros(of[key], dtype=torch.long if key == "label" else torch.float32, device="cpu")
                for key in self.takes}  # fmt: skip
        z = torch.ones(2, *self.z, device="cpu")
        try:
            found, again = self.generator(z, **cond), self.generator(z, **cond)
        except Exception as error:  # what a program raises arrives as one of several classes; its own words come last
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"prior.z is {list(self.z)}, and the prior's program failed on z float32 {list(z.shape)}: {reason}; "
                "set prior.z to the shape of what it takes for one image"
            ) from None
        accepted = f"accepted: floating point {[2, *self.shape]}, as the space has them"
        if not isinstance(found, Tensor):
            raise InputError(f"the prior's program gives a {type(found).__name__} for 2 images; {accepted}")
        if not found.is_floating_point() or found.shape != (2, *self.shape):
            told = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            raise InputError(f"the prior's program gives {told} for 2 images; {accepted}")
        if not torch.equal(found, again):
            raise InputError("the prior's program gives other images for the same z: it draws numbers of its own; save "
                             "one that takes all of them as z")  # fmt: skip
