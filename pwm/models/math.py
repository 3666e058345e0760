"""Scalar transforms, categorical regression, returns, running moments: functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), elementwise (DreamerV3, Hafner et al. 2023, eq. 9)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """The inverse of :func:`symlog`, elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def bin_centers(
    num_bins: int, vmin: float, vmax: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Evenly spaced bin centers in symlog space, shape (num_bins,)."""
    return torch.linspace(vmin, vmax, num_bins, device=device)


def two_hot(x: Tensor, centers: Tensor) -> Tensor:
    """Two-hot encoding of real-valued targets in symlog space (TD-MPC2, section 3.1).

    Args:
        x: targets in real units, any shape (...).
        centers: evenly spaced bin centers, (bins,); targets outside are clamped to the end bins.

    Returns:
        (..., bins): at most two neighbouring entries are non-zero, they sum to one, and their mean
        under ``centers`` is symlog(x).
    """
    step = (centers[-1] - centers[0]) / (len(centers) - 1)
    position = (symlog(x).clamp(centers[0], centers[-1]) - centers[0]) / step
    lower = position.floor().clamp(max=len(centers) - 2)
    weight = (position - lower).unsqueeze(-1)
    index = lower.long().clamp(min=0).unsqueeze(-1)  # NaN gives no index; its weight stays NaN
    encoded = torch.zeros(*x.shape, len(centers), dtype=x.dtype, device=x.device)
    return encoded.scatter(-1, index, 1 - weight).scatter(-1, index + 1, weight)


def expected_bin(logits: Tensor, centers: Tensor) -> Tensor:
    """Softmax expectation over bins, in symlog units: (..., bins) -> (...).

    A sum of products, since autocast would have a matrix product round both of its sides.
    """
    return (at_least_float32(logits).softmax(-1) * centers).sum(-1)


def soft_cross_entropy(logits: Tensor, target: Tensor, centers: Tensor) -> Tensor:
    """Cross-entropy between two-hot targets and predicted logits.

    Args:
        logits: (..., bins).
        target: (...) in real units.
        centers: (bins,).

    Returns:
        (...) losses.
    """
    return -(two_hot(target, centers) * F.log_softmax(at_least_float32(logits), -1)).sum(-1)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen bfloat16, in which matrix products may run, for what sums or divides."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the first dimension: (N, ...) -> two of (...).

    The deviation is of the N values themselves; where they are equal its gradient is zero.
    """
    var, mean = torch.var_mean(x, 0, correction=0)
    return mean, (var + 1e-12).sqrt()


def discounted_sum(reward: Tensor, discount: float) -> Tensor:
    """sum_t discount^t reward_t over the first dimension: (H, ...) -> (...)."""
    weights = discount ** torch.arange(len(reward), device=reward.device, dtype=reward.dtype)
    return weighted_sum(reward, weights)


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    """Sum over the first dimension, (H, ...) -> (...), with weights (H,), not by autocast's rules.

    See :func:`expected_bin`.
    """
    return (x * weights.view(-1, *[1] * (x.dim() - 1))).sum(0)


def survival(continuation: Tensor) -> Tensor:
    """Probability of not having ended before each step, and after the last: (H, ...) -> (H+1, ...).

    Args:
        continuation: of each step, the probability that it does not end the episode.
    """
    alive = [torch.ones_like(continuation[0])]
    for step in continuation:
        alive.append(alive[-1] * step)
    return torch.stack(alive)


def td_lambda(
    reward: Tensor,
    next_value: Tensor,
    discount: float,
    lam: float,
    continuation: Tensor | None = None,
) -> Tensor:
    """TD(lambda) targets of an H-step rollout, time first (Sutton & Barto, 2nd ed., section 12.1).

    G_t = r_t + discount c_t ((1 - lam) V(s_{t+1}) + lam G_{t+1}), with G_H = V(s_H).

    Args:
        reward: (H, ...).
        next_value: (H, ...), the value of the state that each step leads to.
        discount: per decision step.
        lam: 0 gives one-step targets, 1 the H-step return.
        continuation: c, (H, ...), the probability that a step does not end the episode; 1 if it
            is not given.

    Returns:
        (H, ...) targets for the values of states 0..H-1.
    """
    target = next_value[-1]
    targets = []
    discounts: Tensor | list[float] = [discount] * len(reward)
    if continuation is not None:
        discounts = discount * continuation.flip(0)
    for r, v, d in zip(reward.flip(0), next_value.flip(0), discounts, strict=True):
        target = r + d * ((1 - lam) * v + lam * target)
        targets.append(target)
    return torch.stack(targets).flip(0)


def running_moments(
    mean: Tensor, var: Tensor, count: Tensor, batch: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Running mean and variance over the last dimension, one estimate a leading entry.

    Args:
        mean: (K,); start from zeros.
        var: (K,); start from zeros.
        count: (K,), the weight of what was seen; start from zeros.
        batch: (K, n) new samples.
        decay: 1 weighs all batches alike; below 1 the estimate forgets with that rate and is
            unbiased from the first batch on.

    Returns:
        The new (mean, var, count).
    """
    count = decay * count + 1
    rate = 1 / count
    batch_var, batch_mean = torch.var_mean(batch, -1, correction=0)
    delta = batch_mean - mean
    new_mean = mean + rate * delta
    new_var = (1 - rate) * (var + rate * delta**2) + rate * batch_var
    return new_mean, new_var, count


def percentile_range(x: Tensor, low: float = 0.05, high: float = 0.95) -> Tensor:
    """Distance between two quantiles of all entries, a scalar tensor, at least 1.

    The scale of Q-values in TD-MPC2's policy objective (section 3.1). Sorted and interpolated
    here, since `torch.quantile` waits for the device to check its arguments.
    """
    ordered = x.flatten().float().sort().values

    def quantile(share: float) -> Tensor:
        position = share * (len(ordered) - 1)
        below = min(int(position), len(ordered) - 2) if len(ordered) > 1 else 0
        return torch.lerp(
            ordered[below], ordered[min(below + 1, len(ordered) - 1)], position - below
        )

    return (quantile(high) - quantile(low)).clamp(min=1.0)
