"""What a benchmark reports: one measured comparison, and how the times of it are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from roofline import Ceilings

from pwm.runtime.acceleration import Acceleration

EAGER = Acceleration("never", "float32")


@dataclass(frozen=True)
class Row:
    """One line of the benchmark's table.

    Attributes:
        what: the work that is timed.
        plain_ms: milliseconds of what it is compared with; None if there is no comparison.
        ours_ms: milliseconds of this project's code.
        floor_ms: the least that the measured ceilings of the machine allow, where it is known.
        required: the smallest ratio plain / ours that counts as met.
        note: what a reader must know to read the figures.
    """

    what: str
    plain_ms: float | None
    ours_ms: float
    floor_ms: float | None = None
    required: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than what it is compared with."""
        return None if self.plain_ms is None else self.plain_ms / self.ours_ms

    @property
    def over_floor(self) -> float | None:
        """How many times the floor it takes."""
        return None if self.floor_ms is None else self.ours_ms / self.floor_ms


@dataclass(frozen=True)
class Way:
    """How a CPU can compute.

    Attributes:
        name: as the table says it.
        acceleration: the settings.
        rate: operations a second of large matrix products.
    """

    name: str
    acceleration: Acceleration
    rate: float


def cpu_ways(ceilings: Ceilings) -> list[Way]:
    """In float32, and in bfloat16 where the CPU has it."""
    ways = [
        Way("eager, float32", EAGER, ceilings.float32),
        Way("fused, float32", Acceleration("always", "float32"), ceilings.float32),
    ]
    if ceilings.bfloat16 is not None:
        fast = Acceleration("always", "bfloat16")
        ways.append(Way("fused, bfloat16", fast, ceilings.bfloat16))
    return ways


def interleaved(
    candidates: Sequence[Callable[[], object]], repeats: int, warmup: int = 1
) -> list[float]:
    """Median milliseconds of each function, called in turns so that noise meets all alike."""
    times: list[list[float]] = [[] for _ in candidates]
    for turn in range(warmup + repeats):
        for function, taken in zip(candidates, times, strict=True):
            start = time.perf_counter()
            function()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if turn >= warmup:
                taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken) for taken in times]
