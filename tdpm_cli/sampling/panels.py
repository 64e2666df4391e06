"""The grid of a training run: data, data at T, the prior's x_T, and samples."""

from dataclasses import replace

import torch
from PIL import Image

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Examples, pieces_of
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.sampling.build import Components
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.settings import device_of

IMAGES, POINTS = 64, 4096  # examples in a panel, at most; a quarter of the images where they exceed SMALL pixels
SMALL = 64


@torch.inference_mode()
def draw_panels(components: Components, model: TDPM, data: Examples) -> dict[str, Image.Image]:
    """Return the image of each panel by its title. `model` holds the averaged weights; the seeds are fixed."""
    config, space, T = components.config, components.space, model.denoiser.schedule.T
    components = replace(components, model=model)
    settings = config.sample.model_copy(update={"precision": config.train.precision})
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    training, _ = model.training, model.eval()
    rows = []
    for batch in pieces_of(min(panel_size(space.shape), len(data)), settings.batch):
        raw, raw_condition = data[order[batch.start : batch.stop]]
        x_0 = space.encode(raw.to(device_of(model)))
        noise = Noise(0, batch, x_0.device)  # of the data first, then of the prior and the sampler
        noised = model.denoiser.schedule.q_sample_T(x_0, noise.normal(space.shape))
        conditions: RawCondition = {**raw_condition, "raw": raw}
        sampled = sample_batch(components, settings, BatchInput(0, batch, raw_condition=conditions, noise=noise))
        rows.append([space.decode(x_0), space.decode(noised), space.decode(sampled.x_T), sampled.raw])
    model.train(training)
    titles = ("data", f"data at T = {T}", "prior", "samples")
    columns = [torch.cat([raw.cpu() for raw in column]) for column in zip(*rows, strict=True)]
    return {title: space.to_image(raw) for title, raw in zip(titles, columns, strict=True)}


def panel_size(shape: tuple[int, ...]) -> int:
    """Return how many examples of this shape one panel shows."""
    if len(shape) != 3:
        return POINTS
    return IMAGES if max(shape) <= SMALL else IMAGES // 4
