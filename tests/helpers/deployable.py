"""Tiny policies and world models of every kind that is deployed, with weights that matter."""

from __future__ import annotations

import torch

from pwm.core.suites import Suite, Task, get_task
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks
from pwm.models.policy import Policy
from pwm.models.world_model import ModelSize, WorldModel

ARM = Task("arm", "gymnasium", 3, 2, 20, 1, "Arm-v0", "{}", -1.0, 0.0, (0.0, -0.4), (10.0, 0.4))
UNKNOWN = Task("arm-of-before", "gymnasium", 3, 2, 20, 1, "Arm-v0", "{}", -1.0, 0.0)
CHEETAH = get_task("cheetah-run")  # whose observation has an angle without bound
SIZE = ModelSize(
    encoder_dim=12, mlp_dim=16, latent_dim=16, task_dim=4, num_bins=11, vmin=-2, vmax=2
)
ACTOR = ActorCriticSize(actor=[16, 8], critic=[])


def world_model(*tasks: Task, normalize_obs: bool = True) -> WorldModel:
    """A model with a termination head for tasks of several sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        suite = Suite("some", tasks)
        model = WorldModel(SIZE, suite, normalize_obs=normalize_obs, episodic=True)
        _stir(model)
        if normalize_obs:
            model.obs_mean.copy_(torch.randn_like(model.obs_mean))
            model.obs_scale.copy_(0.5 + torch.rand_like(model.obs_scale))
    return model.eval().requires_grad_(False)


def latent_policy(task: Task, normalize_obs: bool = True) -> Policy:
    """A policy with an encoder, whose observations and actions are padded."""
    model = world_model(get_task("mw-reach"), task, normalize_obs=normalize_obs)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        masks = action_masks(tuple(model.suite), model.suite.action_dim)
        actors = Actors(SIZE.latent_dim, masks, ACTOR)
        _stir(actors)
    return Policy.from_latent_actor(model, task, actors, 1, ACTOR)


def observation_policy(task: Task) -> Policy:
    """A policy without an encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        actors = Actors(39, action_masks([task], 6), ACTOR)
        _stir(actors)
        mean, scale = torch.randn(39), 0.5 + torch.rand(39)
    return Policy.from_observation_actor(task, mean, scale, actors, 0, ACTOR)


def _stir(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
