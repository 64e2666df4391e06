"""Watch the logged values of training steps: average them for the log, and detect failures."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SATURATED = 0.05  # the discriminator's loss, below which the prior gets almost no gradient
COLLAPSED = 0.2  # variety of the prior's x_0 over the data's, below which its examples repeat a few
MIN_LINES, MIN_SHARE = 10, 0.02  # lines of the log, and share of the duration, that a problem must last


@dataclass(frozen=True)
class Step:
    """The logged values of the step that ended at `seen` images."""

    seen: int
    values: Mapping[str, float]

    @property
    def bad(self) -> list[str]:
        """The names of values that are not finite."""
        return [key for key, value in self.values.items() if not math.isfinite(value)]


class Figures:
    """The logged values of steps. They are read one step late, so that an accelerator does not wait for the host.

    `skipped` counts the skipped updates of each phase; `bad` lists the latest consecutive steps that were not finite.
    """

    def __init__(self, skipped: Mapping[str, int]) -> None:
        self.skipped, self.bad = Counter(skipped), list[Step]()
        self._late: tuple[int, Sequence[str], Tensor, torch.cuda.Event | None] | None = None
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, seen: int, logs: Mapping[str, Tensor]) -> None:
        """Add the logs of the step that ended at `seen` images, and read those of the step before."""
        self.read()
        values = torch.stack([value.float() for value in logs.values()])
        done = None
        if values.is_cuda:
            values = torch.empty(len(values), pin_memory=True).copy_(values, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._late = seen, list(logs), values, done

    def read(self) -> None:
        """Read the logs of the latest step."""
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
        """Return the mean of the finite values of each name since the last call, and the total of skipped updates."""
        self.read()
        means = {key: math.fsum(values) / len(values) for key, values in self._values.items()}
        self._values.clear()
        return means | {f"skipped/{name}": float(count) for name, count in self.skipped.items() if count}


@dataclass
class Balance:
    """Detects when prior and discriminator get out of balance, from the lines of the log."""

    duration: int
    _since: dict[str, int] = field(default_factory=dict)  # problem: images seen when it began
    _lines: Counter[str] = field(default_factory=Counter)  # problem: lines of the log that it has lasted
    _reported: set[str] = field(default_factory=set)

    def trouble(self, seen: int, means: Mapping[str, float]) -> list[str]:
        """Return the problems that have lasted, each once until it ends."""
        problems = set[str]()
        if means.get("loss/discriminator", math.inf) < SATURATED:
            problems.add(SATURATION)
        if means.get("x_0/variety", math.inf) < COLLAPSED:
            problems.add(COLLAPSE)
        self._reported &= problems
        self._since = {text: self._since.get(text, seen) for text in problems}
        self._lines = Counter({text: self._lines[text] + 1 for text in problems})
        lasting = {
            text for text in problems
            if self._lines[text] >= MIN_LINES and seen - self._since[text] >= MIN_SHARE * self.duration
        }  # fmt: skip
        new = lasting - self._reported
        self._reported |= new
        return sorted(new)


SATURATION = (
    "the discriminator is saturated: the prior gets almost no gradient. Lower train.discriminator_lr, raise "
    "adversarial.r1, or truncate later (a larger T makes real and generated x_T more similar)"
)
COLLAPSE = (
    "the prior has collapsed: its examples repeat a few images (x_0/variety). Go back to an earlier checkpoint, and "
    "raise adversarial.r1, lower train.prior_lr or adversarial.weight, or truncate later (a larger T)"
)
