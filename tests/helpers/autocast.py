"""Whether autocast is on while gradients are computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def watch_backward(*modules: nn.Module) -> list[bool]:
    """A list that gets an entry for each gradient of a parameter: whether autocast was on."""
    seen: list[bool] = []

    def note(_: Tensor) -> None:
        seen.append(torch.is_autocast_enabled("cpu"))

    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_hook(note)
    return seen
