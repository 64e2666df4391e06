"""Which half of a model to improve: the denoiser, or the prior."""

from dataclasses import dataclass

import torch

from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.evaluation import distances as scores
from tdpm_cli.evaluation.inputs import Examples, of_model
from tdpm_cli.evaluation.scorer import Score, Scorer
from tdpm_cli.sampling.build import Loaded
from tdpm_cli.sampling.sample_batch import GeneratedDataset


@dataclass(frozen=True)
class Diagnosis:
    """Distances of n examples: as the model draws them, decoded from the x_T of real ones, and those real ones as such.

    The last is what so few real examples score at best. `at_x_T` is the sliced Wasserstein distance, in the model's
    units, of the prior's x_T from that of the data; `halves` that of one half of the data's x_T from the other.
    """

    from_prior: Score
    from_data: Score
    of_data: Score
    at_x_T: float
    halves: float

    @property
    def rows(self) -> list[dict[str, str]]:
        """The figures as a table."""
        of_chain = {
            "from the prior's x_T": self.from_prior,
            "from real x_T (ceiling)": self.from_data,
            "those real examples themselves": self.of_data,
        }
        of_x_T = {"prior against data, at x_T": self.at_x_T, "halves of the data, at x_T": self.halves}
        return [
            *({"what": what, "score": score.text, "of": score.name} for what, score in of_chain.items()),
            *({"what": what, "score": f"{value:.4g}", "of": "sliced W2"} for what, value in of_x_T.items()),
        ]

    @property
    def advice(self) -> str:
        """One sentence: which half to improve, and by what."""
        whole, ceiling, floor = self.from_prior.value, self.from_data.value, self.of_data.value
        prior, denoiser = whole - ceiling, ceiling - floor
        if prior > denoiser:
            return (
                f"The prior is the weaker half: of {whole:.4g} it costs {prior:.3g}, and the denoiser {denoiser:.3g}; "
                "train longer, with a larger discriminator or another adversarial.r1, or truncate later (larger T)."
            )
        return (
            f"The denoiser is the weaker half: of {whole:.4g} it costs {denoiser:.3g}, and the prior {prior:.3g}; "
            "take more steps, train longer, with a larger backbone, or truncate earlier (smaller T)."
        )


def diagnose(
    loaded: Loaded, settings: SampleConfig, data: Examples, scorer: Scorer, seed: int, n: int, device: torch.device
) -> Diagnosis:
    """Score n samples of a model from its prior's x_T and from the noised x_T of its own training `data`."""
    data = data.some(n)
    n = len(data)
    of = lambda start: scorer.score(of_model(loaded, settings, seed, n, device, start, data.data)).scores[0]
    made = _x_T(loaded, settings, data, seed + 1, n, device, "prior")  # seeds apart: noise in common would flatter
    real = _x_T(loaded, settings, data, seed + 2, n, device, "data")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    at_x_T = scores.sliced_wasserstein(made, real)
    halves = scores.sliced_wasserstein(real[order[: n // 2]], real[order[n // 2 :]])
    return Diagnosis(of("prior"), of("data"), scorer.score(data).scores[0], at_x_T, halves)


def _x_T(
    loaded: Loaded, settings: SampleConfig, data: Examples, seed: int, n: int, device: torch.device, start: Start
) -> torch.Tensor:
    """x_T [n, D]."""
    generated = GeneratedDataset(loaded.components, settings, seed, n, start=start, data=data.data)
    chunks = [range(k, min(k + settings.batch, n)) for k in range(0, n, settings.batch)]
    return torch.cat([generated.x_T(list(chunk)).cpu().flatten(1) for chunk in chunks])
