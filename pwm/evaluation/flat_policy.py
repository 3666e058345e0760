"""A saved policy's forward pass as a list of kernels, for the few observations of a worker.

At five observations modules, views and checks cost several times what the matrix products do. Here
the same kernels run on the same numbers, one after the other, so actions are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.models.angles import wrapped
from pwm.models.layers import Mish, NormedLinear, StackedLayerNorm, StackedLinear
from pwm.models.policy import Policy

_Layer = Callable[[Tensor], Tensor]


class FlatPolicy:
    """Acts as ``policy.act(obs, normalized=True)`` does, for NumPy observations on the CPU.

    At the first observations of every batch size both are computed; where they differ by a bit, as
    for a kind of layer that is not known here, the policy acts itself from then on.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._passes: dict[int, _Pass] = {}  # by batch size
        self._is_same: dict[int, bool] = {}  # by batch size, whether what is computed here is used

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Observations (n, obs_dim) to actions (n, action_dim) in [-1, 1].

        Raises:
            PwmError: as the policy does.
        """
        n = len(obs)
        if n not in self._is_same:
            action = self._policy.act(obs, normalized=True)
            known = bool(_modules(self._policy))
            self._is_same[n] = known and np.array_equal(action, self._flat(obs))
            return action
        if self._is_same[n]:
            action = self._flat(obs)
            if isfinite(float(action.sum() + obs.sum())):
                return action
        return self._policy.act(obs, normalized=True)  # which says what is not finite

    @torch.inference_mode()
    def _flat(self, obs: np.ndarray) -> np.ndarray:
        if len(obs) not in self._passes:
            self._passes[len(obs)] = _Pass(self._policy, len(obs))
        return self._passes[len(obs)](obs)


class _Pass:
    """The kernels and their buffers for n observations.

    Sums, products and quotients of a few numbers are NumPy's, which costs a third of a call of
    torch; they are exact to the last bit in both.
    """

    def __init__(self, policy: Policy, n: int) -> None:
        size = policy.task.obs_dim
        mean, scale, embedding = policy.obs_mean, policy.obs_scale, policy.embedding
        padded = (torch.zeros(n, len(mean)) - mean) / scale
        self._inputs = torch.cat([padded, embedding.expand(n, -1)], -1)
        self._own = self._inputs.numpy()[:, :size]
        self._mean, self._scale = mean.numpy()[:size], scale.numpy()[:size]
        wraps = policy.architecture.get("wrap_angles", False)
        self._period = policy.obs_period.numpy()[:size] if wraps else None
        self._layers = [_kernels(module, n) for module in _modules(policy)]
        self._action_dim = policy.task.action_dim

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        obs = np.asarray(obs, np.float32)
        if self._period is not None:
            obs = wrapped(obs, self._period)
        np.subtract(obs, self._mean, out=self._own)
        np.divide(self._own, self._scale, out=self._own)
        x = self._inputs
        for layer in self._layers:
            x = layer(x)
        return torch.tanh(x).numpy()[:, : self._action_dim]


def _modules(policy: Policy) -> list[NormedLinear | StackedLinear]:
    """Encoder and actor, or nothing where a module is of another kind."""
    parts = [part for part in (policy.encoder, policy.actor.mean) if part is not None]
    modules = [module for part in parts for module in part.children()]
    known = [module for module in modules if isinstance(module, NormedLinear | StackedLinear)]
    return known if len(known) == len(modules) else []


def _kernels(module: NormedLinear | StackedLinear, n: int) -> _Layer:
    """A layer for (n, inputs), of a stack of one."""
    stacked = isinstance(module, StackedLinear)
    weight, bias = (module.weight[0], module.bias[0]) if stacked else (module.weight, module.bias)
    transposed, norm, product = weight.t(), module.ln, torch.empty(n, len(bias))

    def linear(x: Tensor) -> Tensor:
        return torch.addmm(bias, x, transposed, out=product)

    if norm is None:
        return linear
    mish = _mish(n, len(bias))
    if isinstance(norm, StackedLayerNorm):
        scale, shift, normed = norm.weight, norm.bias, torch.empty(n, len(bias))

        def stacked_layer(x: Tensor) -> Tensor:
            y = F.layer_norm(linear(x), bias.shape)
            return mish(torch.addcmul(shift, y, scale, out=normed))

        return stacked_layer
    act: _Layer = mish
    if isinstance(module, NormedLinear) and not isinstance(module.act, Mish):
        act = module.act
    of_norm = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: act(F.layer_norm(linear(x), *of_norm))


def _mish(n: int, size: int) -> _Layer:
    """:func:`pwm.models.layers.mish` of (n, size), of which no gradient is wanted."""
    exponential, gate, quotient = torch.empty(3, n, size)
    e, g, q = exponential.numpy(), gate.numpy(), quotient.numpy()

    def mish(x: Tensor) -> Tensor:
        values = x.numpy()
        np.minimum(values, 30.0, out=e)
        torch.exp(exponential, out=exponential)
        np.add(e, 2.0, out=g)
        np.multiply(g, e, out=g)
        np.add(g, 2.0, out=q)
        np.divide(g, q, out=g)
        np.multiply(g, values, out=g)
        return gate

    return mish
