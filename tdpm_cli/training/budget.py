"""Fit a run into a time: measure the speed of each stage, and scale their lengths in images by one factor."""

from collections.abc import Sequence

from tdpm_cli.config.schema import Config
from tdpm_cli.runtime.errors import InputError


def lengths_within(seconds: float, lengths: Sequence[int], speeds: Sequence[float], batch: int) -> list[int]:
    """Return lengths in images, whole batches, that together take `seconds` and keep the proportions of `lengths`.

    `speeds` are images a second. Raises InputError if a stage would be shorter than one batch.
    """
    factor = seconds / sum(length / speed for length, speed in zip(lengths, speeds, strict=True))
    scaled = [batch * round(factor * length / batch) for length in lengths]
    if min(scaled) < batch:
        number = scaled.index(min(scaled))
        needed = seconds * batch / (factor * lengths[number])
        raise InputError(
            f"--budget {seconds:g} s is too short: stage {number + 1} would have less than one batch of {batch} "
            f"images; give at least {needed:.0f} s"
        )
    return scaled


def with_budget(config: Config, seconds: float, speeds: Sequence[float]) -> Config:
    """Return the config with its stages scaled to `seconds`, by the measured `speeds` of its stages."""
    settings = config.train
    stages = settings.stages_in_order
    lengths = lengths_within(seconds, [stage.duration for stage in stages], speeds, settings.batch)
    return with_lengths(config, lengths)


def with_lengths(config: Config, lengths: Sequence[int]) -> Config:
    """Return the config with these lengths of its stages in images; `adversarial.start` keeps its share."""
    settings, total = config.train, sum(lengths)
    if len(lengths) != len(settings.stages_in_order):
        return config  # another preset's run, which is rejected when it is continued
    stages = [
        stage.model_copy(update={"duration": length}) for stage, length in zip(settings.stages, lengths, strict=False)
    ]
    start = round(config.adversarial.start * total / settings.duration)
    return config.replace("train", duration=total, stages=stages).replace("adversarial", start=start)
