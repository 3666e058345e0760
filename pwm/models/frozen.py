"""Networks whose weights get no gradients: what every call of an update shares is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pwm.models.layers import StackedLinear


def in_product_precision(x: Tensor) -> Tensor:
    """In what matrix products round their inputs to by themselves, once for all of them."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def with_frozen_weights(net: nn.Module) -> Callable[..., Any]:
    """A network as a function without gradients of its weights, which are rounded only once."""
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | StackedLinear):
            key = f"{name}.weight" if name else "weight"
            weights[key] = in_product_precision(weights[key])
    return lambda *inputs, **options: functional_call(net, weights, inputs, options)
