"""How many tasks' policies can be learned at once in the memory there is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pwm.extraction.learner import ActorCriticConfig
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.memory import free_memory

_SHARE = 0.7  # of the free memory; the rest is for pools of start states, caches and fragments
_MOST_ON_CPU = 16  # beyond this, products are large enough and more tasks only wait for each other


def largest_group(
    model: WorldModel, config: ActorCriticConfig, tasks: int, others: Sequence[WorldModel] = ()
) -> int:
    """The size of equal groups, as few as fit the free memory of the model's device, at least 1.

    Args:
        model: the world model, on the device that learns.
        config: of the iterations.
        tasks: how many there are to share out.
        others: the further world models of an ensemble.
    """
    device = model.bins.device
    if device.type == "cuda":
        free, most = torch.cuda.mem_get_info(device)[0], tasks
    else:
        free, most = free_memory(), _MOST_ON_CPU
    fitting = int(_SHARE * free / bytes_a_task(model, config, others))
    largest = max(1, min(fitting, most))
    groups = max(1, -(-tasks // largest))
    return max(1, -(-tasks // groups))


def bytes_a_task(
    model: WorldModel, config: ActorCriticConfig, others: Sequence[WorldModel] = ()
) -> int:
    """An upper estimate of one task's share of an eager iteration's memory, in bytes.

    What autograd keeps of a rollout: a normalized layer keeps about six values a unit (its sum,
    its normalized sum, and what Mish's derivative needs).
    """
    size, nets = model.size, config.networks
    kept = 6 * sum(nets.actor) + sum(_kept_a_step(world.size) for world in (model, *others))
    rollout = config.horizon * config.batch_size * kept
    states = config.horizon * config.batch_size * nets.critics * 6 * sum(nets.critic)
    parameters = 6 * nets.critics * (size.latent_dim + sum(nets.critic)) * max(nets.critic)
    return 4 * (rollout + states + parameters)


def _kept_a_step(size: ModelSize) -> int:
    """Values that one imagined step of dynamics and reward keeps."""
    return 6 * 4 * size.mlp_dim + 6 * size.latent_dim + 4 * size.num_bins
