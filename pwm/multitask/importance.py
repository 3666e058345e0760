"""Which parts of a model matter for some tasks, and training those alone.

The importance of a weight for a task is its diagonal Fisher information: the mean over samples of
the squared gradient of a sample's loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

_FLOOR = 1e-3  # of the mean information of others, which a weight of no use to them counts with


def fisher(parameters: Sequence[nn.Parameter], losses: Iterable[Tensor]) -> list[Tensor]:
    """The diagonal Fisher information of some parameters, each of its parameter's shape.

    Args:
        parameters: of the model.
        losses: each of one sample; the next is taken when the gradient of the last is.
    """
    total, count = [torch.zeros_like(parameter) for parameter in parameters], 0
    for loss in losses:
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        for sum_, grad in zip(total, grads, strict=True):
            if grad is not None:
                sum_ += grad.square()
        count += 1
    return [sum_ / max(count, 1) for sum_ in total]


class Units:
    """The outputs of linear layers, each with its weights, bias and normalization.

    Args:
        layers: by name, with a ``weight`` of (..., outputs, inputs); all other parameters in them
            have an entry an output.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self._layers = dict(layers)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of all layers."""
        return [parameter for layer in self._layers.values() for parameter in layer.parameters()]

    def chosen(
        self, target: Sequence[Tensor], others: Sequence[Tensor] | None, part: float, by: str
    ) -> dict[str, Tensor]:
        """Which units matter most for some tasks, (..., outputs) bool by layer.

        The score of a unit, or of a layer, is the target tasks' mean information of its weights
        over that of the others. The best of them are chosen until they have the share ``part`` of
        all weights.

        Args:
            target: information of :attr:`parameters`.
            others: likewise; None to go by the target tasks' alone.
            part: share of the weights.
            by: ``layer`` or ``unit``.
        """
        wanted, sizes = self._sums(target), self._sums([torch.ones_like(f) for f in target])
        unwanted = None if others is None else self._sums(others)
        if by == "layer":
            wanted, sizes = _by_layer(wanted), _by_layer(sizes)
            unwanted = None if unwanted is None else _by_layer(unwanted)
        size = torch.cat([value.flatten() for value in sizes])
        score = torch.cat([value.flatten() for value in wanted]) / size
        if unwanted is not None:
            other = torch.cat([value.flatten() for value in unwanted]) / size
            score = score / (other + _FLOOR * other.mean()).clamp(min=torch.finfo(other.dtype).tiny)
        taken = _taken(score, size, part).split([value.numel() for value in wanted])
        shapes = self._sums(target)
        return {
            name: mask.view_as(value).expand_as(whole)
            for name, mask, value, whole in zip(self._layers, taken, wanted, shapes, strict=True)
        }

    def train_only(self, chosen: Mapping[str, Tensor]) -> None:
        """Have training change the chosen units alone, (..., outputs) bool by layer."""
        for name, layer in self._layers.items():
            mask = chosen[name]
            for own, parameter in layer.named_parameters():
                entries = mask.unsqueeze(-1) if own == "weight" else mask
                parameter.requires_grad_(bool(mask.any()))
                if mask.any() and not mask.all():
                    keep_only(parameter, entries)

    def _sums(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Of values like the parameters the sums over each unit's, (..., outputs) by layer."""
        left, sums = iter(values), []
        for layer in self._layers.values():
            own = [
                next(left).sum(-1) if name == "weight" else next(left)
                for name, _ in layer.named_parameters()
            ]
            sums.append(torch.stack(own).sum(0))
        return sums


def keep_only(parameter: nn.Parameter, entries: Tensor) -> None:
    """Have gradients of a parameter be zero apart from some entries, a mask that broadcasts.

    Adam, without a decay of weights, then leaves the others as they are.
    """
    parameter.register_hook(lambda grad: torch.where(entries, grad, 0.0))


def _by_layer(sums: Sequence[Tensor]) -> list[Tensor]:
    return [value.sum().view([1] * value.ndim) for value in sums]


def _taken(score: Tensor, size: Tensor, part: float) -> Tensor:
    """Mask of the highest scores whose sizes reach a part of the sum of all."""
    order = score.argsort(descending=True, stable=True)
    before = size[order].cumsum(0) - size[order]
    taken = torch.zeros_like(score, dtype=torch.bool)
    taken[order] = before < part * size.sum()
    return taken
