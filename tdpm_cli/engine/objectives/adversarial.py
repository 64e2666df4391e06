"""The prior alone, for a trained denoiser, such as one of another project: few steps from pretrained weights."""

from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.phases import adversarial_phases
from tdpm_cli.engine.protocols import Components

__all__ = ["AdversarialObjective"]

ALIASES = ("prior",)


class AdversarialObjective:
    """The prior learns from the adversarial loss; the denoiser keeps its weights."""

    needs_discriminator = True
    needs_encoder = False
    needs_own_prior = True  # one with weights of its own that learn

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        """Return the phases of a step: prior and discriminator together, or one after the other with lazy penalties."""
        return adversarial_phases(components, settings)
