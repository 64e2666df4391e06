import pytest
import torch
from torch import nn

from tdpm_cli.config import load_config
from tdpm_cli.config.registry import load
from tdpm_cli.config.settings import AdversarialSettings
from tdpm_cli.engine.batch import Batch, drop_conditions
from tdpm_cli.engine.objectives.adversarial import AdversarialObjective
from tdpm_cli.engine.objectives.tdpm import TDPMObjective
from tdpm_cli.engine.penalties import gradient_penalty
from tdpm_cli.engine.phase import Phase, PhaseSettings, train_step
from tdpm_cli.engine.phases import penalties_of
from tdpm_cli.engine.terms import mismatch_term, one_pass_term, penalty_term
from tdpm_cli.sampling.build import build


def phases_of(plain, adversarial=None, objective=TDPMObjective):
    components = build(load_config(plain))
    optimizers = {}

    def make_optimizer(networks):
        name = "-".join(networks)
        optimizers[name] = torch.optim.SGD(nn.ModuleDict(networks).parameters(), 0.1, fused=True)
        return optimizers[name]

    settings = PhaseSettings(adversarial or AdversarialSettings(), make_optimizer)
    return components, objective().phases(components, settings), optimizers


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(n, 2, generator=generator), {}, generator)


def snapshot(module):
    return [p.detach().clone() for p in module.parameters()]


def changed(module, before):
    return any(not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


def test_micro_batches_give_the_gradient_of_the_batch(generator):
    x = torch.randn(12, 2, generator=generator)
    gradients, logs = [], []
    for size in (12, 4, 5):
        layer = nn.Linear(2, 1)
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)

        def loss(batch, layer=layer):
            value = layer(batch.x).square().mean()
            return value, {"loss": value.detach()}

        phase = Phase("x", layer, torch.optim.SGD(layer.parameters(), 0.0, fused=True), [(1.0, loss)])
        logs.append(train_step([phase], Batch(x, {}, generator).split(size), 0, 0))
        gradients.append(layer.weight.grad.clone())
    assert all(torch.allclose(gradient, gradients[0], atol=1e-6) for gradient in gradients)
    assert all(torch.allclose(log["loss"], logs[0]["loss"]) for log in logs)


def test_the_lists(tiny):
    names = lambda *assignments, adversarial=None: [p.name for p in phases_of(tiny(*assignments), adversarial)[1]]
    assert names() == ["model", "discriminator", "penalty"]
    assert names("prior.name=copy") == ["denoiser", "prior", "discriminator", "penalty"]
    assert names("prior.name=gaussian") == ["denoiser"]
    assert names(adversarial=AdversarialSettings(penalty_every=1)) == ["model", "discriminator"]
    assert names(adversarial=AdversarialSettings(r1=0.0)) == ["model", "discriminator"]


def test_the_adversarial_objective_trains_prior_and_discriminator_alone(tiny):
    components, phases, optimizers = phases_of(tiny("prior.name=copy"), objective=AdversarialObjective)
    assert [phase.name for phase in phases] == ["prior", "discriminator", "penalty"]
    assert set(optimizers) == {"prior", "discriminator"}
    before = snapshot(components.model.denoiser)
    prior = snapshot(components.model.prior)
    train_step(phases, [batch()], 0, 0)
    assert not changed(components.model.denoiser, before)
    assert changed(components.model.prior, prior)
    assert all(parameter.grad is None for parameter in components.model.denoiser.parameters())


def test_each_phase_moves_its_own_module_and_computes_no_other_gradient(tiny):
    components, phases, _ = phases_of(tiny("prior.name=copy"))
    shared = batch()
    modules = {
        "denoiser": components.model.denoiser,
        "prior": components.model.prior,
        "discriminator": components.discriminator,
    }
    for phase in phases:
        own = "discriminator" if phase.name == "penalty" else phase.name
        before = {name: snapshot(module) for name, module in modules.items()}
        for module in modules.values():
            module.zero_grad(set_to_none=True)
        train_step([*phases_without(phases, phase), phase], [shared], 0, 0)
        for name, module in modules.items():
            assert changed(module, before[name]) == (name == own), (phase.name, name)
            if name != own:
                assert all(p.grad is None for p in module.parameters())


def phases_without(phases, kept):
    """The other phases, never due: they only take part in switching gradients off."""
    return [Phase(p.name, p.module, p.optimizer, p.terms, start=10**9) for p in phases if p is not kept]


def test_a_shared_prior_learns_from_both_losses_with_one_optimizer(tiny):
    components, phases, optimizers = phases_of(tiny())
    assert set(optimizers) == {"denoiser", "discriminator"}
    network = components.model.denoiser.network
    assert components.model.prior.network is network
    grads = {}
    for weight in (0.0, 1.0):
        components, phases, _ = phases_of(tiny(), AdversarialSettings(weight=weight))
        logs = train_step(phases[:1], [batch()], 0, 0)
        assert {"loss/denoise", "loss/prior"} <= logs.keys()
        grads[weight] = [p.grad.clone() for p in components.model.parameters()]
    assert any(not torch.allclose(a, b) for a, b in zip(grads[0.0], grads[1.0], strict=True))


