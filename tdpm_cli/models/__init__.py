"""Networks: backbones, priors, discriminators and their layers."""
