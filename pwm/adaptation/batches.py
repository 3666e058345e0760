"""Batches of new tasks with a share of old ones, from two stores."""

from __future__ import annotations

from collections.abc import Iterator

from pwm.data.windows.batch import Batch, joined
from pwm.data.windows.sampler import WindowSampler
from pwm.multitask.finetuning import OthersShare


class MixedBatches:
    """Batches of one size from two samplers, by a share that may change as training goes on.

    Args:
        new: of the new tasks; its ``batch_size`` is that of all.
        old: of the old tasks, whose ids are lower; None for new ones alone.
        share: of the old ones.
    """

    def __init__(self, new: WindowSampler, old: WindowSampler | None, share: OthersShare) -> None:
        self._new, self._old, self._share, self._size = new, old, share, new.batch_size

    def iterate(self, start: int, end: int, horizon: int) -> Iterator[Batch]:
        """The batches of some updates, windows in the order of tasks."""
        for first, last, others in self._share.spans(start, end):
            of_old = min(round(others * self._size), self._size - 1)
            self._new.batch_size = self._size - of_old
            batches = self._new.iterate(first, last, horizon=horizon)
            if self._old is None or not of_old:
                yield from batches
                continue
            self._old.batch_size = of_old
            old = self._old.iterate(first, last, horizon=horizon)
            for pair in zip(old, batches, strict=True):
                yield joined(pair)
