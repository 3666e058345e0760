"""Rollouts of K tasks' actors in frozen world models.

Dynamics and reward are rearranged for K fixed tasks: the same function, less work. A task's
embedding is folded into the first layers' bias, and dynamics and reward, which read the same input,
share one first product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.extraction.config import ActorCriticConfig
from pwm.models.actor_critic import Actors
from pwm.models.layers import NormedLinear, mish
from pwm.models.math import at_least_float32, expected_bin, pessimistic_mean, symexp
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Accelerator


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


class PolicyStep(NamedTuple):
    """One imagined step of K tasks' actors."""

    action: Tensor  # (K, B, action_dim)
    latent: Tensor  # (K, B, latent), where the step leads
    reward_features: Tensor  # (K, B, h)


class ImaginedRollout(NamedTuple):
    """Imagined by the actors in the world model, time first."""

    latents: Tensor  # (H+1, K, B, latent)
    rewards: Tensor  # (H, K, B), in the units that critics learn in
    continuation: Tensor | None = None  # (H, K, B), probability that a step does not end it


class Outcome(NamedTuple):
    """What a world model predicts of a rollout, time first."""

    rewards: Tensor  # (H, K, B)
    continuation: Tensor | None  # (H, K, B)


class Imagination:
    """Rolls K tasks' actors out in a frozen world model, differentiably.

    Args:
        model: the world model, in which actions are chosen.
        task_ids: (K,), of the model's suite.
        config: its gradients' path, rewards' units and weight of disagreement.
        accelerator: compiles what a step does.
        ensemble: further frozen world models of the same suite. Each predicts the rewards of the
            same actions from its own latents; where predictions disagree, rewards are lowered.
            Of predicted terminations the mean is taken.
    """

    def __init__(
        self,
        model: WorldModel,
        task_ids: Tensor,
        config: ActorCriticConfig,
        accelerator: Accelerator,
        ensemble: Sequence[WorldModel] = (),
    ) -> None:
        self._model, self._task_ids, self._config = model, task_ids, config
        self._ensemble = list(ensemble)
        self._policy_step = accelerator.compile(policy_step)
        self._imagine_step = accelerator.compile(imagine_step)
        self._imagined_reward = accelerator.compile(imagined_reward)
        self._continuation = accelerator.compile(continuation)

    def roll_out(
        self,
        actors: Actors,
        start: Tensor,
        noise: Tensor,
        ensemble_start_latents: Sequence[Tensor] = (),
    ) -> ImaginedRollout:
        """H steps of the actors from start states.

        Args:
            actors: of the K tasks.
            start: (K, B, latent).
            noise: (H, K, B, action_dim) standard normal.
            ensemble_start_latents: the start states as latents of the ensemble's further models,
                each (K, B, that model's latent).
        """
        folded = fold(self._model, self._task_ids)
        z, latents, actions, features = start, [start], [], []
        for step_noise in noise:
            actor_input = z.detach() if self._config.detach_actor_input else z
            step = self._policy_step(actors, self._model, folded, z, actor_input, step_noise)
            z = step.latent
            latents.append(z)
            actions.append(step.action)
            features.append(step.reward_features)
        whole = torch.stack(latents)
        outcome = self._outcome(self._model, whole[1:], features)
        if self._ensemble:
            others = [
                self._ensemble_outcome(model, z, actions)
                for model, z in zip(self._ensemble, ensemble_start_latents, strict=True)
            ]
            outcome = self._combined([outcome, *others])
        return ImaginedRollout(whole, outcome.rewards, outcome.continuation)

    def _ensemble_outcome(self, model: WorldModel, z: Tensor, actions: Sequence[Tensor]) -> Outcome:
        """What the same actions lead to in another world model."""
        folded = fold(model, self._task_ids)
        latents, features = [], []
        for action in actions:
            z, reward_features = self._imagine_step(model, folded, z, action)
            latents.append(z)
            features.append(reward_features)
        return self._outcome(model, torch.stack(latents), features)

    def _outcome(self, model: WorldModel, latents: Tensor, features: Sequence[Tensor]) -> Outcome:
        rewards = self._imagined_reward(model, torch.stack(list(features)))
        if self._config.reward_units == "real":
            rewards = symexp(rewards)
        goes_on = None
        if model.episodic:
            goes_on = self._continuation(model, latents, self._task_ids)
        return Outcome(rewards, goes_on)

    def _combined(self, outcomes: Sequence[Outcome]) -> Outcome:
        coef = self._config.ensemble.uncertainty_coef
        rewards = pessimistic_mean(torch.stack([outcome.rewards for outcome in outcomes]), coef)
        goes_on = [o.continuation for o in outcomes if o.continuation is not None]
        return Outcome(rewards, torch.stack(goes_on).mean(0) if goes_on else None)


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


def imagine_step(model: WorldModel, folded: FirstLayers, z: Tensor, action: Tensor) -> Imagined:
    """One step of latent dynamics: (K, B, latent), (K, B, action_dim)."""
    base = F.linear(action, folded.action_weight) + folded.bias
    joint = torch.addmm(base.flatten(0, 1), z.flatten(0, 1), folded.latent_weight.T)
    hidden = at_least_float32(joint).view(*z.shape[:2], *folded.norm_weight.shape)
    normed = F.layer_norm(hidden, hidden.shape[-1:])
    dynamics, reward = mish(torch.addcmul(folded.norm_bias, normed, folded.norm_weight)).unbind(-2)
    return Imagined(_after_first(model.dynamics, dynamics), reward)


def policy_step(
    actors: Actors,
    model: WorldModel,
    folded: FirstLayers,
    z: Tensor,
    actor_input: Tensor,
    noise: Tensor,
) -> PolicyStep:
    """Act on ``actor_input``, which is z with or without its gradient, and imagine the step."""
    action = actors(actor_input, noise)
    return PolicyStep(action, *imagine_step(model, folded, z, action))


def imagined_reward(model: WorldModel, features: Tensor) -> Tensor:
    """Expected rewards in symlog units: (..., h) -> (...)."""
    return expected_bin(_after_first(model.reward_head, features), model.bins)


def continuation(model: WorldModel, latents: Tensor, task_ids: Tensor) -> Tensor:
    """Probabilities that episodes of tasks (K,) go on: (H, K, B, latent) -> (H, K, B)."""
    return model.continuation(latents, task_ids.unsqueeze(1))


def _first(net: nn.Sequential) -> NormedLinear:
    layer = net[0]
    assert isinstance(layer, NormedLinear)
    return layer


def _after_first(net: nn.Sequential, x: Tensor) -> Tensor:
    for layer in islice(net, 1, None):
        x = layer(x)
    return x
