"""The Triton kernels of :mod:`pwm.runtime.kernels.normed_activation`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 1056  # that sum parameters' gradients: enough for all multiprocessors
_ENTRIES = 2048  # of a tile of rows, in which narrow rows share a program
_WARPS = 4


@triton.jit
def _biased(x, linear_bias, at, with_bias, mask, HAS_BIAS: tl.constexpr):
    a = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        a += tl.load(linear_bias + with_bias, mask=mask, other=0.0).to(tl.float32)
    return a


@triton.jit
def normed_activation_forward(
    x, linear_bias, weight, bias, out, mean, rstd, n, each, width, bias_rows, epsilon,
    HAS_BIAS: tl.constexpr, SIMPLEX: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A tile of rows of one network; see :func:`forward`."""
    network = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    w = tl.arange(0, BLOCK)[None, :]
    inside = i < n
    mask = inside[:, None] & (w < width)
    row = (network // each * n + i) * each + network % each
    with_bias = (network * (n // bias_rows) + i // bias_rows)[:, None] * width + w
    a = _biased(x, linear_bias, row[:, None] * width + w, with_bias, mask, HAS_BIAS)
    m = tl.sum(a, 1) / width
    centered = tl.where(mask, a - m[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centered * centered, 1) / width + epsilon)
    gain = tl.load(weight + network * width + w, mask=w < width, other=0.0)
    shift = tl.load(bias + network * width + w, mask=w < width, other=0.0)
    z = centered * scale[:, None] * gain + shift
    if SIMPLEX == 0:
        q = tl.exp(tl.minimum(z, 30.0))
        q2 = q * (q + 2.0)
        y = z * (q2 / (q2 + 2.0))
    else:
        logits = tl.reshape(z, (TILE, BLOCK // SIMPLEX, SIMPLEX))
        q = tl.exp(logits - tl.max(logits, 2)[:, :, None])
        y = tl.reshape(q / tl.sum(q, 2)[:, :, None], (TILE, BLOCK))
    tl.store(mean + row, m, mask=inside)
    tl.store(rstd + row, scale, mask=inside)
    tl.store(out + (network * n + i)[:, None] * width + w, y, mask=mask)


@triton.jit
def normed_activation_backward(
    d_out, x, linear_bias, weight, bias, out, mean, rstd, dx, partial,
    n, each, width, bias_rows, parts, TILES: tl.constexpr,
    HAS_BIAS: tl.constexpr, SIMPLEX: tl.constexpr, SUMS: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """TILES tiles of one network, and the sums over their rows; see :func:`backward`."""
    network, part = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    w = tl.arange(0, BLOCK)[None, :]
    gain = tl.load(weight + network * width + w, mask=w < width, other=0.0)
    shift = tl.load(bias + network * width + w, mask=w < width, other=0.0)
    d_gain = tl.zeros((TILE, BLOCK), tl.float32)
    d_shift = tl.zeros((TILE, BLOCK), tl.float32)
    d_linear = tl.zeros((TILE, BLOCK), tl.float32)
    for k in range(TILES):
        i = (part * TILES + k) * TILE + tl.arange(0, TILE)
        inside = i < n
        mask = inside[:, None] & (w < width)
        row = (network // each * n + i) * each + network % each
        to = (network * n + i)[:, None] * width + w
        with_bias = (network * (n // bias_rows) + i // bias_rows)[:, None] * width + w
        a = _biased(x, linear_bias, row[:, None] * width + w, with_bias, mask, HAS_BIAS)
        m = tl.load(mean + row, mask=inside, other=0.0)[:, None]
        scale = tl.load(rstd + row, mask=inside, other=0.0)[:, None]
        normed = tl.where(mask, (a - m) * scale, 0.0)
        d = tl.load(d_out + to, mask=mask, other=0.0).to(tl.float32)
        if SIMPLEX == 0:
            z = normed * gain + shift
            q = tl.exp(tl.minimum(z, 30.0))
            q2 = q * (q + 2.0)
            gate = q2 / (q2 + 2.0)
            d = d * (gate + z * (1.0 - gate * gate) * (q / (q + 1.0)))
        else:
            y = tl.load(out + to, mask=mask, other=0.0).to(tl.float32)
            share = tl.reshape(d * y, (TILE, BLOCK // SIMPLEX, SIMPLEX))
            dot = tl.broadcast_to(tl.sum(share, 2)[:, :, None], (TILE, BLOCK // SIMPLEX, SIMPLEX))
            d = y * (d - tl.reshape(dot, (TILE, BLOCK)))
        if SUMS:
            d_gain += d * normed
            d_shift += d
        d = d * gain
        along = tl.sum(d, 1)[:, None] / width
        across = tl.sum(d * normed, 1)[:, None] / width
        d = tl.where(mask, (d - along - normed * across) * scale, 0.0)
        if SUMS:
            d_linear += d
        tl.store(dx + row[:, None] * width + w, d, mask=mask)
    if SUMS:
        v = tl.arange(0, BLOCK)
        to = (network * parts + part) * width + v
        kind = tl.num_programs(1).to(tl.int64) * parts * width
        tl.store(partial + to, tl.sum(d_gain, 0), mask=v < width)
        tl.store(partial + to + kind, tl.sum(d_shift, 0), mask=v < width)
        tl.store(partial + to + 2 * kind, tl.sum(d_linear, 0), mask=v < width)


def _bias_rows(n: int, linear_bias: Tensor | None) -> int:
    """How many of the n rows share a linear bias."""
    return n if linear_bias is None or linear_bias.dim() == 2 else n // linear_bias.shape[1]


def _tile(width: int) -> dict[str, int]:
    """How many rows a program takes at once, of how many entries, and its warps."""
    block = triton.next_power_of_2(width)
    return {"TILE": max(1, _ENTRIES // block), "BLOCK": block, "num_warps": _WARPS}


def forward(
    x: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    simplex: int,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(G, n, E, width) to (G E, n, width) of ``dtype``, the rows' means and inverse deviations."""
    groups, n, each, width = x.shape
    out = x.new_empty(groups * each, n, width, dtype=dtype)
    mean = x.new_empty(groups, n, each, dtype=torch.float32)
    rstd = torch.empty_like(mean)
    tile = _tile(width)
    normed_activation_forward[(triton.cdiv(n, tile["TILE"]), groups * each)](
        x, linear_bias, weight, bias, out, mean, rstd,
        n, each, width, _bias_rows(n, linear_bias), epsilon,
        HAS_BIAS=linear_bias is not None, SIMPLEX=simplex, **tile,
    )  # fmt: skip
    return out, mean, rstd


def backward(
    d_out: Tensor,
    x: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    moments: tuple[Tensor, Tensor],
    simplex: int,
    parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, and if asked for (3, G E, width): of weight, bias and linear bias."""
    _, n, each, width = x.shape
    networks = len(weight)
    tile = _tile(width)
    rows = -(-n * networks // _PROGRAMS) if parameters else 1
    tiles = triton.next_power_of_2(triton.cdiv(rows, tile["TILE"]))
    parts = triton.cdiv(n, tiles * tile["TILE"])
    dx = torch.empty_like(x)
    shape = (3, networks, parts, width) if parameters else (0,)
    partial = x.new_empty(shape, dtype=torch.float32)
    normed_activation_backward[(parts, networks)](
        d_out, x, linear_bias, weight, bias, out, *moments, dx, partial,
        n, each, width, _bias_rows(n, linear_bias), parts, TILES=tiles,
        HAS_BIAS=linear_bias is not None, SIMPLEX=simplex, SUMS=parameters, **tile,
    )  # fmt: skip
    return dx, partial.sum(2) if parameters else None
