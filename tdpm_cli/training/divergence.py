"""Report steps whose losses or gradients became infinite or NaN."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from tdpm_cli.checkpoints.runs import list_checkpoints
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.loader import order_from
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.training.monitor import Step
from tdpm_cli.training.state import TrainerState


def report_divergence(state: TrainerState, run: Path, data: Dataset, steps: Sequence[Step]) -> InputError:
    """Write all that is known of these steps to a file of the run, and return the error for the user."""
    components, settings = state.components, state.settings
    networks = {"model": components.model, "discriminator": components.discriminator, "encoder": components.encoder}
    named = [
        (f"{name}.{key}", parameter)
        for name, network in networks.items() if network for key, parameter in network.named_parameters()
    ]  # fmt: skip

    def examples(seen: int) -> list[int]:
        return next(order_from(data, settings.batch, settings.seed, seen, flip=settings.flip))

    report = {
        "steps": [
            {"seen": step.seen, "seed": state.seed(step.seen - settings.batch), "not finite": step.bad,
             "examples": examples(step.seen - settings.batch),
             "values": {key: str(value) for key, value in step.values.items()}}
            for step in steps
        ],
        "weights": _norms(named),
        "gradients": {key: str(norm) for key, norm in _norms((key, weight.grad) for key, weight in named).items()},
        "config": components.config.to_dict(),
    }  # fmt: skip
    path = run / f"diverged-{state.seen:09d}.json"
    if distributed.is_first():
        write_text(path, json.dumps(report, indent=1))
    bad = ", ".join(sorted({key for step in steps for key in step.bad}))
    saved = list_checkpoints(run)
    kept = f"the last checkpoint, {saved[-1]}, is intact" if saved else "no checkpoint was saved"
    return InputError(
        f"{bad} became infinite or NaN in {len(steps)} steps in a row, by {state.seen / 1000:g} kimg. These updates "
        f"were skipped; {kept}. Details: {path}. Lower train.denoiser_lr or train.discriminator_lr, raise "
        "adversarial.r1, or set train.clip=1"
    )


def _norms(tensors: Iterable[tuple[str, Tensor | None]]) -> dict[str, float]:
    return {
        key: float(distributed.full_value(tensor.detach()).norm()) for key, tensor in tensors if tensor is not None
    }  # fmt: skip
