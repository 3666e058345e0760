"""How long compiling takes, said apart from the rate of a loop."""

from __future__ import annotations

import time

from torch import Tensor

from pwm.core.progress import console
from pwm.runtime.acceleration import Accelerator


class FirstStep:
    """Says once how long a compiled loop's first step took, apart from the rate of the others.

    Make it right before the loop. Torch keeps what it compiled: a second run starts faster.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._wanted, self._start = accelerator.compiles, time.perf_counter()

    def report(self, result: Tensor) -> None:
        """After a step, with one of its results."""
        if self._wanted:
            self._wanted = False
            result.sum().item()  # the device has finished
            seconds = time.perf_counter() - self._start
            console.print(f"first step: {seconds:.1f} s, with compiling")
