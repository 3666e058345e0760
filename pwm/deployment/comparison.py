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
_SAME_IN_FLOAT64 = 1e-7  # likewise; ONNX has LayerNorm's epsilon in float32
_ROUNDINGS = 8  # torch's own, that sums in another order may differ by
_SAMPLES, _SINGLY = 256, 16
_CALLS, _FIRST_CALLS = 2000, 100

Run = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """Differences as a share of an action's half-range, or of the largest output and at least 1.

    Attributes:
        in_float64: between what the file computes if it is computed in float64, and torch's.
        distance: between the file's outputs in float32 and torch's in float64.
        rounding: between torch's in float32 and in float64.
        largest: between the file's in float32 and torch's.
    """

    in_float64: float
    distance: float
    rounding: float
    largest: float


def compared(run: Run, in_float64: Run, source: Source, name: str) -> Comparison:
    """Compare a function of a file with the original, at many inputs at once and at single ones.

    In float32 two correct programs that sum in another order differ by what the network makes of
    rounding, so that alone cannot tell a fault from rounding: in float64 they hardly differ.

    Args:
        run: the file's function.
        in_float64: the same operators on float64, with constants that are not rounded.
        source: has the original.
        name: of the function.

    Raises:
        PwmError: if they differ in float64, or in float32 by more than rounding explains.
    """
    inputs = source.samples(name, _SAMPLES)
    original, exact = source.outputs(name, inputs), source.outputs(name, inputs, exact=True)
    unit = _unit(source.networks[name], exact)

    def largest(differences: np.ndarray) -> float:
        return float(np.abs(differences / unit).max())

    singly = np.concatenate([run(*(each[i : i + 1] for each in inputs)) for i in range(_SINGLY)])
    found = np.concatenate([run(*inputs), singly])
    rows = [*range(_SAMPLES), *range(_SINGLY)]
    result = Comparison(
        largest(in_float64(*(each.astype(np.float64) for each in inputs)) - exact),
        largest(found - exact[rows]),
        largest(original - exact),
        largest(found - original[rows]),
    )
    _require(name, "in float64", result.in_float64, _SAME_IN_FLOAT64)
    _require(name, "in float32", result.distance, SAME + _ROUNDINGS * result.rounding)
    return result


def _require(name: str, how: str, difference: float, allowed: float) -> None:
    if not difference <= allowed:
        raise PwmError(
            f"'{name}' of the file differs {how} from the original by {difference:.2g}, and "
            f"rounding explains {allowed:.2g}; nothing is written: use other versions of "
            "torch, onnx or onnxruntime, or another format."
        )


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
