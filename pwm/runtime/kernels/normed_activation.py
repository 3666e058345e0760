"""LayerNorm and the activation after it as one operation, for one network or many side by side.

The layers' own way, torch's operations one after the other, passes over memory some ten times
forward and twenty backward. The kernels pass over it once each way, and keep for the backward pass
the linear layer's output and two numbers a row. They run inside :func:`fast_kernels` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pwm.runtime.kernels import native
from pwm.runtime.kernels.mish import mish

EPSILON = 1e-5
_WANTED: ContextVar[bool] = ContextVar("fast_kernels", default=False)


@contextmanager
def fast_kernels(wanted: bool = True) -> Iterator[None]:
    """Where layers run as fused kernels, if ``wanted`` and the device has them."""
    before = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(before)


@cache
def has_kernels(device: str) -> bool:
    """Whether there are kernels for a type of device: a C compiler for ``cpu``, or Triton."""
    if device == "cpu":
        return native.library() is not None
    if device != "cuda":
        return False
    try:
        import_module("triton")
    except ImportError:
        return False
    return True


def runs_fused(x: Tensor) -> bool:
    """Whether a layer with this input gives its output to the kernels."""
    if not _WANTED.get() or not has_kernels(x.device.type):
        return False
    if torch.is_autocast_enabled(x.device.type):
        return x.is_cuda
    return x.dtype == torch.float32 or (x.is_cuda and x.dtype == torch.bfloat16)


def normed_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    linear_bias: Tensor | None = None,
    simplex: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """LayerNorm over the last dimension, then Mish or SimNorm, of G x E networks.

    Args:
        x: (G, n, E, width), the linear layers' outputs; float32, on a GPU also bfloat16.
        weight: (G E, width) float32, of LayerNorm, and
        bias: likewise.
        linear_bias: (G E, width) that is added to ``x`` first; or without gradient
            (G E, Q, width), one for each of Q equal parts of the n rows.
        simplex: entries of a group of SimNorm; 0 for Mish.
        dtype: of the result; by default that of ``x``.

    Returns:
        (G E, n, width).
    """
    if not runs_fused(x):
        return _one_by_one(x, weight, bias, linear_bias, simplex)
    return _NormedActivation.apply(
        x.contiguous(), linear_bias, weight, bias, simplex, dtype or x.dtype
    )


def _one_by_one(
    x: Tensor, weight: Tensor, bias: Tensor, linear_bias: Tensor | None, simplex: int
) -> Tensor:
    """The same by torch's operations."""
    groups, n, each, width = x.shape
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if linear_bias is not None:
        parts = linear_bias.view(groups, each, -1, 1, width).permute(0, 2, 3, 1, 4)
        x = (x.unflatten(1, (parts.shape[1], -1)) + parts).flatten(1, 2)
    normed = F.layer_norm(x, (width,), eps=EPSILON)
    y = torch.addcmul(
        bias.view(groups, 1, each, width), normed, weight.view(groups, 1, each, width)
    )
    y = y.unflatten(-1, (-1, simplex)).softmax(-1).flatten(-2) if simplex else mish(y)
    return y.transpose(1, 2).reshape(groups * each, n, width)


class _NormedActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        linear_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        simplex: int,
        dtype: torch.dtype,
    ) -> Tensor:
        weight, bias = weight.contiguous(), bias.contiguous()
        linear_bias = None if linear_bias is None else linear_bias.contiguous()
        if x.is_cuda:
            from pwm.runtime.kernels import triton_kernels

            found = triton_kernels.forward(x, linear_bias, weight, bias, simplex, EPSILON, dtype)
        else:
            found = native.forward(x, linear_bias, weight, bias, simplex, EPSILON)
        out, *moments = found
        ctx.simplex = simplex
        kept = out if simplex else None
        ctx.save_for_backward(x, linear_bias, weight, bias, kept, *moments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, linear_bias, weight, bias, out, *moments = ctx.saved_tensors
        trained = any(ctx.needs_input_grad[1:4])
        d_out = grads[0].contiguous()
        out = d_out if out is None else out  # not looked at
        given = (d_out, x, linear_bias, weight, bias, out, tuple(moments), ctx.simplex)
        if x.is_cuda:
            from pwm.runtime.kernels import triton_kernels

            dx, sums = triton_kernels.backward(*given, trained)
        else:
            dx, sums = native.backward(*given, EPSILON, trained)
        d_weight, d_bias, d_linear = (None, None, None) if sums is None else sums
        return dx, None if linear_bias is None else d_linear, d_weight, d_bias, None, None
