"""Which half of a model to improve: the denoiser, or the prior."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tdpm_cli.config.constants import Start
from tdpm_cli.data.dataset import pieces_of
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.evaluation.inputs import SampledModel, samples_of
from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from tdpm_cli.evaluation.results import Scores
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.sample_batch import GeneratedDataset


@dataclass(frozen=True)
class Diagnosis:
    """Distances of n samples from the prior, of n samples from the noised x_T of real examples, and of those examples.

    `of_data` is the distance that so few real examples have at best. `at_x_T` is the sliced Wasserstein distance, in
    the model's units, of the prior's x_T from that of the data; `halves` that of one half of the data's x_T from the
    other.
    """

    from_prior: Score
    from_data: Score
    of_data: Score
    at_x_T: float
    halves: float

    @property
    def rows(self) -> list[dict[str, str]]:
        """The figures as a table."""
        of_samples = {
            "from the prior's x_T": self.from_prior,
            "from real x_T (ceiling)": self.from_data,
            "the real examples themselves": self.of_data,
        }
        of_x_T = {"prior against data, at x_T": self.at_x_T, "halves of the data, at x_T": self.halves}
        return [
            *({"what": what, "score": score.text, "of": score.name} for what, score in of_samples.items()),
            *({"what": what, "score": f"{value:.4g}", "of": "sliced W2"} for what, value in of_x_T.items()),
        ]

    @property
    def weaker(self) -> str:
        """The half that costs more: "prior" or "denoiser"."""
        return "prior" if self._cost_of_prior > self._cost_of_denoiser else "denoiser"

    @property
    def advice(self) -> str:
        """One sentence: which half to improve, and how."""
        total, prior, denoiser = self.from_prior.value, self._cost_of_prior, self._cost_of_denoiser
        if self.weaker == "prior":
            return (
                f"The prior is the weaker half: of the distance {total:.4g} it costs {prior:.3g}, the denoiser "
                f"{denoiser:.3g}. Train longer, use a larger discriminator or another adversarial.r1, or truncate "
                "later (larger T)."
            )
        return (
            f"The denoiser is the weaker half: of the distance {total:.4g} it costs {denoiser:.3g}, the prior "
            f"{prior:.3g}. Take more steps, train longer, use a larger backbone, or truncate earlier (smaller T)."
        )

    def to_dict(self) -> Json:
        """Return what --json writes."""
        scores = {"from_prior": self.from_prior, "from_data": self.from_data, "of_data": self.of_data}
        figures = {key: {"name": s.name, "value": s.value, "error": s.error} for key, s in scores.items()}
        return {**figures, "at_x_T": self.at_x_T, "halves": self.halves, "advice": self.advice, "rows": self.rows}

    @property
    def _cost_of_prior(self) -> float:
        return self.from_prior.value - self.from_data.value

    @property
    def _cost_of_denoiser(self) -> float:
        return self.from_data.value - self.of_data.value


def diagnose(model: SampledModel, data: Examples, scorer: Scorer, n: int, scored: Scores | None = None) -> Diagnosis:
    """Score n samples of a model from its prior's x_T and from the noised x_T of its own training `data`.

    `scored` are scores of the model's samples from the prior; they are used if they are of n samples.
    """
    data = data.random_subset(n)
    n = len(data)
    score = lambda start: (
        scorer.score(samples_of(model.loaded, model.settings, model.seed, n, start, data.data)).distance
    )
    prior = _x_T(model, data, model.seed + 1, "prior")  # separate seeds: common noise would lower the distance
    real = _x_T(model, data, model.seed + 2, "data")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    at_x_T = sliced_wasserstein(prior, real)
    halves = sliced_wasserstein(real[order[: n // 2]], real[order[n // 2 :]])
    from_prior = scored.distance if scored is not None and scored.n == n else score("prior")
    return Diagnosis(from_prior, score("data"), scorer.score(data).distance, at_x_T, halves)


def _x_T(model: SampledModel, data: Examples, seed: int, start: Start) -> Tensor:
    """Return x_T [n, D] of as many examples as `data` has."""
    n, size, components = len(data), model.settings.batch, model.loaded.components
    generated = GeneratedDataset(components, model.settings, seed, n, start=start, data=data.data)

    return torch.cat([generated.x_T(list(batch)).cpu().flatten(1) for batch in pieces_of(n, size)])
