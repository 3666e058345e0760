"""How the gradients of tasks lie to one another, in angle and in size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor


class GradientRelations(NamedTuple):
    """What the gradients of K tasks say of each pair and of each task.

    Attributes:
        cosine: (K, K) of the angles between the tasks' mean gradients.
        deviation: (K, K) standard errors of the cosines, by the jackknife over parts.
        norm: (K,) of the mean gradients.
        agreement: (K,) cosine of the gradients of a task's first and second half of the parts: what
            a cosine with another task could be at best with so many windows.
    """

    cosine: np.ndarray
    deviation: np.ndarray
    norm: np.ndarray
    agreement: np.ndarray


def products(gradients: Tensor) -> np.ndarray:
    """Inner products of gradients that add up over the parts of a model.

    Args:
        gradients: (K, P, n), of P parts of the windows of K tasks by n weights.

    Returns:
        (K, P, K, P) float64.
    """
    tasks, parts, _ = gradients.shape
    flat = gradients.flatten(0, 1).double()
    return (flat @ flat.T).cpu().numpy().reshape(tasks, parts, tasks, parts)


def relations(found: np.ndarray) -> GradientRelations:
    """What the :func:`products` of gradients, (K, P, K, P) with P of at least 2, say."""
    parts = found.shape[1]
    rest = [np.delete(np.delete(found, p, 1), p, 3).mean((1, 3)) for p in range(parts)]
    without = np.array([_cosines(mean) for mean in rest])
    spread = np.square(without - without.mean(0)).sum(0)
    whole = found.mean((1, 3))
    half = parts // 2
    first, second = found[:, :half], found[:, half:]
    across = first[..., half:].mean((1, 3)).diagonal()
    sizes = first[..., :half].mean((1, 3)).diagonal() * second[..., half:].mean((1, 3)).diagonal()
    return GradientRelations(
        _cosines(whole),
        np.sqrt((parts - 1) / parts * spread),
        np.sqrt(whole.diagonal().clip(min=0)),
        across / np.sqrt(sizes.clip(min=1e-300)),
    )


def _cosines(inner: np.ndarray) -> np.ndarray:
    """(K, K) inner products -> cosines; 0 with a gradient of zero, 1 on the diagonal."""
    norm = np.sqrt(inner.diagonal().clip(min=0))
    size = np.outer(norm, norm)
    cosine = np.divide(inner, size, out=np.zeros_like(inner), where=size > 0)
    np.fill_diagonal(cosine, 1.0)
    return cosine.clip(-1, 1)


def magnitude_similarity(norm: np.ndarray) -> np.ndarray:
    """2 a b / (a^2 + b^2) of norms (K,), (K, K): 1 for equal sizes, near 0 for very unequal ones.

    Yu et al., NeurIPS 2020 (PCGrad), definition 3.
    """
    squares = np.square(norm)
    size = squares[:, None] + squares
    return np.divide(2 * np.outer(norm, norm), size, out=np.ones_like(size), where=size > 0)


def relative_gains(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much lower the losses of the same windows are than they were, relative to their mean.

    Args:
        before: (..., windows).
        after: (..., windows).

    Returns:
        The gain and its standard error over windows, (...) each; negative gains are losses.
    """
    fall, mean = before - after, before.mean(-1)
    error = fall.std(-1, ddof=1) / np.sqrt(fall.shape[-1])
    return fall.mean(-1) / mean, error / mean
