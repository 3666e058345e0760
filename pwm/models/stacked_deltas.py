"""Low-rank changes of a layer's weight, several sets side by side, each for some of its rows.

The layer adds to its products what the changes add to them, so its weight is there once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of rows (..., n, inputs), with factors (G, rank, inputs) and (G, outputs, rank)."""


class StackedDeltas(nn.Module):
    """G sets of changes of a weight, (outputs, inputs).

    Args:
        into: factors (G, rank, inputs).
        out: factors (G, outputs, rank).
        scale: a factor on the changes.
        product: says of which rows each set is.
    """

    def __init__(self, into: Tensor, out: Tensor, scale: float, product: Product) -> None:
        super().__init__()
        self.into, self.out = nn.Parameter(into), nn.Parameter(out)
        self.scale, self._product = scale, product

    @classmethod
    def none_yet(
        cls, weight: Tensor, sets: int, rank: int, scale: float, product: Product
    ) -> StackedDeltas:
        """So many sets of changes of a weight, of a rank, that begin alike and as none."""
        outputs, inputs = weight.shape
        into = nn.init.normal_(weight.new_empty(rank, inputs), std=inputs**-0.5)
        out = weight.new_zeros(sets, outputs, rank)
        return cls(into.repeat(sets, 1, 1), out, scale, product)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the product of the weight and (..., n, inputs)."""
        extra = x.shape[-1] - self.into.shape[-1]  # zeros that fused layers have behind their input
        into = F.pad(self.into, (0, extra)) if extra else self.into
        return self.scale * self._product(x, into, self.out)

    def squared_norms(self) -> Tensor:
        """(G,) sums of the squared entries of each set's change of the weight."""
        with torch.autocast(self.into.device.type, enabled=False):
            grams = self.out.transpose(1, 2) @ self.out, self.into @ self.into.transpose(1, 2)
        return self.scale**2 * (grams[0] * grams[1]).sum((1, 2))


def each_with_its_own(x: Tensor, into: Tensor, out: Tensor) -> Tensor:
    """A product of rows (..., G, n, inputs), as many of each set, to (..., G, n, outputs)."""
    return torch.einsum("...gnr,gor->...gno", torch.einsum("...gni,gri->...gnr", x, into), out)


class RowGroups:
    """The groups that rows belong to; said before the layers are called.

    Args:
        groups: G.
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._now: _Now | None = None

    @contextmanager
    def of(self, rows: Tensor, even: bool = False) -> Iterator[None]:
        """Inside, rows (..., n, inputs) are of the groups (n,).

        Args:
            rows: numbers below G, or G for rows of none; in any order.
            even: whether rows of the first group come first, and so on, and as many of each.
        """
        before, self._now = self._now, _Now(rows, self._groups, even)
        try:
            yield
        finally:
            self._now = before

    @property
    def now(self) -> _Now:
        """What holds inside of :meth:`of`."""
        assert self._now is not None, "the groups of rows are not said"
        return self._now

    def product(self, x: Tensor, into: Tensor, out: Tensor) -> Tensor:
        """A product of each row with the set of its group.

        Unless they are even, with every set, of which that is kept.
        """
        sets, rank, _ = into.shape
        if self.now.even:
            return each_with_its_own(x.unflatten(-2, (sets, -1)), into, out).flatten(-3, -2)
        narrow = F.linear(x, into.flatten(0, 1)).unflatten(-1, (sets, rank))
        narrow = (narrow * self.now.is_of.to(narrow.dtype).unsqueeze(-1)).flatten(-2)
        return F.linear(narrow, out.transpose(0, 1).flatten(1))


class _Now:
    """Rows of groups, (n,), and what is worked out of them once."""

    def __init__(self, rows: Tensor, groups: int, even: bool) -> None:
        self._rows, self._groups, self.even = rows, groups, even

    @cached_property
    def is_of(self) -> Tensor:
        """(n, G), 1 for the group of a row and else 0."""
        return F.one_hot(self._rows, self._groups + 1)[:, :-1]

    @cached_property
    def order(self) -> Tensor:
        """(n,) the rows by group."""
        return self._rows.argsort(stable=True)

    @cached_property
    def places(self) -> Tensor:
        """(n,) where each row is in :attr:`order`."""
        return self.order.argsort()

    @cached_property
    def counts(self) -> list[int]:
        """Rows of each group."""
        return torch.bincount(self._rows, minlength=self._groups).tolist()
