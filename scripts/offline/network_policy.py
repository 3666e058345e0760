"""Policies that are a plain network, as :mod:`offline.d3rlpy_worker` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.files import file_sha256
from pwm.core.suites import Task
from pwm.evaluation.agents import ActFunction


@dataclass(frozen=True)
class NetworkPolicy:
    """A policy of ReLU layers and a tanh, which reads normalized observations.

    An :class:`pwm.evaluation.agents.Agent`; workers read it from its file.
    """

    path: str
    digest: str

    @classmethod
    def at(cls, path: Path) -> NetworkPolicy:
        """The policy in a file."""
        return cls(str(path), file_sha256(path))

    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`pwm.evaluation.agents.Agent`."""
        return {"network": self.digest}

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        """See :class:`pwm.evaluation.agents.Agent`."""
        return _read(self.path)


@lru_cache(maxsize=2)
def _read(path: str) -> ActFunction:
    with np.load(path) as file:
        arrays = dict(file)
    layers = [(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range((len(arrays) - 2) // 2)]

    def act(obs: np.ndarray) -> np.ndarray:
        hidden = (np.asarray(obs, np.float32) - arrays["mean"]) / arrays["scale"]
        for weight, bias in layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        weight, bias = layers[-1]
        return np.tanh(hidden @ weight.T + bias)

    return act
