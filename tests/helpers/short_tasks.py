"""Tasks of the benchmark with short episodes, played by their own simulators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pwm.core import suites


@contextmanager
def short_tasks(names: Sequence[str], steps: int) -> Iterator[None]:
    """Inside, the tasks of these names have episodes of so many steps, in forked workers too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            short = replace(suites.get_task(name), episode_length=steps)
            patch.setitem(suites._TASKS, name, short)
        yield
