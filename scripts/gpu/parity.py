"""The same updates on the CPU and the GPU, eager and captured, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gpu.facts import DEVICE, TINY, apart, claim, part
from torch import Tensor

from pwm.runtime.acceleration import Acceleration


class Way(NamedTuple):
    """How an update runs."""

    device: str
    how: Acceleration


ALWAYS = "never" if TINY else "always"
CPU = Way("cpu", Acceleration("never", "float32"))
EAGER = Way(DEVICE, Acceleration("never", "float32"))
GRAPH = Way(DEVICE, Acceleration(ALWAYS, "float32"))
EAGER_BFLOAT16 = Way(DEVICE, Acceleration("never", "bfloat16"))
GRAPH_BFLOAT16 = Way(DEVICE, Acceleration(ALWAYS, "bfloat16"))


class Run(NamedTuple):
    """What some updates came to."""

    begun: list[Tensor]  # weights before them
    ended: list[Tensor]  # weights after them
    metrics: list[dict[str, Tensor]]  # of each


class Tolerance(NamedTuple):
    """How far two runs may be from each other."""

    weights: float  # relative to how far they have moved
    metrics: float  # relative to their size, where it is above 0.1


@dataclass
class Comparison:
    """Runs by name, each compared as soon as it has ended.

    Attributes:
        run: makes the updates in a way.
    """

    run: Callable[[str, Way], Run]
    ended: dict[str, Run] = field(default_factory=dict)

    def add(self, name: str, way: Way) -> None:
        """Make a run that others are compared with."""
        with part(name):
            self.ended[name] = self.run(name, way)

    def follows(self, name: str, way: Way, other: str, within: Tolerance) -> None:
        """Make a run and claim that it follows another."""
        self.add(name, way)
        if name in self.ended and other in self.ended:
            _compare(f"{name} follows {other}", self.ended[name], self.ended[other], within)


def _compare(what: str, ours: Run, theirs: Run, within: Tolerance) -> None:
    distance = apart(ours.ended, theirs.ended, theirs.begun)
    off = max(
        float(((a[name] - b[name]).abs() / b[name].abs().clamp(min=0.1)).max())
        for a, b in zip(ours.metrics, theirs.metrics, strict=True)
        for name in b
    )
    holds = distance < within.weights and off < within.metrics
    claim(what, holds, weights=distance, metrics=off, of=within)


def on_cpu(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies, since the next update overwrites what one returns."""
    return {name: value.float().cpu().clone() for name, value in metrics.items()}
