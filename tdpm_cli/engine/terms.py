"""Loss terms of the training phases. Each function returns a term: a function of a batch -> (mean loss, logs)."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tdpm_cli.engine.batch import Batch
from tdpm_cli.engine.denoiser import antithetic_times
from tdpm_cli.engine.penalties import gradient_penalty
from tdpm_cli.engine.phase import Logs, Penalties, Term
from tdpm_cli.engine.protocols import AdversarialLoss, Cond, Condition, Discriminator, Encoder
from tdpm_cli.engine.tdpm import TDPM


def denoising_term(model: TDPM) -> Term:
    """Denoising loss at t uniform on 1..T, drawn in antithetic pairs (Ho et al. 2020, eq. 14)."""
    schedule = model.denoiser.schedule

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        t = batch.draw(lambda n: antithetic_times(n, schedule.T, batch.generator, batch.x.device))
        cond = model.denoiser.encode_condition(batch.cond)
        loss = model.denoiser.loss(batch.x, t, batch.normal(batch.x.shape[1:]), **cond).mean()
        return loss, {"loss/denoise": loss.detach()}

    return term


def prior_term(model: TDPM, discriminator: Discriminator, adversarial_loss: AdversarialLoss) -> Term:
    """The prior's adversarial loss on its x_T. Leaves x_T in the batch, as the discriminator's fake examples."""

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        cond = _encode_condition(model, batch.cond)
        x_T = model.prior(batch.normal(model.prior.z_shape), **cond).float()
        batch.x_T = x_T.detach()
        fake = discriminator(x_T, **cond).float()
        real = torch.zeros_like(fake)
        if adversarial_loss.prior_uses_real:
            with torch.no_grad():
                real = discriminator(_real_x_T(model, batch), **cond).float()
        loss = adversarial_loss.prior(fake, real).mean()
        return loss, {"loss/prior": loss.detach()}

    return term


def discriminator_term(model: TDPM, discriminator: Discriminator, adversarial_loss: AdversarialLoss) -> Term:
    """The discriminator's adversarial loss: x_T ~ q(x_T | x_0) is real, the prior's x_T of this step is fake."""

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        assert batch.x_T is not None, "the prior's phase comes first"
        x_T, cond = _real_x_T(model, batch), _encode_condition(model, batch.cond)
        real = discriminator(x_T, **cond).float()
        fake = discriminator(batch.x_T, **cond).float()
        loss = adversarial_loss.discriminator(fake, real).mean()
        logs = {"loss/discriminator": loss, "D/real": real.mean(), "D/fake": fake.mean()}
        return loss, {key: log.detach() for key, log in logs.items()}

    return term


def one_pass_term(
    model: TDPM, discriminator: Discriminator, adversarial_loss: AdversarialLoss, penalties: Penalties
) -> Term:
    """Prior, discriminator and gradient penalties from one pass of the discriminator over real and fake x_T.

    The gradients are those of `prior_term`, `discriminator_term` and `penalty_term` together. The prior's is
    d loss / d x_T, carried to its weights by the product with x_T; all other losses see x_T detached.
    """

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        cond, (r1, r2) = _encode_condition(model, batch.cond), penalties(batch.seen)
        real_x_T = _real_x_T(model, batch)
        x_T = model.prior(batch.normal(model.prior.z_shape), **cond).float()
        both = torch.cat([real_x_T, x_T.detach()]).requires_grad_()
        real, fake = logits = _logits_of_both(discriminator, both, cond)
        of_prior = adversarial_loss.prior(fake, real).mean()
        of_discriminator = adversarial_loss.discriminator(fake, real).mean()
        gradient = torch.autograd.grad(of_prior, both, retain_graph=True)[0].chunk(2)[1]
        loss = of_discriminator + (gradient * x_T).sum()
        logs = {
            "loss/prior": of_prior, "loss/discriminator": of_discriminator,
            "D/real": real.mean(), "D/fake": fake.mean(),
        }  # fmt: skip
        if r1 or r2:
            slope = torch.autograd.grad(logits.sum(), both, create_graph=True)[0].square().flatten(1).sum(1)
            of_real, of_fake = slope.chunk(2)
            logs["loss/r1"], logs["loss/r2"] = r1 / 2 * of_real.mean(), r2 / 2 * of_fake.mean()
            loss = loss + logs["loss/r1"] + logs["loss/r2"]
        return loss, {key: log.detach() for key, log in logs.items()}

    return term


def likelihood_term(model: TDPM, encoder: Encoder, start: int, ramp: float) -> Term:
    """The negative evidence lower bound of q(x_T), in nats for each number of x (Kingma and Welling 2014, eq. 10).

    The prior x_T = alpha_T G(z) + sigma_T eps is the Gaussian decoder of a variational auto-encoder of the noisy data:

        alpha_T² / (2 sigma_T²) · ‖x_0 - G(z)‖² + KL(q(z | x_0) ‖ N(0, I)),    z ~ q(z | x_0)

    The weight of the KL divergence rises linearly over the first `ramp` images after `start`.
    """
    schedule = model.denoiser.schedule
    precision = (schedule.alpha(schedule.T) / schedule.sigma(schedule.T)) ** 2

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        cond = _encode_condition(model, batch.cond)
        mean, log_variance = encoder(batch.x, **cond)
        z = mean + (log_variance / 2).exp() * batch.normal(mean.shape[1:])
        x_0 = model.prior.generator(z, **cond).float()
        error = precision / 2 * (x_0 - batch.x).square().flatten(1).sum(1).mean()
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        weight = min((batch.seen - start) / ramp, 1.0) if ramp else 1.0
        loss = (error + weight * kl) / batch.x[0].numel()
        return loss, {"loss/reconstruction": error.detach(), "loss/kl": kl.detach()}

    return term


def mismatch_term(model: TDPM, discriminator: Discriminator, condition: Condition) -> Term:
    """Real x_T with the condition of the neighbouring example, as fake (Reed et al. 2016, algorithm 1).

    So the discriminator attends to conditions. Pairs with equal conditions, and those with the condition "nothing",
    which fits every example, do not count.
    """

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        x_T = _real_x_T(model, batch)
        wrong = {key: value.roll(1, 0) for key, value in batch.cond.items()}
        null = {key: value.to(batch.x.device) for key, value in condition.null(len(batch.x)).items()}
        counts = ~_equal(wrong, batch.cond) & ~_equal(wrong, null)
        fake = discriminator(x_T, **_encode_condition(model, wrong)).float()
        loss = (softplus(fake) * counts).mean()
        return loss, {"loss/mismatch": loss.detach()}

    return term


def penalty_term(model: TDPM, discriminator: Discriminator, penalties: Penalties) -> Term:
    """Gradient penalties: R1 on real x_T and R2 on fake x_T, with `penalties` as their gamma (0 = off)."""

    def term(batch: Batch) -> tuple[Tensor, Logs]:
        r1, r2 = penalties(batch.seen)
        loss, logs, cond = torch.zeros((), device=batch.x.device), Logs(), _encode_condition(model, batch.cond)
        for name, gamma, x in (("r1", r1, _real_x_T(model, batch)), ("r2", r2, batch.x_T)):
            if gamma > 0:
                assert x is not None, "the prior's phase comes first"
                penalty = gradient_penalty(discriminator, x, gamma, **cond).mean()
                loss, logs[f"loss/{name}"] = loss + penalty, penalty.detach()
        return loss, logs

    return term


def _real_x_T(model: TDPM, batch: Batch) -> Tensor:
    """Draw x_T ~ q(x_T | x_0) [B, *shape]."""
    return model.denoiser.schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:]))


@torch.no_grad()
def _encode_condition(model: TDPM, cond: Cond) -> Cond:
    """Encode a condition for an adversarial loss: the text encoder learns from the denoising loss alone."""
    return model.denoiser.encode_condition(cond)


def _logits_of_both(discriminator: Discriminator, both: Tensor, cond: Cond) -> Tensor:
    """Return logits [2, B] of B real and B fake examples, which share the conditions [B].

    It takes one pass, unless a group of examples that the discriminator compares would hold real and fake ones.
    """
    size = len(both) // 2
    if size % discriminator.group:
        return torch.stack([discriminator(part, **cond).float() for part in both.chunk(2)])
    twice = {key: torch.cat([value, value]) for key, value in cond.items()}
    return discriminator(both, **twice).float().view(2, size)


def _equal(first: Cond, second: Cond) -> Tensor:
    """Return which examples have the same condition in both: bool [B]."""
    same = [(value == second[key]).reshape(len(value), -1).all(1) for key, value in first.items()]
    return torch.stack(same).all(0)
