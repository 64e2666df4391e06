"""The denoiser alone: a stage of a truncated model, or a plain diffusion model. Ho et al. 2020."""

from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.phases import denoiser_phase
from tdpm_cli.engine.protocols import Components

__all__ = ["DenoiseObjective"]


class DenoiseObjective:
    """The denoiser learns from the denoising loss; the prior keeps its weights."""

    needs_discriminator = False
    needs_encoder = False
    needs_own_prior = False

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        """Return the phase of the denoiser."""
        return [denoiser_phase(components, settings)]
