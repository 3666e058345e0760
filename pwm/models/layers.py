"""Network parts: SimNorm, linear layers with normalization, MLPs, and stacks of equal MLPs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.models.math import at_least_float32
from pwm.runtime.kernels.mish import mish
from pwm.runtime.kernels.normed_activation import normed_activation, runs_fused


class Mish(nn.Module):
    """:func:`mish` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return mish(x)


class SimNorm(nn.Module):
    """Softmax over consecutive groups of the last dimension (TD-MPC2, section 3.1).

    Args:
        group: entries a simplex; must divide the last dimension.
    """

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) to the same shape."""
        return x.unflatten(-1, (-1, self.group)).softmax(-1).flatten(-2)


def side_by_side(*parts: Tensor) -> Tensor:
    """Concatenated along the last dimension, the input of a first layer.

    On a GPU fused layers get zeros behind it up to a multiple of 8, since products over other sizes
    run on slow kernels.
    """
    x = torch.cat(parts, -1)
    return F.pad(x, (0, -x.shape[-1] % 8)) if x.is_cuda and runs_fused(x) else x


def _widened(weight: Tensor, x: Tensor) -> Tensor:
    """The weight with zeros for what :func:`side_by_side` added to its input."""
    extra = x.shape[-1] - weight.shape[-1]
    return F.pad(weight, (0, extra)) if extra else weight


class NormedLinear(nn.Linear):
    """Linear, LayerNorm, then an activation (Mish unless another is given).

    Attributes:
        change: what is added to the product of input and weight, given the input; None for nothing.
    """

    def __init__(self, inputs: int, outputs: int, act: nn.Module | None = None) -> None:
        super().__init__(inputs, outputs)
        self.change: nn.Module | None = None
        self.ln = nn.LayerNorm(outputs)
        self.act = act if act is not None else Mish()

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs), of ``dtype`` if that is given and the layer is fused."""
        if isinstance(self.act, Mish | SimNorm) and runs_fused(x):
            return self._fused(x, dtype)
        return self.act(self.ln(at_least_float32(_changed(self.change, x, super().forward(x)))))

    def _fused(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        y = _changed(self.change, x, F.linear(x, _widened(self.weight, x)))
        simplex = self.act.group if isinstance(self.act, SimNorm) else 0
        flat = normed_activation(
            y.reshape(1, -1, 1, y.shape[-1]),
            self.ln.weight.unsqueeze(0),
            self.ln.bias.unsqueeze(0),
            linear_bias=self.bias.unsqueeze(0),
            simplex=simplex,
            dtype=dtype or (torch.float32 if simplex else y.dtype),
        )
        return flat.view(y.shape)


def _changed(change: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
    """A layer's product ``y`` of an input with what is added to it, if there is something."""
    return y if change is None else y + change(x)


def _taller(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """With zeros for further outputs, up to a multiple of 8 of them, if there are more than 8."""
    outputs = weight.shape[-2]
    extra = -outputs % 8 if outputs > 8 else 0
    return F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra))


class OutputLinear(nn.Linear):
    """Linear without activation; see :func:`side_by_side` for sizes on a GPU.

    Attributes:
        change: as that of :class:`NormedLinear`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.change: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if x.is_cuda and runs_fused(x):
            y = F.linear(x, *_taller(self.weight, self.bias))[..., : self.out_features]
        else:
            y = super().forward(x)
        return _changed(self.change, x, y)


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, act: nn.Module | None = None
) -> nn.Sequential:
    """Normed hidden layers, then a plain linear layer, or a normed one if ``act`` is given."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = [NormedLinear(i, o) for i, o in pairwise(sizes)]
    last = NormedLinear(sizes[-1], outputs, act) if act else OutputLinear(sizes[-1], outputs)
    return nn.Sequential(*layers, last)


class StackedLayerNorm(nn.Module):
    """N independent LayerNorms over the last dimension of (G, n, N / G, features)."""

    def __init__(self, stack: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(stack, features))
        self.bias = nn.Parameter(torch.zeros(stack, features))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """(G, n, N / G, features) to the same shape."""
        shape = len(x), 1, *x.shape[2:]
        weight, bias = _chosen(members, self.weight, self.bias)
        normed = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(bias.view(shape), normed, weight.view(shape))


class StackedLinear(nn.Module):
    """N linear layers as one batched matrix product, optionally with LayerNorm and Mish.

    The input is (G, n, inputs) with G dividing N: group g feeds networks g N/G ... (g+1) N/G - 1,
    so that an ensemble reads one shared input without copying it.
    """

    def __init__(
        self, stack: int, inputs: int, outputs: int, normed: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(stack, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(stack, outputs))
        self.ln = StackedLayerNorm(stack, outputs) if normed else None
        self.dropout = dropout
        self.fused_dtype: torch.dtype | None = None  # of fused results; that of products if None

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """(G, n, inputs) -> (N, n, outputs); only networks ``members`` if they are given."""
        weight, bias = _chosen(members, self.weight, self.bias)
        stack, outputs, inputs = weight.shape
        groups, each = len(x), stack // len(x)
        if self.ln is not None and runs_fused(x):
            return self._fused(self.ln, x, weight, bias, members)
        if x.is_cuda and runs_fused(x) and groups == stack:
            taller, longer = _taller(weight, bias)
            return torch.baddbmm(longer.unsqueeze(1), x, taller.transpose(1, 2))[..., :outputs]
        weight = weight.reshape(groups, each * outputs, inputs)
        bias = bias.reshape(groups, 1, each * outputs)
        if groups == 1:
            y = F.linear(x, weight[0], bias[0, 0])
        else:
            y = torch.baddbmm(bias, x, weight.transpose(1, 2))
        y = y.unflatten(-1, (each, outputs))
        if self.dropout:
            y = F.dropout(y, self.dropout, self.training)
        if self.ln is not None:
            y = mish(self.ln(at_least_float32(y), members))
        return y.transpose(1, 2).reshape(stack, -1, outputs)

    def _fused(
        self,
        norm: StackedLayerNorm,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        members: Tensor | None,
    ) -> Tensor:
        groups, (stack, outputs, _) = len(x), weight.shape
        weight = _widened(weight, x).reshape(groups, -1, x.shape[-1])
        y = F.linear(x, weight[0]) if groups == 1 else torch.bmm(x, weight.transpose(1, 2))
        y = y.unflatten(-1, (stack // groups, outputs))
        linear_bias: Tensor | None = bias
        if self.dropout and self.training:
            y = F.dropout(y + bias.view(groups, 1, -1, outputs).to(y.dtype), self.dropout)
            linear_bias = None
        return normed_activation(
            y,
            *_chosen(members, norm.weight, norm.bias),
            linear_bias=linear_bias,
            dtype=self.fused_dtype,
        )


def _chosen(members: Tensor | None, *parameters: Tensor) -> tuple[Tensor, ...]:
    return parameters if members is None else tuple(p[members] for p in parameters)


class StackedMLP(nn.Sequential):
    """N MLPs of one shape: (G, n, inputs) -> (N, n, outputs); see :class:`StackedLinear` for G.

    Args:
        stack: N.
        inputs: size of the input.
        hidden: sizes of the hidden layers, which have LayerNorm and Mish.
        outputs: size of the output.
        dropout: probability after the first linear map, in training mode.
    """

    def __init__(
        self,
        stack: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        dropout: float = 0.0,
    ) -> None:
        sizes = [inputs, *hidden, outputs]
        last = len(sizes) - 2
        super().__init__(
            *(
                StackedLinear(
                    stack, sizes[i], sizes[i + 1], normed=i < last, dropout=0 if i else dropout
                )
                for i in range(last + 1)
            )
        )
        self.apply(init_weights)

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """All N networks' outputs, or those of ``members`` (M,) alone, which cost M / N as much."""
        for layer in self:
            x = layer(x, members)
        return x

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype


def init_weights(module: nn.Module) -> None:
    """TD-MPC2's initialization: truncated normal weights (std 0.02), zero biases."""
    if isinstance(module, nn.Linear | StackedLinear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -0.02, 0.02)
