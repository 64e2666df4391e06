"""All captions of a data set, embedded before the first step."""

from collections.abc import Sequence
from typing import Any

import torch

from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import Meter, say
from tdpm_cli.runtime.signals import Interrupted, Interruption

LOOKED_AT = 10_000  # examples whose captions are read at a time


def embed_captions(condition: Any, data: Any, device: torch.device) -> None:
    """Embed every distinct caption of the data, and tell how many are longer than the condition takes; no captions, no
    work. The processes of a machine share the work, and then find each other's in the cache. Raises Interrupted when
    stopped, with what was embedded kept."""
    if not hasattr(condition, "prepare"):
        return
    texts: set[str] = set()
    for start in range(0, len(data), LOOKED_AT):
        given = data.raw_condition(range(start, min(start + LOOKED_AT, len(data))))
        texts.update(text for captions in condition.captions_of(given) for text in captions)
    ordered = sorted(texts)
    _embed(condition, distributed.own_here(ordered), device)
    distributed.wait()
    if distributed.size() > 1:
        _embed(condition, ordered, device)  # finds all in the cache, unless that cannot be written
    if cut := condition.cut(ordered):
        say(f"note: {len(cut):,} of {len(texts):,} captions have more than {condition.tokens} tokens and are cut "
            f"there, such as {cut[0]!r}; condition.tokens takes more")  # fmt: skip


def _embed(condition: Any, texts: Sequence[str], device: torch.device) -> None:
    with Meter("embed captions", len(texts), unit="captions") as meter, Interruption() as interrupted:
        for count in condition.prepare(texts, device):
            meter.advance(count)
            if interrupted.number:
                raise Interrupted(interrupted.number, "stopped; what was embedded is kept, the same command continues")
