"""Denoiser and prior together: the default. Zheng et al. 2023."""

from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.phases import adversarial_phases, denoiser_phase, discriminator_phases, joint_phase
from tdpm_cli.engine.protocols import Components

__all__ = ["TDPMObjective"]

ALIASES = ("all",)  # of 0.1.0


class TDPMObjective:
    """The denoiser learns from the denoising loss, the prior from the adversarial loss, in every step.

    A prior that shares the denoiser's weights learns in the denoiser's phase. Without a discriminator, or with a prior
    that has nothing to learn, only the denoiser is trained.
    """

    needs_discriminator = True
    needs_encoder = False
    needs_own_prior = False

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        """Return the phases of a step: denoiser, prior, discriminator, penalty."""
        prior = components.model.prior
        if components.discriminator is None or not prior.learns:
            return [denoiser_phase(components, settings)]
        if prior.shares:
            return [joint_phase(components, settings), *discriminator_phases(components, settings)]
        return [denoiser_phase(components, settings), *adversarial_phases(components, settings)]
