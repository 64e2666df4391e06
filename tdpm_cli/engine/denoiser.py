"""The denoiser: estimates x_0 from x_t by a network that predicts eps, x_0 or v. Also its training loss."""

import torch
from torch import Tensor, nn

from tdpm_cli.config.settings import Prediction, Weight
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule


class Denoiser(nn.Module):
    """Maps (x_t, t) to an estimate of x_0, by a network that predicts eps, x_0 or v.

    v = alpha_t eps - sigma_t x_0 (Salimans and Ho 2022, appendix D). `weight` is "simple" (the mean squared
    error of the prediction itself; Ho et al. 2020, eq. 14) or "min_snr" (Hang et al. 2023, sec. 3.4), whose
    clamp is `gamma`. `text_encoder` is the condition's own network, which is trained with this one; None if the
    condition has none. Raises ValueError for an eps prediction where the schedule ends in pure noise.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction = "eps",
        weight: Weight = "simple",
        gamma: float = 5.0,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if prediction == "eps" and schedule.alpha(schedule.T) == 0:
            raise ValueError("eps does not determine x_0 where alpha_bar is 0; predict v or x_0, or truncate earlier")
        # In the order of computation, so that gradients can be sent while earlier layers still compute theirs.
        self.text_encoder, self.network, self.schedule = text_encoder, network, schedule
        self.prediction, self.weight, self.gamma = prediction, weight, gamma

    def encode_condition(self, cond: Cond) -> Cond:
        """Turn the tensors of a condition into the inputs of the networks, by the text encoder if there is one."""
        return cond if self.text_encoder is None else self.text_encoder(**cond)

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Estimate x_0 [B, *shape] from x_t [B, *shape] and integer t [B] in 1..T."""
        output = self.network(x_t, t, **cond).to(x_t.dtype)
        alpha, sigma = self.schedule.coefficients(t, x_t)
        if self.prediction == "eps":
            return (x_t - sigma * output) / alpha
        if self.prediction == "v":
            return alpha * x_t - sigma * output
        return output

    def loss(self, x_0: Tensor, t: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """Return the weighted squared error of the prediction, averaged over the shape: [B]."""
        alpha, sigma = self.schedule.coefficients(t, x_0)
        output = self.network(alpha * x_0 + sigma * noise, t, **cond).to(x_0.dtype)
        target = {"eps": noise, "x_0": x_0, "v": alpha * noise - sigma * x_0}[self.prediction]
        error = (output - target).square().flatten(1).mean(1)
        return error if self.weight == "simple" else error * self._min_snr(t)

    def _min_snr(self, t: Tensor) -> Tensor:
        # min(SNR, gamma) is the weight of the error in x_0; that in eps is SNR times, in v SNR + 1 times as large.
        alpha, sigma = self.schedule.coefficients(t, t.double())
        snr = (alpha / sigma).square()
        clamped = snr.clamp(max=self.gamma)
        return {"eps": clamped / snr, "x_0": clamped, "v": clamped / (snr + 1)}[self.prediction].float()


def antithetic_times(batch: int, T: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw t [batch] uniform on 1..T in pairs t, T + 1 - t, which lowers the variance of the loss."""
    half = torch.randint(1, T + 1, ((batch + 1) // 2,), generator=generator, device=device)
    return torch.cat([half, T + 1 - half])[:batch]
