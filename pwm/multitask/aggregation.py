"""One direction from the gradients of several tasks, by torchjd's methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pwm.core.errors import PwmError

_CLASSES = {
    "upgrad": "UPGradWeighting",
    "pcgrad": "PCGradWeighting",
    "cagrad": "CAGradWeighting",
    "mgda": "MGDAWeighting",
    "imtl_g": "IMTLGWeighting",
    "aligned_mtl": "AlignedMTLWeighting",
    "dualproj": "DualProjWeighting",
}
_OPTIONS: dict[str, dict[str, Any]] = {"cagrad": {"c": 0.5}}
_SUMS = ("pcgrad",)  # the others' weights are those of a mean where tasks do not conflict


class Aggregator:
    """Weighs the gradients of K tasks by the products of each with each.

    torchjd's weightings take products below some size for zeros, and the directions scale with the
    gradients: so they are given the products of gradients that have been scaled to a sum of squares
    of 1. They compute in double precision, on the CPU.

    Args:
        name: the method, one of :data:`pwm.multitask.config.AGGREGATES` but ``mean``.

    Raises:
        PwmError: if torchjd, or what it needs for this method, is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from torchjd import aggregation

            self._weighting = getattr(aggregation, _CLASSES[name])(**_OPTIONS.get(name, {}))
        except ImportError as error:
            raise PwmError(
                f"aggregate={name} needs torchjd: pip install 'pwm-worldmodels[multitask]'."
            ) from error
        self._sums = name in _SUMS

    @torch.no_grad()
    def weights(self, gradients: Tensor) -> Tensor:
        """Weights of the gradients, (K, n) -> (K,), whose sum of products is the direction.

        They are equal where a gradient is not finite, or all are zero.
        """
        products = (gradients @ gradients.T).double().cpu()
        size, number = products.trace(), len(gradients)
        weights = torch.full((number,), 1 / number, dtype=products.dtype)
        if products.isfinite().all() and size > 0:
            weights = self._weighting(products / size)
            if self._sums:
                weights = weights / number
        return weights.to(gradients)


def make_aggregator(name: str) -> Aggregator | None:
    """The method of a name; None for ``mean``, which needs no gradients of single tasks."""
    return None if name == "mean" else Aggregator(name)
