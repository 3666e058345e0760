"""What a loop says of getting ready: that it begins, and then how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from pwm.core.progress import console
from pwm.runtime.acceleration import Accelerator


class FirstStep:
    """A step on a GPU that builds kernels and captures a graph, and takes as long as a thousand.

    Make it right before the step; it says that this begins. Kernels are kept: a second run starts
    faster.

    Args:
        accelerator: of the step; nothing is said if it captures nothing.
        what: is captured, in words.
        forget_rate: is called after the step, so that a rate does not count it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        what: str = "the update",
        forget_rate: Callable[[], object] = lambda: None,
    ) -> None:
        self._wanted, self._what, self._forget_rate = accelerator.replays, what, forget_rate
        if self._wanted:
            console.print(
                f"building kernels for {what}: some seconds, the first time on a machine more",
                soft_wrap=True,
            )
        self._start = time.perf_counter()

    def report(self, result: Tensor) -> None:
        """After the step, with one of its results; after later steps it does nothing."""
        if self._wanted:
            self._wanted = False
            result.sum().item()  # the device has finished
            seconds = time.perf_counter() - self._start
            console.print(f"first step: {seconds:.1f} s, with building")
            self._forget_rate()
