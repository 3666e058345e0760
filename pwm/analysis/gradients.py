"""Inner products of the tasks' gradients by every layer that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pwm.data.windows.sampler import Batch
from pwm.models.world_model import WorldModel
from pwm.multitask.relations import products

Layers = dict[str, list[nn.Parameter]]
_MOST_BYTES = 2**30  # of gradients that are held at once


def shared_layers(model: WorldModel) -> Layers:
    """Weights that the losses of all tasks depend on, by layer such as ``dynamics.0``."""
    nets = ["encoder", "dynamics", "reward_head", *(["termination_head"] if model.episodic else [])]
    layers: Layers = {}
    for name, parameter in model.named_parameters():
        net, *rest = name.split(".")
        if net in nets:
            layers.setdefault(f"{net}.{rest[0]}", []).append(parameter)
    return layers


def gradient_products(
    layers: Layers,
    batches: Sequence[Batch],
    loss: Callable[[Batch], Tensor],
    parts: int,
    done: Callable[[], object] = lambda: None,
) -> dict[str, np.ndarray]:
    """The products of the gradients of all parts of all tasks, (K, P, K, P), by layer.

    Layers are gone through a few at a time where all gradients together would take much memory.

    Args:
        layers: what to take gradients by.
        batches: K, of a task each.
        loss: of a batch.
        parts: P, that each batch is divided into.
        done: called after each pass over a task.
    """
    found: dict[str, np.ndarray] = {}
    for names in _portions(layers, 4 * len(batches) * parts):
        rows = [_rows([layers[n] for n in names], batch, loss, parts, done) for batch in batches]
        for position, name in enumerate(names):
            found[name] = products(torch.stack([each[position] for each in rows]))
    return found


def passes(layers: Layers, tasks: int, parts: int) -> int:
    """How often :func:`gradient_products` goes through the windows."""
    return len(_portions(layers, 4 * tasks * parts))


def _portions(layers: Layers, bytes_a_weight: int) -> list[list[str]]:
    portions: list[list[str]] = []
    room = 0
    for name, parameters in layers.items():
        size = bytes_a_weight * sum(parameter.numel() for parameter in parameters)
        if not portions or size > room:
            portions.append([])
            room = _MOST_BYTES
        portions[-1].append(name)
        room -= size
    return portions


def _rows(
    layers: list[list[nn.Parameter]],
    batch: Batch,
    loss: Callable[[Batch], Tensor],
    parts: int,
    done: Callable[[], object],
) -> list[Tensor]:
    """By layer, the gradients of a task's parts, (P, n)."""
    flat = [parameter for layer in layers for parameter in layer]
    sizes = [sum(parameter.numel() for parameter in layer) for layer in layers]
    rows = []
    for windows in torch.arange(len(batch.task), device=batch.task.device).tensor_split(parts):
        grads = torch.autograd.grad(loss(batch.part(windows)), flat)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    done()
    return list(torch.stack(rows).split(sizes, 1))
