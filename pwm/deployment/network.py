"""What a deployed file computes, as arrays: the same description becomes every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Head = Literal["latent", "action", "reward", "continuation"]
"""What follows the last layer: nothing, tanh and bounds, a reward's bins, or a probability."""


@dataclass(frozen=True)
class Layer:
    """A linear layer, and after it LayerNorm with Mish or SimNorm, or nothing.

    Attributes:
        weight: (outputs, inputs) float32.
        bias: (outputs,), in float64, since it may have been computed; files round it.
        norm: scale and shift of LayerNorm, (outputs,) each.
        simplex: entries of a group of SimNorm, which is the activation; 0 for Mish.
    """

    weight: np.ndarray
    bias: np.ndarray
    norm: tuple[np.ndarray, np.ndarray] | None = None
    simplex: int = 0


@dataclass(frozen=True)
class Input:
    """An input (batch, size) in the environment's units, and how it is normalized.

    Attributes:
        name: of the input in the file.
        size: its entries.
        mean: subtracted first, (size,); None for nothing.
        scale: divided by then, likewise.
        period: of entries that are unbounded angles, and 0 elsewhere; these are wrapped before.
    """

    name: str
    size: int
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    period: np.ndarray | None = None


@dataclass(frozen=True)
class Network:
    """A function that a file computes.

    Attributes:
        name: of its output, such as ``action``.
        inputs: concatenated, after their normalization, for the first layer.
        layers: one after the other.
        head: what follows them.
        bounds: lowest and highest action, (action_dim,) each; None for actions in [-1, 1].
        bins: of a reward in symlog units, (bins,).
    """

    name: str
    inputs: tuple[Input, ...]
    layers: tuple[Layer, ...]
    head: Head
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    bins: np.ndarray | None = None

    @property
    def outputs(self) -> int:
        """Entries of the output."""
        return 1 if self.head in ("reward", "continuation") else len(self.layers[-1].bias)
