"""Mean and covariance of features that come in batches, in float64."""

import torch
from torch import Tensor


class Moments:
    """Mean and covariance of features, updated batch by batch; memory does not grow with the number of features.

    Each batch is merged about the common mean, which avoids cancellation (Chan et al. 1983, eq. 2.1).
    """

    def __init__(self) -> None:
        self.count, self._mean, self._scatter = 0, torch.zeros(0), torch.zeros(0, 0)

    def update(self, features: Tensor) -> None:
        """Add features [B, D]. Raises ValueError if one is infinite or NaN."""
        x = features.double()
        if not bool(x.isfinite().all()):
            raise ValueError(f"{int((~x.isfinite().all(1)).sum())} of {len(x)} features are infinite or NaN")
        mean = x.mean(0)
        centred = x - mean
        scatter = centred.T @ centred
        if self.count:
            shift, total = mean - self._mean, self.count + len(x)
            scatter += self._scatter + torch.outer(shift, shift) * (self.count * len(x) / total)
            mean = self._mean + shift * (len(x) / total)
        self.count, self._mean, self._scatter = self.count + len(x), mean, scatter

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and unbiased covariance [D, D] of two or more features."""
        return self._mean, self._scatter / (self.count - 1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D, D] of features [N, D], N ≥ 2, in float64."""
    running = Moments()
    running.update(features)
    return running.result()
