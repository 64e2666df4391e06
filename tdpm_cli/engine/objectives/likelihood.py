"""The prior by likelihood, as the decoder of a VAE of q(x_T): fast, and keeps all modes. Kingma and Welling 2014."""

from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.phases import likelihood_phase
from tdpm_cli.engine.protocols import Components

__all__ = ["LikelihoodObjective"]


class LikelihoodObjective:
    """The prior's generator and the encoder learn from the evidence lower bound; the denoiser keeps its weights."""

    needs_discriminator = False
    needs_encoder = True
    needs_own_prior = True

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        """Return the phase of generator and encoder."""
        return [likelihood_phase(components, settings)]
