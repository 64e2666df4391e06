"""The numbers of training steps: read late, averaged for the log, and judged."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SATURATED = 0.05  # the discriminator's loss below which the prior learns next to nothing
COLLAPSED = 0.1  # the spread of the prior's x_T, as a share of the data's, below which its examples are alike
LINES, SHARE = 10, 0.02  # of the log, and of the duration, that trouble must last before it is told


@dataclass(frozen=True)
class Step:
    """What one step computed, after `seen` images in all."""

    seen: int
    values: Mapping[str, float]

    @property
    def bad(self) -> list[str]:
        """The numbers that are not finite."""
        return [key for key, value in self.values.items() if not math.isfinite(value)]


class Figures:
    """Logs of steps, each read when the next one is under way, so that an accelerator never waits for them.

    `skipped` counts the updates of each phase that were left out, and `bad` holds the latest steps that were not
    sound, in a row.
    """

    def __init__(self, skipped: Mapping[str, int]) -> None:
        self.skipped, self.bad = Counter(skipped), list[Step]()
        self._late: tuple[int, Sequence[str], Tensor, torch.cuda.Event | None] | None = None
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, seen: int, logs: Mapping[str, Tensor]) -> None:
        """Take the logs of the step that ended at `seen`, and read those of the one before."""
        self.read()
        values = torch.stack([value.float() for value in logs.values()])
        done = None
        if values.is_cuda:
            values = torch.empty(len(values), pin_memory=True).copy_(values, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._late = seen, list(logs), values, done

    def read(self) -> None:
        """Read what is still to be read."""
        if self._late is None:
            return
        seen, keys, values, done = self._late
        self._late = None
        if done is not None:
            done.synchronize()
        step = Step(seen, dict(zip(keys, values.tolist(), strict=True)))
        self.bad = [*self.bad, step] if step.bad else []
        for key, value in step.values.items():
            kind, _, name = key.partition("/")
            if kind == "skipped":
                self.skipped[name] += int(value)
            elif math.isfinite(value):
                self._values[key].append(value)

    def means(self) -> dict[str, float]:
        """The mean of every number since the last call, of its finite values; and all `skipped` there have been."""
        self.read()
        means = {key: math.fsum(values) / len(values) for key, values in self._values.items()}
        self._values.clear()
        return means | {f"skipped/{name}": float(count) for name, count in self.skipped.items() if count}


@dataclass
class Balance:
    """Whether prior and discriminator still teach each other something, from line to line of the log."""

    duration: int
    _since: dict[str, int] = field(default_factory=dict)  # trouble: images seen before it
    _lines: Counter[str] = field(default_factory=Counter)  # and the lines that it has lasted
    _told: set[str] = field(default_factory=set)

    def trouble(self, seen: int, means: Mapping[str, float]) -> list[str]:
        """What has been wrong for long, each told once until it is over."""
        wrong = set[str]()
        if means.get("loss/discriminator", math.inf) < SATURATED:
            wrong.add(SATURATION)
        if means.get("x_T/spread", math.inf) < COLLAPSED:
            wrong.add(COLLAPSE)
        self._told &= wrong
        self._since = {text: self._since.get(text, seen) for text in wrong}
        self._lines = Counter({text: self._lines[text] + 1 for text in wrong})
        lasting = {
            text for text in wrong
            if self._lines[text] >= LINES and seen - self._since[text] >= SHARE * self.duration
        }  # fmt: skip
        fresh = lasting - self._told
        self._told |= fresh
        return sorted(fresh)


SATURATION = (
    "the discriminator has told real from generated without fail for long, so that the prior learns next to nothing: "
    "lower train.discriminator_lr, raise adversarial.r1, or truncate later (a larger T makes them more alike)"
)
COLLAPSE = (
    "the prior's examples have been nearly all alike for long: begin again from before it, with a higher "
    "adversarial.r1, a lower train.prior_lr or adversarial.weight, or a larger T"
)
