"""Components that the tests of every kind go through: which are tested by listing their folder, and small options."""

import sys

import torch

from tdpm_cli.config import registry

POINTS, IMAGES = (2,), (3, 16, 12)
SIZES = {"label": 5}
COND = {"label": torch.tensor([0, 4, 2, 2])}
FROM_FILES = {  # tested where their files are written; datasets that read files are recognised by their function
    ("space", "latents"),
    ("condition", "upsampling"),
    ("text_encoder", "clip"),
    ("text_encoder", "t5"),
    ("prior", "torchscript"),
}
FLAT = {"mlp"}  # networks for points; all others are for images
SMALL = {  # options that make a component small, or that it requires
    "unet": {"channels": 8, "mult": [1, 2], "attention": [8], "blocks": 1},
    "resnet": {"channel_base": 64},
    "light-unet": {"channels": [8, 16], "blocks": 1, "embedding": 16},
    "light": {"channels": [8, 8]},
    "stylegan2": {"latent": 8, "layers": 2, "channel_base": 64},
    "denoised": {"t": 90},
    "x0-then-noise": {"latent": 8, "layers": 2, "channel_base": 64},
    "torchscript": {"program": "a hash"},
    "points": {"kind": "mixture"},
    "pixels": {"shape": [1, 8, 8]},
    "labels": {"classes": 5},
    "latents": {"shape": [3, 16, 16], "autoencoder": "a folder"},
    "upsampling": {"low": [1, 8, 8]},
    "text": {"names": ["cat", "dog", "ship", "bird", "tree"], "examples": ["a cat", "a dog"], "tokens": 8},
}
SAME_NAME = {  # components with the name of one of another kind, whose options in SMALL are not theirs
    ("space", "points"),
    ("dataset", "latents"),
    ("features", "torchscript"),
    ("metric", "text"),
}


def shape_for(name):
    """The shape of the examples that a network is tested with."""
    return POINTS if name in FLAT else IMAGES


def listed(kind):
    """The components of a kind that need no files."""
    return [name for name in registry.names(kind) if (kind, name) not in FROM_FILES and not reads_files(kind, name)]


def reads_files(kind, name):
    """Whether a component is a dataset that reads files, which declares `recognises`."""
    return kind == "dataset" and hasattr(sys.modules[registry.load(kind, name).__module__], "recognises")


def perturbed(network, size=0.1):
    """Move the weights away from the zeros that residual branches start from."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return network.eval()
