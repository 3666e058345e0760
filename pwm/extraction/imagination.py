"""Dynamics and reward rearranged for rollouts of K fixed tasks: the same function, less work.

A task's embedding is folded into the first layers' bias, and dynamics and reward, which read the
same input, share one first product.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.models.layers import NormedLinear, mish
from pwm.models.math import at_least_float32, expected_bin
from pwm.models.world_model import WorldModel


class FirstLayers(NamedTuple):
    """The first layers of dynamics and reward side by side, h units each, for K tasks."""

    latent_weight: Tensor  # (2 h, latent)
    action_weight: Tensor  # (2 h, action_dim)
    bias: Tensor  # (K, 1, 2 h), with the task embedding's part
    norm_weight: Tensor  # (2, h)
    norm_bias: Tensor  # (2, h)


class Imagined(NamedTuple):
    """One imagined step of K tasks."""

    latent: Tensor  # (K, B, latent), where the step leads
    reward_features: Tensor  # (K, B, h), what :func:`imagined_reward` takes


@torch.no_grad()
def fold(model: WorldModel, task_ids: Tensor) -> FirstLayers:
    """Rearrange a model's first layers for the tasks with ids (K,); cheap beside one rollout."""
    layers = _first(model.dynamics), _first(model.reward_head)
    weight = torch.cat([layer.weight for layer in layers])
    latent, task_dim = model.size.latent_dim, model.size.task_dim
    of_latent, of_task, of_action = weight.tensor_split([latent, latent + task_dim], 1)
    bias = torch.cat([layer.bias for layer in layers])
    return FirstLayers(
        of_latent.contiguous(),
        of_action.contiguous(),
        (bias + model.task_embedding(task_ids).to(bias.dtype) @ of_task.T).unsqueeze(1),
        torch.stack([layer.ln.weight for layer in layers]),
        torch.stack([layer.ln.bias for layer in layers]),
    )


def imagine_step(model: WorldModel, first: FirstLayers, z: Tensor, action: Tensor) -> Imagined:
    """One step of latent dynamics: (K, B, latent), (K, B, action_dim)."""
    base = F.linear(action, first.action_weight) + first.bias
    joint = torch.addmm(base.flatten(0, 1), z.flatten(0, 1), first.latent_weight.T)
    hidden = at_least_float32(joint).view(*z.shape[:2], *first.norm_weight.shape)
    normed = F.layer_norm(hidden, hidden.shape[-1:])
    dynamics, reward = mish(torch.addcmul(first.norm_bias, normed, first.norm_weight)).unbind(-2)
    return Imagined(_after_first(model.dynamics, dynamics), reward)


def imagined_reward(model: WorldModel, features: Tensor) -> Tensor:
    """Expected rewards in symlog units: (..., h) -> (...)."""
    return expected_bin(_after_first(model.reward_head, features), model.bins)


def _first(net: nn.Sequential) -> NormedLinear:
    layer = net[0]
    assert isinstance(layer, NormedLinear)
    return layer


def _after_first(net: nn.Sequential, x: Tensor) -> Tensor:
    for layer in islice(net, 1, None):
        x = layer(x)
    return x
