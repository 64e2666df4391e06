"""Any generator of x_0 saved as TorchScript, then noise to T: a prior from another project (`--init-prior`)."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import Positive, Program
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.models import torchscript_programs as programs
from tdpm_cli.runtime.errors import InputError

__all__ = ["TorchScript"]


class TorchScript(nn.Module):
    """x_T = alpha_T · G(z) + sigma_T · eps, where G is the program whose file has the SHA-256 `program`.

    G maps float32 [B, *`z`] to examples as the space encodes them: images in -1..1. Of a condition it receives the
    tensors that its `forward` names. Its weights are trained, averaged and saved with the others, in eval mode.
    `tdpm train --init-prior FILE` sets `program`. z and eps are drawn together. Raises InputError for a program that
    this machine does not trust, or that does not fit.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = True
    learns = True
    shares = False

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module, *,
        program: Program, z: list[Positive] = [512],  # noqa: B006 (never written to)
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator = programs.load(program).float()
        self.shape, self.z, self.schedule = tuple(shape), tuple(z), schedule
        self.z_shape = (math.prod(z) + math.prod(shape),)
        self.file = programs.place(program)
        if not any(True for _ in self.generator.parameters()):
            raise InputError("the prior's program has no weights to train: it was frozen; save it without freezing")
        named = {argument.name for argument in self.generator.forward.schema.arguments}  # type: ignore[attr-defined]
        self.condition_keys = [key for key in sizes if key in named]
        if sizes and not self.condition_keys:
            raise InputError(
                f"the model is conditional, but the prior's program takes {', '.join(sorted(named - {'self'}))}: name "
                f"{' or '.join(sizes)} in its forward, or use condition.name=none"
            )
        self._try(sizes)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, z_shape] to x_T [B, *shape]."""
        return self.schedule.q_sample_T(*self.x_0_and_eps(z, **cond))

    def x_0_and_eps(self, z: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map (z, eps) [B, z_shape] to x_0 and eps, each [B, *shape]."""
        z, eps = z.split([math.prod(self.z), math.prod(self.shape)], 1)
        x_0 = self.generator(z.reshape(-1, *self.z), **{key: cond[key] for key in self.condition_keys})
        return x_0, eps.reshape(-1, *self.shape)

    def start(self, network: nn.Module) -> None:
        """Do nothing: the weights come with the program."""

    @torch.no_grad()
    def _try(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError unless two z become two examples of the space's shape, the same for every call."""
        shapes = {"label": (2,), "pooled": (2, sizes.get("pooled", 0)), "context": (2, 1, sizes.get("context", 0))}
        cond = {key: torch.zeros(shapes[key], dtype=torch.long if key == "label" else torch.float32, device="cpu")
                for key in self.condition_keys}  # fmt: skip
        z = torch.ones(2, *self.z, device="cpu")
        try:
            x_0, again = self.generator(z, **cond), self.generator(z, **cond)
        except Exception as error:  # a program's error has one of several classes; its own message comes last
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"prior.z is {list(self.z)}, and the prior's program failed on z float32 {list(z.shape)}: {reason}; "
                "set prior.z to the shape of its input for one image"
            ) from None
        expected = f"expected: floating point {[2, *self.shape]}, the shape of the space"
        if not isinstance(x_0, Tensor):
            raise InputError(f"the prior's program returns a {type(x_0).__name__} for 2 images; {expected}")
        if not x_0.is_floating_point() or x_0.shape != (2, *self.shape):
            actual = f"{str(x_0.dtype).removeprefix('torch.')} {list(x_0.shape)}"
            raise InputError(f"the prior's program returns {actual} for 2 images; {expected}")
        if not torch.equal(x_0, again):
            raise InputError("the prior's program returns different images for the same z: it draws random numbers; "
                             "save one that takes all of them from z")  # fmt: skip
