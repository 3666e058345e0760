"""Whether a deployed file computes what it was made from, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pwm.core.errors import PwmError
from pwm.deployment.network import Network
from pwm.deployment.sources import Source

SAME = 1e-6  # of an action's half-range, or of the largest output
_ROUNDINGS = 8  # torch's own, that sums in another order may differ by
_SAMPLES, _SINGLY = 256, 16
_CALLS, _FIRST_CALLS = 2000, 100

Run = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """Differences as a share of an action's half-range, or of the largest output and at least 1.

    Attributes:
        largest: between the file's outputs and torch's in float32.
        rounding: between torch's in float32 and in float64.
    """

    largest: float
    rounding: float


def compared(run: Run, source: Source, name: str) -> Comparison:
    """Compare a function of a file with the original, at many inputs at once and at single ones.

    Raises:
        PwmError: if they differ by more than rounding explains.
    """
    inputs = source.samples(name, _SAMPLES)
    original = source.outputs(name, inputs)
    exact = source.outputs(name, inputs, exact=True)
    singly = [run(*(each[i : i + 1] for each in inputs)) for i in range(_SINGLY)]
    unit = _unit(source.networks[name], original)
    found = Comparison(
        max(
            float(np.abs((run(*inputs) - original) / unit).max()),
            float(np.abs((np.concatenate(singly) - original[:_SINGLY]) / unit).max()),
        ),
        float(np.abs((original - exact) / unit).max()),
    )
    allowed = SAME + _ROUNDINGS * found.rounding
    if not found.largest <= allowed:
        raise PwmError(
            f"'{name}' of the file differs from the original by {found.largest:.2g}, and rounding "
            f"explains {allowed:.2g}; nothing is written: use other versions of "
            "torch, onnx or onnxruntime, or another format."
        )
    return found


def _unit(network: Network, outputs: np.ndarray) -> np.ndarray:
    if network.bounds is not None:
        low, high = network.bounds
        return (high - low) / 2
    return np.maximum(np.abs(outputs).max(), 1)


def latency(run: Run, inputs: Sequence[np.ndarray]) -> tuple[float, float]:
    """The median and the 99th percentile of a call's duration, in microseconds.

    Args:
        run: what is called.
        inputs: (n, size) each, of which calls get one row after the other.
    """
    median, slow = np.percentile(durations(run, inputs, _CALLS), [50, 99]) * 1e6
    return float(median), float(slow)


def durations(run: Run, inputs: Sequence[np.ndarray], calls: int) -> list[float]:
    """Seconds of each call, after some that are not counted; see :func:`latency`."""
    rows = [[each[i : i + 1].copy() for each in inputs] for i in range(len(inputs[0]))]
    found = []
    for number in range(-_FIRST_CALLS, calls):
        row = rows[number % len(rows)]
        begun = time.perf_counter()
        run(*row)
        if number >= 0:
            found.append(time.perf_counter() - begun)
    return found
