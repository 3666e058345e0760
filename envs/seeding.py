"""Seeding a user's environment, which may draw from more than its own generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium
import numpy as np

from .core import TaskEnv


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """A context in which NumPy's and Python's global generators begin at a seed.

    Outside they go on as if nothing had drawn from them.
    """
    numbers, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(pythons)


def seed_layers(env: gymnasium.Env[Any, Any], seed: int) -> None:
    """Call the ``seed`` method of an environment and its wrappers, where there is one.

    Gymnasium has none since ``reset`` takes the seed. Environments of before may ignore that of
    ``reset``, as Meta-World's do.
    """
    layer: Any = env
    while layer is not None:
        if callable(getattr(type(layer), "seed", None)):  # not of what a wrapper holds
            with suppress(TypeError):  # of a method that takes something else
                layer.seed(seed)
        layer = vars(layer).get("env")


def follows_seeds(env: TaskEnv) -> bool:
    """Whether two episodes of one seed begin alike.

    Also true where that cannot be tried: what fails says so when an episode is played.
    """
    try:
        first, second = (env.reset(seed=0)[0] for _ in range(2))
    except Exception:
        return True
    return np.array_equal(first, second)
