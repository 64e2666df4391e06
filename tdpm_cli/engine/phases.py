"""The phases that objectives are built from: each function makes the phases of one network."""

from tdpm_cli.config import registry
from tdpm_cli.engine.phase import Phase, PhaseSettings, Term
from tdpm_cli.engine.protocols import AdversarialLoss, Components
from tdpm_cli.engine.terms import denoising_term, discriminator_term, mismatch_term, penalty_term, prior_term


def denoiser_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train the denoiser by the denoising loss."""
    denoiser = components.model.denoiser
    optimizer = settings.make_optimizer("denoiser", denoiser)
    return Phase("denoiser", denoiser, optimizer, [(1.0, denoising_term(components.model))], clip=settings.clip)


def prior_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train a prior with weights of its own by the adversarial loss, from `adversarial.start` images on."""
    model, discriminator = components.model, components.discriminator
    assert discriminator is not None, "an adversarial loss needs a discriminator"
    term = prior_term(model, discriminator, adversarial_loss(settings))
    return Phase(
        "prior", model.prior, settings.make_optimizer("prior", model.prior), [(1.0, term)], clip=settings.clip,
        start=settings.adversarial.start, on_start=lambda: model.prior.start(model.denoiser.network),
    )  # fmt: skip


def joint_phase(components: Components, settings: PhaseSettings) -> Phase:
    """Train denoiser and prior, which share their weights, by the weighted sum of both losses, with one optimizer."""
    model, discriminator = components.model, components.discriminator
    assert discriminator is not None, "an adversarial loss needs a discriminator"
    terms = [
        (1.0, denoising_term(model)),
        (settings.adversarial.weight, prior_term(model, discriminator, adversarial_loss(settings))),
    ]
    return Phase("model", model, settings.make_optimizer("denoiser", model.denoiser), terms, clip=settings.clip)


def discriminator_phases(components: Components, settings: PhaseSettings) -> list[Phase]:
    """Train the discriminator; lazy penalties have a phase of their own, every `adversarial.penalty_every` steps."""
    model, discriminator, adversarial = components.model, components.discriminator, settings.adversarial
    assert discriminator is not None, "an adversarial loss needs a discriminator"
    terms: list[tuple[float, Term]] = [(1.0, discriminator_term(model, discriminator, adversarial_loss(settings)))]
    if adversarial.mismatch:
        terms += [(adversarial.mismatch, mismatch_term(model, discriminator, components.condition))]
    penalties, every = adversarial.r1 > 0 or adversarial.r2 > 0, adversarial.penalty_every
    penalty = penalty_term(model, discriminator, adversarial.r1, adversarial.r2)
    if penalties and every == 1:
        terms += [(1.0, penalty)]
    optimizer = settings.make_optimizer("discriminator", discriminator)
    phases = [Phase("discriminator", discriminator, optimizer, terms, start=adversarial.start)]
    if penalties and every > 1:
        # A penalty every k steps counts k times, which keeps its strength (Karras et al. 2020, appendix B).
        lazy = [(float(every), penalty)]
        phases += [Phase("penalty", discriminator, optimizer, lazy, every=every, start=adversarial.start)]
    return phases


def adversarial_loss(settings: PhaseSettings) -> AdversarialLoss:
    """Return the loss that `adversarial.loss` names. Raises InputError for an unknown name."""
    loss: AdversarialLoss = registry.load("loss", settings.adversarial.loss, "adversarial.loss")()
    return loss
