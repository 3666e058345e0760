"""The activation Mish (Misra, 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RationalMish(torch.autograd.Function):
    """Mish from a single exponential: x n / (n + 2) with n = e^x (e^x + 2).

    On a CPU about twice as fast as the built-in kernel, which evaluates exp, log1p and tanh.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        e = torch.exp(x.clamp(max=30.0))
        n = (e + 2).mul_(e)
        gate = n.div_(n + 2)
        ctx.save_for_backward(x, e, gate)
        return x * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, e, gate = ctx.saved_tensors
        slope = e.div(e + 1).mul_(x)
        return torch.addcmul(gate, slope, 1 - gate * gate).mul_(grads[0])


def mish(x: Tensor) -> Tensor:
    """Mish, x tanh(log(1 + e^x)), elementwise (Misra, 2019)."""
    return F.mish(x) if x.is_cuda else _RationalMish.apply(x)
