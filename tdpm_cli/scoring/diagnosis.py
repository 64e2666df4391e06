"""Which half of a model to improve: the denoiser, or the prior."""

from dataclasses import dataclass

import torch

from tdpm_cli.assemble import Loaded
from tdpm_cli.config import SampleConfig
from tdpm_cli.engine import scores
from tdpm_cli.sampling import Generated, Start
from tdpm_cli.scoring.inputs import Examples, of_model
from tdpm_cli.scoring.scorer import Score, Scorer


@dataclass(frozen=True)
class Diagnosis:
    """The distance of samples, and what is left of it when the chain starts from real x_T.

    `at_x_T` is the sliced Wasserstein distance, in the model's units, of the prior's x_T from that of the data;
    `floor` that of one half of the data's x_T from the other.
    """

    from_prior: Score
    from_data: Score
    at_x_T: float
    floor: float

    @property
    def advice(self) -> str:
        """One sentence: which half to improve, and by what."""
        whole, ceiling = self.from_prior.value, self.from_data.value
        if whole - ceiling > ceiling:
            return (
                f"The prior is the weaker half: of {whole:.4g}, {whole - ceiling:.4g} goes when the chain starts from "
                "real x_T; train longer, with a larger discriminator or another game.r1, or truncate later (larger T)."
            )
        return (
            f"The denoiser is the weaker half: {ceiling:.4g} of {whole:.4g} stays when the chain starts from real "
            "x_T; take more steps, train longer, with a larger backbone, or truncate earlier (smaller T)."
        )


def diagnose(
    loaded: Loaded, settings: SampleConfig, data: Examples, scorer: Scorer, seed: int, n: int, device: torch.device
) -> Diagnosis:
    """Score n samples of a model from its prior's x_T and from the noised x_T of its own training `data`."""
    n = min(n, len(data))
    of = lambda start: scorer.score(of_model(loaded, settings, seed, n, device, start, data.data)).scores[0]
    made = _x_T(loaded, settings, data, seed + 1, n, device, "prior")  # seeds apart: noise in common would flatter
    real = _x_T(loaded, settings, data, seed + 2, n, device, "data")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    halves = real[order[: n // 2]], real[order[n // 2 :]]
    at_x_T, floor = scores.sliced_wasserstein(made, real), scores.sliced_wasserstein(*halves)
    return Diagnosis(of("prior"), of("data"), at_x_T, floor)


def _x_T(
    loaded: Loaded, settings: SampleConfig, data: Examples, seed: int, n: int, device: torch.device, start: Start
) -> torch.Tensor:
    """x_T [n, D]."""
    generated = Generated(loaded.assembly, settings, seed, n, device, start, data.data)
    chunks = [range(k, min(k + settings.batch, n)) for k in range(0, n, settings.batch)]
    return torch.cat([generated.x_T(list(chunk))[0].cpu().flatten(1) for chunk in chunks])
