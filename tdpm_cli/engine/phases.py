"""The phases that objectives are built from: each function makes the phases of one network."""

from typing import Any

from torch import nn

from tdpm_cli.config import registry
from tdpm_cli.engine.phase import Penalties, Phase, PhaseSettings, Term
from tdpm_cli.engine.protocols import AdversarialLoss, Components
from tdpm_cli.engine.terms import (
    denoising_term,
    discriminator_term,
    likelihood_term,
    mismatch_term,
    one_pass_term,
    penalty_term,
    prior_term,
)

KL_RAMP = 0.15  # of the stage, over which the weight of the KL divergence rises to 1


def denoiser_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train the denoiser by the denoising loss."""
    denoiser = components.model.denoiser
    optimizer = settings.make_optimizer({"denoiser": denoiser})
    return Phase("denoiser", denoiser, optimizer, [(1.0, denoising_term(components.model))], clip=settings.clip,
                 start=settings.start, stop=settings.stop)  # fmt: skip


def prior_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train a prior with weights of its own by the adversarial loss, from `adversarial.start` images on."""
    model, discriminator = components.model, discriminator_of(components)
    term = prior_term(model, discriminator, adversarial_loss(settings))
    return Phase(
        "prior",
        model.prior,
        settings.make_optimizer({"prior": model.prior}),
        [(1.0, term)],
        clip=settings.clip,
        start=settings.start + settings.adversarial.start,
        stop=settings.stop,
        on_start=lambda: model.prior.start(model.denoiser.network),
    )


def adversarial_phases(components: Components, settings: PhaseSettings) -> list[Phase]:
    """Train a prior with weights of its own, and the discriminator; penalties of every step share their pass."""
    if settings.adversarial.penalty_every == 1:
        return one_pass_phases(components, settings)
    return [prior_phase(components, settings), *discriminator_phases(components, settings)]


def one_pass_phases(components: Components, settings: PhaseSettings) -> list[Phase]:
    """Train prior and discriminator in one phase, by `one_pass_term`."""
    model, discriminator, adversarial = components.model, discriminator_of(components), settings.adversarial
    term = one_pass_term(model, discriminator, adversarial_loss(settings), penalties_of(settings))
    terms = [(1.0, term)]
    if adversarial.mismatch:
        terms += [(adversarial.mismatch, mismatch_term(model, discriminator, components.condition))]
    return [
        Phase(
            "adversarial",
            nn.ModuleList([model.prior, discriminator]),
            settings.make_optimizer({"prior": model.prior, "discriminator": discriminator}),
            terms,
            clip=settings.clip,
            start=settings.start + adversarial.start,
            stop=settings.stop,
            on_start=lambda: model.prior.start(model.denoiser.network),
        )
    ]


def joint_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train denoiser and prior, which share their weights, by the weighted sum of both losses, with one optimizer."""
    model, discriminator = components.model, discriminator_of(components)
    terms = [
        (1.0, denoising_term(model)),
        (settings.adversarial.weight, prior_term(model, discriminator, adversarial_loss(settings))),
    ]
    return Phase("model", model, settings.make_optimizer({"denoiser": model.denoiser}), terms, clip=settings.clip,
                 start=settings.start, stop=settings.stop)  # fmt: skip


def discriminator_phases(components: Components, settings: PhaseSettings) -> list[Phase]:
    """Train the discriminator; lazy penalties have a phase of their own, every `adversarial.penalty_every` steps."""
    model, discriminator, adversarial = components.model, discriminator_of(components), settings.adversarial
    terms: list[tuple[float, Term]] = [(1.0, discriminator_term(model, discriminator, adversarial_loss(settings)))]
    if adversarial.mismatch:
        terms += [(adversarial.mismatch, mismatch_term(model, discriminator, components.condition))]
    penalties, every = adversarial.r1 > 0 or adversarial.r2 > 0, adversarial.penalty_every
    penalty = penalty_term(model, discriminator, penalties_of(settings))
    if penalties and every == 1:
        terms += [(1.0, penalty)]
    optimizer = settings.make_optimizer({"discriminator": discriminator})
    start = settings.start + adversarial.start
    phases = [Phase("discriminator", discriminator, optimizer, terms, start=start, stop=settings.stop)]
    if penalties and every > 1:
        # A penalty every k steps counts k times, which keeps its strength (Karras et al. 2020, appendix B).
        lazy = [(float(every), penalty)]
        phases += [Phase("penalty", discriminator, optimizer, lazy, every=every, start=start, stop=settings.stop)]
    return phases


def likelihood_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train the prior's generator and the encoder by the evidence lower bound."""
    model, encoder = components.model, components.encoder
    assert encoder is not None, "the likelihood needs an encoder"
    module = nn.ModuleList([model.prior.generator, encoder])
    ramp = KL_RAMP * (settings.stop - settings.start) if settings.stop is not None else 0
    term = likelihood_term(model, encoder, settings.start, ramp)
    return Phase("likelihood", module, settings.make_optimizer({"prior": module}), [(1.0, term)], clip=settings.clip,
                 start=settings.start, stop=settings.stop)  # fmt: skip


def penalties_of(settings: PhaseSettings) -> Penalties:
    """Return gamma of R1 and R2 by the images seen; it falls by the factor `adversarial.penalty_decay` over a stage."""
    adversarial, start, stop = settings.adversarial, settings.start, settings.stop

    def penalties(seen: int) -> tuple[float, float]:
        share = (seen - start) / (stop - start) if stop is not None else 0.0
        factor = adversarial.penalty_decay**-share
        return adversarial.r1 * factor, adversarial.r2 * factor

    return penalties


def adversarial_loss(settings: PhaseSettings) -> AdversarialLoss:
    """Return the loss that `adversarial.loss` names. Raises InputError for an unknown name."""
    loss: AdversarialLoss = registry.load("loss", settings.adversarial.loss, "adversarial.loss")()
    return loss


def discriminator_of(components: Components) -> Any:
    """Return the discriminator: a `Discriminator` and an `nn.Module`, for which Python has no common type."""
    assert components.discriminator is not None, "an adversarial loss needs a discriminator"
    return components.discriminator