def test_lazy_penalties_keep_their_strength(tiny):
    components, phases, _ = phases_of(tiny(), AdversarialSettings(r1=3.0, penalty_every=4))
    penalty = phases[-1]
    assert penalty.every == 4
    data = batch()
    data.generator.manual_seed(7)
    ((weight, lazy),) = penalty.terms
    value, logs = lazy(data)
    data.generator.manual_seed(7)
    plain, _ = penalty_term(components.model, components.discriminator, lambda seen: (3.0, 0.0))(data)
    assert weight * value.item() == pytest.approx(4 * plain.item())
    assert logs["loss/r1"].item() == pytest.approx(plain.item())
    due = [step for step in range(9) if "gradient/penalty" in train_step(phases, [batch()], step, 0)]
    assert due == [0, 4, 8]


def test_r2_is_the_penalty_on_the_fake(tiny):
    components, _, _ = phases_of(tiny())
    data = batch()
    data.x_T = torch.zeros(8, 2)
    components.discriminator.label = None
    _, logs = penalty_term(components.model, components.discriminator, lambda seen: (0.0, 2.0))(data)
    x = torch.zeros(8, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(components.discriminator(x).sum(), x)
    assert float(logs["loss/r2"]) == pytest.approx(float(gradient.square().sum(1).mean()), rel=1e-5)


def test_a_copy_starts_from_the_denoisers_weights_when_adversarial_training_starts(tiny):
    components, phases, _ = phases_of(tiny("prior.name=copy"), AdversarialSettings(start=16))
    network, prior = components.model.denoiser.network, components.model.prior.network
    logs = train_step(phases, [batch()], 0, 0)
    assert "loss/prior" not in logs
    train_step(phases, [batch()], 1, 8)
    phases[1].optimizer.param_groups[0]["lr"] = 0.0
    before = snapshot(network)
    phases[0].optimizer.param_groups[0]["lr"] = 0.0
    logs = train_step(phases, [batch()], 2, 16)
    assert "loss/prior" in logs
    assert not changed(prior, before)
    with torch.no_grad():
        next(prior.parameters()).add_(1)
    train_step(phases, [batch()], 3, 24)
    assert changed(prior, before)  # started once only


def test_clipping_bounds_the_step():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    phase = Phase(
        "p",
        layer,
        torch.optim.SGD(layer.parameters(), 1.0, fused=True),
        [(1.0, lambda b: ((layer.weight * 100).sum(), {}))],
        clip=0.5,
    )
    logs = train_step([phase], [batch()], 0, 0)
    assert layer.weight.item() == pytest.approx(-0.5)
    assert float(logs["gradient/p"]) == pytest.approx(100)


def test_terms_add_up_and_each_logs_its_own_value():
    layer = nn.Linear(1, 1, bias=False)
    term = lambda value: lambda b: (value * layer.weight.sum(), {f"loss/{value}": torch.tensor(value)})
    phase = Phase(
        "p", layer, torch.optim.SGD(layer.parameters(), 0.0, fused=True), [(2.0, term(3.0)), (0.5, term(4.0))]
    )
    logs = train_step([phase], [batch()], 0, 0)
    assert float(layer.weight.grad) == 8
    assert {key: float(value) for key, value in logs.items() if key[:4] == "loss"} == {"loss/3.0": 3, "loss/4.0": 4}


def test_a_step_draws_the_same_numbers_however_its_batch_is_divided(tiny_images):
    plain = tiny_images("condition.name=labels", "condition.classes=10", "condition.dropout=0.5", "prior.name=copy")
    weights = []
    for size in (16, 8, 4):  # the discriminator compares groups of 4
        components, phases, _ = phases_of(plain)
        x, label = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 10
        batch = Batch(x, {"label": label}, torch.Generator().manual_seed(2))
        train_step(phases, batch.split(size), 0, 0)
        weights.append(snapshot(components.model) + snapshot(components.discriminator))
    for divided in weights[1:]:
        for ours, theirs in zip(divided, weights[0], strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_dropping_conditions_leaves_the_stated_share():
    labels = load("condition", "labels")(classes=10, dropout=0.25)
    generator = torch.Generator().manual_seed(0)
    cond = {"label": torch.arange(20_000) % 10}
    of = Batch(torch.zeros(20_000, 1), cond, generator)
    dropped = drop_conditions(of, labels).cond["label"]
    assert float((dropped == 10).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(dropped[dropped != 10], cond["label"][dropped != 10])
    assert drop_conditions(of, load("condition", "labels")(classes=10, dropout=0.0)) is of


def test_a_shared_prior_learns_data_at_a_single_point(tiny):
    # All data are one point: after some steps the shared prior's x_T has moved there.
    plain = tiny("train.denoiser_lr=1e-3")
    components = build(load_config(plain))
    adam = lambda networks: torch.optim.Adam(nn.ModuleDict(networks).parameters(), 2e-3, betas=(0.0, 0.99), fused=True)
    phases = TDPMObjective().phases(components, PhaseSettings(AdversarialSettings(penalty_every=4), adam))
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([2.0, -1.0])
    schedule = components.model.denoiser.schedule
    for step in range(600):
        train_step(phases, [Batch(target.expand(64, 2), {}, generator)], step, step * 64)
    x_T = components.model.prior(torch.randn(2000, 2, generator=generator)).detach()
    distance = (x_T.mean(0) - schedule.alpha(schedule.T) * target).norm()  # it begins near 2
    assert float(distance) < 0.5


def test_real_examples_with_the_condition_of_another_are_fakes(tiny):
    components = build(load_config(tiny()))
    label = torch.tensor([1, 1, 4, 4, 2, 10])
    labels = load("condition", "labels")(classes=10)  # 10 is "nothing", which fits every example
    conditions = []

    def critic(x, label):
        conditions.append(label.tolist())
        return label.float()

    generator = torch.Generator().manual_seed(0)
    value, logs = mismatch_term(components.model, critic, labels)(Batch(torch.randn(6, 2), {"label": label}, generator))
    assert conditions == [[10, 1, 1, 4, 4, 2]]
    other = torch.tensor([1.0, 4.0, 2.0])  # where it is another's: the third and the last two
    assert value == pytest.approx(float(torch.nn.functional.softplus(other).sum() / 6))
    assert logs["loss/mismatch"] == value


def test_mismatch_is_a_term_of_the_discriminator(tiny_images):
    labels = ["condition.name=labels", "condition.classes=10"]
    _, phases, _ = phases_of(tiny_images(*labels), AdversarialSettings(mismatch=0.5))
    (phase,) = [phase for phase in phases if phase.name == "discriminator"]
    assert [weight for weight, _ in phase.terms] == [1.0, 0.5]


@pytest.mark.parametrize("size", [8, 6])  # 6: groups of 4 examples would hold real and fake ones
@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
@pytest.mark.parametrize("classes", [[], ["condition.name=labels", "condition.classes=10"]])
def test_one_pass_gives_the_gradients_of_separate_passes(tiny_images, size, loss, classes):
    light = {"prior": {"name": "light", "channels": [8]}, "discriminator": {"name": "light", "channels": [8, 8]}}
    components = build(load_config({**tiny_images(*classes), **light}))
    model, discriminator, losses = components.model, components.discriminator, load("loss", loss)()
    cond = {"label": torch.arange(size)} if classes else {}
    data = Batch(torch.randn(size, 1, 8, 8), cond, torch.Generator().manual_seed(1))
    parameters = [*model.prior.parameters(), *discriminator.parameters()]

    term = one_pass_term(model, discriminator, losses, lambda seen: (0.7, 0.3))
    value, logs = term(data)
    value.backward()
    together = [parameter.grad.clone() for parameter in parameters]

    data.generator.manual_seed(1)
    real = model.denoiser.schedule.q_sample_T(data.x, data.normal(data.x.shape[1:]))
    fake = model.prior(data.normal(model.prior.z_shape), **cond)
    of_prior = losses.prior(discriminator(fake, **cond), discriminator(real, **cond)).mean()
    of_discriminator = losses.discriminator(discriminator(fake.detach(), **cond), discriminator(real, **cond)).mean()
    r1 = gradient_penalty(discriminator, real, 0.7, **cond).mean()
    r2 = gradient_penalty(discriminator, fake, 0.3, **cond).mean()
    apart = [
        *torch.autograd.grad(of_prior, list(model.prior.parameters())),
        *torch.autograd.grad(of_discriminator + r1 + r2, list(discriminator.parameters())),
    ]
    count = len(list(model.prior.parameters()))
    for network in (slice(count), slice(count, None)):
        one, other = (torch.cat([g.flatten() for g in gradients[network]]) for gradients in (together, apart))
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    expected = {"loss/prior": of_prior, "loss/discriminator": of_discriminator, "loss/r1": r1, "loss/r2": r2}
    assert {key: logs[key].item() for key in expected} == pytest.approx({k: v.item() for k, v in expected.items()})


def test_penalties_of_every_step_share_a_pass(tiny):
    own = "prior.name=copy"
    components, (denoiser, adversarial), optimizers = phases_of(tiny(own), AdversarialSettings(penalty_every=1))
    assert [denoiser.name, adversarial.name] == ["denoiser", "adversarial"]
    assert set(optimizers) == {"denoiser", "prior-discriminator"}
    networks = components.model.prior, components.discriminator
    before = [snapshot(network) for network in networks]
    train_step([adversarial], [batch()], 0, 0)
    assert all(changed(network, old) for network, old in zip(networks, before, strict=True))


def test_penalties_fall_during_a_stage(tiny):
    adversarial = AdversarialSettings(r1=1.0, r2=0.5, penalty_decay=10.0)
    settings = PhaseSettings(adversarial, lambda networks: None, start=1000, stop=3000)
    penalties = penalties_of(settings)
    assert penalties(1000) == (1.0, 0.5)
    assert penalties(3000) == pytest.approx((0.1, 0.05))
    assert penalties(2000) == pytest.approx((10**-0.5, 0.5 * 10**-0.5))
