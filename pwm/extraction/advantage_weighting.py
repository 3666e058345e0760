"""Which recorded rows to imitate more often: those that turned out better than rows like them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_RIDGE = 1e-3  # of a normalized feature's variance; keeps a fit to few rows from blowing up
_MOST = 3.0  # standard deviations of an advantage that count


def cloned_rows(
    latent: Tensor, outcome: Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Row numbers drawn in proportion to exp(advantage / temperature), as many as there are rows.

    The weights of advantage-weighted regression (Peng et al. 2019). A row's advantage is what its
    outcome exceeds a ridge regression of outcomes on latents by, in the task's standard deviations.

    Args:
        latent: (K, n, latent), the rows' states.
        outcome: (K, n), their outcome, such as a mean reward to go.
        temperature: near 0 for the best rows alone, large for all alike.
        generators: of the draw, one per task.

    Returns:
        (K, n) int64, with repetitions.
    """
    weights = (advantages(latent, outcome).clamp(-_MOST, _MOST) / temperature).softmax(-1)
    drawn = [
        torch.multinomial(own, len(own), replacement=True, generator=generator)
        for own, generator in zip(weights, generators, strict=True)
    ]
    return torch.stack(drawn)


def advantages(latent: Tensor, outcome: Tensor) -> Tensor:
    """(K, n) residuals of a ridge regression of outcomes (K, n) on latents, with deviation one."""
    outcome = outcome.to(latent.dtype).unsqueeze(-1)
    x = _standardized(latent)
    y = outcome - outcome.mean(1, keepdim=True)
    gram = x.mT @ x / x.shape[1]
    ridge = _RIDGE * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    fitted = x @ torch.linalg.solve(gram + ridge, x.mT @ y / x.shape[1])
    return _standardized(y - fitted).squeeze(-1)


def _standardized(x: Tensor) -> Tensor:
    """Mean zero and deviation one over the second last dimension; what never varies gives zeros."""
    centered = x - x.mean(-2, keepdim=True)
    return centered / centered.square().mean(-2, keepdim=True).sqrt().clamp(min=1e-6)
