"""All captions of a data set, embedded before the first step."""

from typing import Any

import torch

from tdpm_cli.imaging.arrays import conditions_of
from tdpm_cli.run.report import Meter, say
from tdpm_cli.run.signals import Interrupted, Interruption

LOOKED_AT = 10_000  # examples whose captions are read at a time


def embed_captions(condition: Any, data: Any, device: torch.device) -> None:
    """Embed every distinct caption of the data, and tell how many are longer than the condition takes; no captions, no
    work. Raises Interrupted when stopped, with what was embedded kept."""
    if not hasattr(condition, "prepare"):
        return
    texts: set[str] = set()
    for start in range(0, len(data), LOOKED_AT):
        given = conditions_of(data, range(start, min(start + LOOKED_AT, len(data))))
        texts.update(text for captions in condition.captions_of(given) for text in captions)
    with Meter("embed captions", len(texts), unit="captions") as meter, Interruption() as interrupted:
        for count in condition.prepare(sorted(texts), device):
            meter.advance(count)
            if interrupted.number:
                raise Interrupted(interrupted.number, "stopped; what was embedded is kept, the same command continues")
    if cut := condition.cut(sorted(texts)):
        say(f"note: {len(cut):,} of {len(texts):,} captions have more than {condition.tokens} tokens and are cut "
            f"there, such as {cut[0]!r}; condition.tokens takes more")  # fmt: skip
