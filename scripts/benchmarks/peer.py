"""The reference of the training benchmark: the paper's order of passes, in plain fp32 PyTorch.

Our own code, in the order of passes of the paper's published code: three updates in turn, with nine passes of
the U-Net (a backward pass counts as two) where six suffice. Its U-Net is diffusers' with the same layers and number of
parameters; its discriminator is ours. As in the paper's code, the U-Net has two optimizers, averages are updated
parameter by parameter, and losses are read after every step.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from tdpm_cli.sampling.build import Components

PENALTY_EVERY = 16


def unet(shape: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    """Build diffusers' U-Net with the layers of ours."""
    from diffusers import UNet2DModel

    channels, mult = options["channels"], options["mult"]
    attends = [shape[1] >> level in options["attention"] for level in range(len(mult))]
    return UNet2DModel(
        sample_size=shape[1], in_channels=shape[0], out_channels=shape[0], layers_per_block=options["blocks"],
        block_out_channels=[channels * factor for factor in mult], dropout=options["dropout"], norm_eps=1e-6,
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        attention_head_dim=None,
    )  # fmt: skip


class Peer:
    """The reference's training step, on a U-Net and discriminator like those of `components`."""

    def __init__(self, components: Components, device: torch.device) -> None:
        config = components.config
        self.schedule, self.device = components.model.denoiser.schedule, device
        self.net = unet(components.space.shape, config.backbone.options).to(device)
        ours, theirs = (sum(p.numel() for p in net.parameters()) for net in (components.model, self.net))
        assert ours == theirs, f"the U-Nets differ: {ours} and {theirs} parameters"
        self.critic = copy.deepcopy(components.discriminator)
        assert self.critic is not None
        self.gamma, self.clip, train = config.adversarial.r1, config.train.clip, config.train
        self.of_denoiser = torch.optim.Adam(self.net.parameters(), train.denoiser_lr)
        self.of_prior = torch.optim.Adam(self.net.parameters(), train.prior_lr, (0.0, 0.99))
        self.of_critic = torch.optim.Adam(self.critic.parameters(), train.discriminator_lr, (0.0, 0.99))
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}

    def step(self, x_0: Tensor, penalise: bool) -> None:
        """Update denoiser, prior and discriminator on x_0 [B, *shape]."""
        T, n = self.schedule.T, len(x_0)
        half = torch.randint(1, T + 1, (n // 2 + 1,), device=self.device)
        t = torch.cat([half, T + 1 - half])[:n]
        noise = torch.randn_like(x_0)
        alpha, sigma = self.schedule.coefficients(t, x_0)
        loss = (noise - self.net(alpha * x_0 + sigma * noise, t).sample).square().sum((1, 2, 3)).mean()
        self.of_denoiser.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.of_denoiser.step()
        for name, parameter in self.net.named_parameters():
            self.average[name].data = 0.9999 * self.average[name].data + 0.0001 * parameter.data

        prior_loss = softplus(
            -self.critic(self._fake(x_0))
        ).mean()  # computes gradients of the critic that are not used
        self.of_prior.zero_grad()
        prior_loss.backward()
        self.of_prior.step()

        x_T = self.schedule.q_sample_T(x_0, torch.randn_like(x_0)).requires_grad_(penalise)
        fake = self._fake(x_0)  # recomputed and not detached: another backward pass of the U-Net
        real_logits = self.critic(x_T)
        total = softplus(-real_logits).mean() + softplus(self.critic(fake)).mean()
        if penalise:
            (gradient,) = torch.autograd.grad(real_logits.sum(), x_T, create_graph=True)
            total = total + self.gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        self.of_critic.zero_grad()
        total.backward()
        self.of_critic.step()
        loss.item(), prior_loss.item(), total.item()

    def _fake(self, x_0: Tensor) -> Tensor:
        t = torch.full((len(x_0),), self.schedule.T + 1, device=self.device)
        x_T: Tensor = self.net(torch.randn_like(x_0), t).sample
        return x_T
