"""Fine-tuning by low-rank changes of weights (LoRA, Hu et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pwm.models.low_rank import BASE, FACTORS, LowRankDelta, merged
from pwm.models.stacked_deltas import StackedDeltas
from pwm.multitask.changes import Changes


class LowRankDeltas(Changes):
    """Changes of the weights of some layers of a model, which train in place of the weights.

    The model computes with the changed weights from here on, and everything in it but the changes
    is frozen. In checkpoints are the changes, by the names that
    :func:`pwm.models.low_rank.on_its_base` reads, and what is small.

    Args:
        model: whose tensors these are; it is changed.
        layers: with a ``weight`` of (..., outputs, inputs), by their names in the model.
        rank: of the changes.
        base: what :func:`pwm.models.low_rank.base_entry` says of the model as it is.
        small: names of tensors of the model that checkpoints have whole.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        rank: int,
        base: Mapping[str, Any],
        small: Collection[str],
    ) -> None:
        super().__init__(model)
        self._small, self.meta = tuple(small), {BASE: dict(base)}
        model.requires_grad_(False)
        self._deltas = {
            f"{name}.weight": self._change(layer, rank, float(base["scale"]))
            for name, layer in layers.items()
        }

    def _change(self, layer: nn.Module, rank: int, scale: float) -> LowRankDelta | StackedDeltas:
        """Have a layer compute with a changed weight."""
        assert isinstance(layer.weight, Tensor)
        delta = LowRankDelta(layer.weight.detach(), rank, scale)
        parametrize.register_parametrization(layer, "weight", delta, unsafe=True)
        return delta

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has of the model."""
        whole = self._model.state_dict()
        state = {name: whole[name] for name in self._small if name in whole}
        for name, delta in self._deltas.items():
            for factor, tensor in zip(FACTORS, (delta.into, delta.out), strict=True):
                state[name + factor] = tensor.detach()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        own = self.state_dict()
        for name, tensor in own.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def merged_state(self) -> dict[str, Tensor]:
        """The tensors of the model with its changes, as those of a model without any."""
        state = {}
        for name, tensor in self._model.state_dict().items():
            if ".parametrizations." not in name:
                state[name] = tensor
            elif name.endswith(".original"):
                plain = name.replace(".parametrizations", "").removesuffix(".original")
                delta = self._deltas[plain]
                state[plain] = merged(tensor, delta.into, delta.out, delta.scale)
        return state
