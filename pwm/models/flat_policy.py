"""A policy's forward pass as a list of kernels, for the few observations of a simulator's worker.

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

    At the first observations of every shape both are computed; where they differ by a bit, as
    for a kind of layer that is not known here, the policy acts itself from then on.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._passes: dict[tuple[int, ...], _Pass] = {}  # by the shape of the observations
        self._is_same: dict[tuple[int, ...], bool] = {}  # likewise, whether the pass is used

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Observations (n, obs_dim) or (obs_dim,) to actions likewise, in [-1, 1].

        Raises:
            PwmError: as the policy does.
        """
        if (is_same := self._is_same.get(obs.shape)) is None:
            action = self._policy.act(obs, normalized=True)
            known = bool(_modules(self._policy)) and obs.ndim <= 2
            self._is_same[obs.shape] = known and np.array_equal(action, self._flat(obs))
            return action
        if is_same:
            action = self._flat(obs)
            if isfinite(float(action.sum() + obs.sum())):
                return action
        return self._policy.act(obs, normalized=True)  # which says what is not finite

    @torch.inference_mode()
    def _flat(self, obs: np.ndarray) -> np.ndarray:
        if obs.shape not in self._passes:
            self._passes[obs.shape] = _Pass(self._policy, obs.shape[:-1])
        return self._passes[obs.shape](obs)


class _Pass:
    """The kernels and their buffers for n observations, or one without a batch.

    Sums, products and quotients of a few numbers are NumPy's, which costs a third of a call of
    torch; they are exact to the last bit in both.
    """

    def __init__(self, policy: Policy, batch: tuple[int, ...]) -> None:
        size = policy.task.obs_dim
        mean, scale, embedding = policy.obs_mean, policy.obs_scale, policy.embedding
        padded = (torch.zeros(*batch, len(mean)) - mean) / scale
        self._inputs = torch.cat([padded, embedding.expand(*batch, -1)], -1)
        self._own = self._inputs.numpy()[..., :size]
        self._mean, self._scale = mean.numpy()[:size], scale.numpy()[:size]
        wraps = policy.architecture.get("wrap_angles", False)
        self._period = policy.obs_period.numpy()[:size] if wraps else None
        self._layers = [_kernels(module, batch) for module in _modules(policy)]
        self._shape = *batch, policy.task.action_dim

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        obs = np.asarray(obs, np.float32)
        if self._period is not None:
            obs = wrapped(obs, self._period)
        np.subtract(obs, self._mean, out=self._own)
        np.divide(self._own, self._scale, out=self._own)
        x = self._inputs
        for layer in self._layers:
            x = layer(x)
        return torch.tanh(x).numpy()[:, : self._shape[-1]].reshape(self._shape)


def _modules(policy: Policy) -> list[NormedLinear | StackedLinear]:
    """Encoder and actor, or nothing where a module is of another kind."""
    parts = [part for part in (policy.encoder, policy.actor.mean) if part is not None]
    modules = [module for part in parts for module in part.children()]
    known = [module for module in modules if isinstance(module, NormedLinear | StackedLinear)]
    return known if len(known) == len(modules) else []


def _kernels(module: NormedLinear | StackedLinear, batch: tuple[int, ...]) -> _Layer:
    """A layer for (n, inputs), of a stack of one; an encoder's may also take (inputs,)."""
    stacked, norm = isinstance(module, StackedLinear), module.ln
    weight, bias = (module.weight[0], module.bias[0]) if stacked else (module.weight, module.bias)
    batch = batch or (1,) if stacked else batch
    transposed, product = weight.t(), torch.empty(*batch, len(bias))

    def linear(x: Tensor) -> Tensor:
        if not batch:
            return F.linear(x, weight, bias)
        return torch.addmm(bias, x.view(*batch, -1), transposed, out=product)

    if norm is None:
        return linear
    mish = _mish((*batch, len(bias)))
    if isinstance(norm, StackedLayerNorm):
        scale, shift, normed = norm.weight, norm.bias, torch.empty(*batch, len(bias))

        def stacked_layer(x: Tensor) -> Tensor:
            y = F.layer_norm(linear(x), bias.shape)
            return mish(torch.addcmul(shift, y, scale, out=normed))

        return stacked_layer
    act: _Layer = mish
    if isinstance(module, NormedLinear) and not isinstance(module.act, Mish):
        act = module.act
    of_norm = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: act(F.layer_norm(linear(x), *of_norm))


def _mish(shape: tuple[int, ...]) -> _Layer:
    """:func:`pwm.models.layers.mish` of a shape, of which no gradient is wanted."""
    exponential, gate, quotient = torch.empty(3, *shape)
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
