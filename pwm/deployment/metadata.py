"""What a deployed file says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from pwm import __version__
from pwm.deployment.network import Input, Network
from pwm.deployment.observation_layout import observation_layout
from pwm.deployment.sources import Source


def metadata(source: Source, sha256: str) -> dict[str, Any]:
    """Facts of a policy or world model for JSON.

    Args:
        source: what is deployed.
        sha256: a name for the content of what it was loaded from.
    """
    task = source.task
    observation = next(
        given
        for network in source.networks.values()
        for given in network.inputs
        if given.name == "obs"
    )
    is_native = task.domain != "gymnasium" or task.action_low is not None
    return {
        "format": 1,
        "kind": source.kind,
        "pwm_version": __version__,
        "source_sha256": sha256,
        "task": task.table(),
        "observation": _observation(observation) | {"parts": observation_layout(task)},
        "action": {
            "size": task.action_dim,
            "low": list(task.action_low or [-1.0] * task.action_dim),
            "high": list(task.action_high or [1.0] * task.action_dim),
            "units": "environment" if is_native else "normalized",
        },
    }


def described(network: Network) -> dict[str, Any]:
    """The inputs and the output of a function."""
    inputs = [{"name": given.name, "shape": ["batch", given.size]} for given in network.inputs]
    return {
        "inputs": inputs,
        "output": {"name": network.name, "shape": ["batch", network.outputs]},
        "dtype": "float32",
    }


def _observation(given: Input) -> dict[str, Any]:
    def numbers(values: np.ndarray | None, otherwise: float) -> list[float]:
        return [otherwise] * given.size if values is None else [float(str(v)) for v in values]

    return {
        "size": given.size,
        "mean": numbers(given.mean, 0.0),
        "scale": numbers(given.scale, 1.0),
        "period": numbers(given.period, 0.0),
    }
