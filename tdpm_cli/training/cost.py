"""The cost of a config in parameters, operations and memory, counted on the device "meta"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tdpm_cli.config import registry
from tdpm_cli.config.schema import Config
from tdpm_cli.engine.batch import Batch
from tdpm_cli.engine.phase import MakeOptimizer, Phase, PhaseSettings
from tdpm_cli.engine.protocols import Objective
from tdpm_cli.sampling.build import build, use_checkpointing
from tdpm_cli.training.stages import stages_of

BATCH = 8  # images that are counted together


@dataclass(frozen=True)
class Cost:
    """Parameters, floating-point operations (a multiply-add counts as two) and bytes in float32."""

    model: int  # parameters
    discriminator: int  # parameters
    call_flops: int  # of one network call on one image
    step_flops: int  # of training on one image
    state_bytes: int  # of weights, gradients, two moments of Adam, and averages
    activation_bytes: int  # of one image, in the largest loss

    def memory(self, size: int) -> int:
        """Return the bytes that training takes, at most, with `size` images at a time."""
        return self.state_bytes + size * self.activation_bytes


def cost_of(config: Config) -> Cost:
    """Count the cost of a config. A lazy penalty counts by its share of the steps."""
    # A TorchScript program may contain constants, which "meta" does not support; then everything is computed.
    device = "cpu" if config.prior.name == "torchscript" else "meta"
    components = build(config, device)
    size, shape = BATCH, components.space.shape
    x = torch.zeros((size, *shape), device=device)
    cond = {key: value.to(device) for key, value in components.condition.null(size).items()}
    use_checkpointing(components.model, config.train.gradient_checkpointing)
    t = torch.ones(size, dtype=torch.long, device=device)
    with torch.no_grad():
        encoded = components.model.denoiser.encode_condition(cond)
        call = flops(lambda: components.model.denoiser.network(x, t, **encoded))
    step, activations = 0.0, 0
    for stage in stages_of(config.train):
        objective: Objective = registry.load("objective", stage.objective, "train.objective")()
        make_optimizer: MakeOptimizer = lambda networks: torch.optim.SGD(nn.ModuleDict(networks).parameters(), 0.0)
        phases = objective.phases(components, PhaseSettings(config.adversarial, make_optimizer))
        share = (stage.stop - stage.start) / config.train.duration
        of_stage, saved = _cost_of_phases(phases, Batch(x, cond, None))
        step, activations = step + share * of_stage, max(activations, saved)
    model, discriminator = (parameter_count(network) for network in (components.model, components.discriminator))
    encoder = parameter_count(components.encoder)
    state = 4 * (4 * (model + discriminator + encoder) + len(config.train.ema) * model)
    return Cost(model, discriminator, call // size, round(step / size), state, activations // size)


def _cost_of_phases(phases: Sequence[Phase], batch: Batch) -> tuple[float, int]:
    """Return the operations of a step, and the bytes of the largest activations of a loss."""
    step, activations = 0.0, 0
    for phase in phases:
        for other in phases:
            other.module.requires_grad_(False)
        phase.module.requires_grad_(True)
        for _, term in phase.terms:
            saved = _Saved(phase.module)
            with saved:
                loss = term(batch)  # keeps its graph, and so the saved tensors, alive
            activations = max(activations, saved.bytes)
            del loss
            step += flops(lambda term=term: term(batch)[0].backward()) / phase.every  # type: ignore[misc]
    return step, activations


def flops(work: Callable[[], object]) -> int:
    """Count the floating-point operations of `work` by PyTorch's formulas: convolutions, products, attention."""
    with _Counter() as counter:
        work()
    return counter.flops


class _Counter(TorchDispatchMode):
    """Counts operations. PyTorch's FlopCounterMode fails at a double backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:  # fmt: skip
        output = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output


def parameter_count(network: nn.Module | None) -> int:
    """Return the number of weights of a network; 0 for None."""
    return sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0


class _Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a forward pass saves for the backward pass, except weights."""

    def __init__(self, module: nn.Module) -> None:
        weights = {id(parameter.untyped_storage()._cdata) for parameter in module.parameters()}
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # so that no address is reused
            return tensor

        kept: list[Tensor] = []
        super().__init__(pack, lambda tensor: tensor)
        self._weights, self._seen = weights, seen

    @property
    def bytes(self) -> int:
        """The bytes of all saved tensors, each storage once."""
        return sum(self._seen.values())
