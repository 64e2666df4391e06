"""The forward process q(x_t | x_0) = N(alpha_t x_0, sigma_t² I), and where to truncate it.

t = 0 is data and t = T the noisiest step, so `alpha_bar[0] == 1` and there is no index -1.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import torch
from torch import Tensor

from tdpm_cli.engine.information import nats


class Schedule:
    """Noise levels: `alpha_bar` float64 [T+1], strictly decreasing from alpha_bar[0] = 1.

    alpha_t = √alpha_bar_t scales the data, sigma_t = √(1 - alpha_bar_t) the noise (Ho et al. 2020, eq. 4).
    Raises ValueError for any other table.
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64, device="cpu")
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or alpha_bar[0] != 1:
            raise ValueError("alpha_bar must be a vector of at least two numbers that starts with 1")
        if not bool((alpha_bar.diff() < 0).all()) or alpha_bar[-1] < 0:
            raise ValueError("alpha_bar must decrease strictly and stay at or above 0")
        self.alpha_bar = alpha_bar
        self.untruncated = self  # the schedule that this one was truncated from
        self._values = alpha_bar.tolist()
        self._tables: dict[torch.device, Tensor] = {alpha_bar.device: alpha_bar}

    @property
    def T(self) -> int:
        """The last step: the truncation point."""
        return len(self.alpha_bar) - 1

    def alpha(self, t: int) -> float:
        """Return alpha_t."""
        return math.sqrt(self._values[t])

    def sigma(self, t: int) -> float:
        """Return sigma_t."""
        return math.sqrt(1 - self._values[t])

    def log_snr(self, t: int) -> float:
        """Return log(alpha_bar_t / (1 - alpha_bar_t)): +inf at t = 0, -inf in pure noise."""
        alpha_bar = self._values[t]
        if alpha_bar in (0, 1):
            return math.inf if alpha_bar else -math.inf
        return math.log(alpha_bar / (1 - alpha_bar))

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha_t and sigma_t at integer steps t [B], shaped [B, 1, ...] to multiply `like` [B, *shape]."""
        if t.device not in self._tables:
            self._tables[t.device] = self.alpha_bar.to(t.device)
        alpha_bar = self._tables[t.device][t].view(-1, *[1] * (like.ndim - 1))
        return alpha_bar.sqrt().to(like.dtype), (1 - alpha_bar).sqrt().to(like.dtype)

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x_0 + sigma_t noise; x_0 and noise [B, *shape], t [B] (Ho et al. 2020, eq. 4)."""
        alpha, sigma = self.coefficients(t, x_0)
        return alpha * x_0 + sigma * noise

    def q_sample_T(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """Return x_T ~ q(x_T | x_0): the data at the truncation point."""
        return self.alpha(self.T) * x_0 + self.sigma(self.T) * noise

    def nats(self, t: int, eigenvalues: Tensor) -> float:
        """Return what x_t, t ≥ 1, asks of a prior in nats; see `information.nats`. It falls with t."""
        return nats(eigenvalues, self.alpha(t), self.sigma(t))

    def step_of_nats(self, wanted: float, eigenvalues: Tensor) -> int:
        """Return the step whose nats are nearest to `wanted`. Raises ValueError if all are below or above it."""
        return self._nearest_step("nats", wanted, [self.nats(t, eigenvalues) for t in range(1, self.T + 1)])

    def truncate(self, step: int | None = None, sigma: float | None = None, log_snr: float | None = None) -> "Schedule":
        """Keep t = 0..T, where T is `step`, or the step whose sigma or log-SNR is nearest to `sigma` or `log_snr`.

        Raises ValueError unless exactly one of the three is set and the schedule contains it. For nats, which depend
        on the data, see `step_of_nats`.
        """
        if sum(unit is not None for unit in (step, sigma, log_snr)) != 1:
            raise ValueError("set exactly one of step, sigma, log_snr")
        if sigma is not None:
            step = self._nearest_step("sigma", sigma, [self.sigma(t) for t in range(1, self.T + 1)])
        if log_snr is not None:
            step = self._nearest_step("log_snr", log_snr, [self.log_snr(t) for t in range(1, self.T + 1)])
        assert step is not None
        if not 1 <= step <= self.T:
            raise ValueError(f"step {step} is outside the schedule; accepted: 1 to {self.T}")
        truncated = Schedule(self.alpha_bar[: step + 1])
        truncated.untruncated = self.untruncated
        return truncated

    def _nearest_step(self, name: str, wanted: float, levels: list[float]) -> int:
        low, high = min(levels), max(levels)
        if not low <= wanted <= high:
            raise ValueError(f"{name} {wanted} is outside the schedule; accepted: {_inwards(low, high)}")
        return 1 + min(range(len(levels)), key=lambda k: levels[k] != wanted and abs(levels[k] - wanted))

    def respace(self, steps: int, spacing: float = 1.0) -> list[int]:
        """Return [T, ..., 0], the times of `steps` reverse steps: T · (k/steps)^spacing, rounded.

        Spacing 1 is even; above 1, steps are shorter near the data (2: Song et al. 2021, appendix D.2). Raises
        ValueError unless 1 <= steps <= T.
        """
        if not 1 <= steps <= self.T:
            raise ValueError(f"{steps} steps on a schedule of {self.T}; accepted: 1 to {self.T}")
        times = [0]
        for k in range(1, steps + 1):
            times.append(max(round(self.T * (k / steps) ** spacing), times[-1] + 1))
        return times[::-1]

    def describe(self) -> str:
        """Return the truncation point in every unit: "T = 100, sigma 0.324, log-SNR 2.14"."""
        return f"T = {self.T}, sigma {self.sigma(self.T):.4g}, log-SNR {self.log_snr(self.T):.4g}"


def _inwards(low: float, high: float) -> str:
    """Write a range with four digits, rounded inwards; with all digits if nothing would remain."""
    first, last = (
        float(Context(prec=4, rounding=way).create_decimal_from_float(bound))
        for bound, way in ((low, ROUND_CEILING), (high, ROUND_FLOOR))
    )
    return f"{first} to {last}" if first <= last else f"{low} to {high}"


def from_beta(beta: Tensor) -> Schedule:
    """Return the schedule of beta_t [T]: alpha_bar_t = Π (1 - beta_s) over s ≤ t (Ho et al. 2020, eq. 4)."""
    return Schedule(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)]))


def ramp(start: float, end: float, steps: int) -> Tensor:
    """Return `steps` float64 values from start to end, evenly spaced."""
    return torch.linspace(start, end, steps, dtype=torch.float64)
