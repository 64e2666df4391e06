"""Non-saturating logistic loss: the default. Goodfellow et al. 2014, sec. 3."""

from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Logistic"]


class Logistic:
    """-log sigmoid(D) for what should pass as real, -log(1 - sigmoid(D)) for what should not."""

    prior_uses_real = False

    def prior(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the prior's loss [B] from the discriminator's logits on fake examples [B]."""
        return softplus(-fake)

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the discriminator's loss [B] from its logits on fake and real examples [B]."""
        return softplus(fake) + softplus(-real)
