"""Relativistic pairing loss: fewer lost modes. Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2."""

from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Relativistic"]


class Relativistic:
    """-log sigmoid of the difference between the logits of a fake and of a real example."""

    prior_uses_real = True

    def prior(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the prior's loss [B] from the discriminator's logits on fake and real examples [B]."""
        return softplus(real - fake)

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the discriminator's loss [B] from its logits on fake and real examples [B]."""
        return softplus(fake - real)
