"""Rollouts of K tasks' actors in frozen world models.

Dynamics and reward are rearranged for K fixed tasks: the same function, less work. A task's
embedding is folded into the first layers' bias, and dynamics and reward, which read the same input,
share one first product. Layers may have low-rank changes that differ by task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.extraction.config import ActorCriticConfig
from pwm.models.frozen import in_product_precision, with_frozen_weights
from pwm.models.layers import NormedLinear
from pwm.models.math import expected_bin, mean_and_deviation, symexp
from pwm.models.stacked_deltas import StackedDeltas, each_with_its_own
from pwm.models.world_model import WorldModel
from pwm.runtime.kernels.normed_activation import normed_activation

Act = Callable[[Tensor, Tensor], Tensor]
"""Actions (K, B, action_dim) of K tasks' actors, given latents and standard normal noise."""


def act_without_weights(actors: nn.Module) -> Act:
    """The actors as a function whose results have gradients, and whose weights have none."""
    act = with_frozen_weights(actors)

    def differentiable(latent: Tensor, noise: Tensor) -> Tensor:
        action = act(latent, noise)
        return action if action.requires_grad else action.requires_grad_()

    return differentiable


class Factors(NamedTuple):
    """Low-rank changes of the weights of K tasks."""

    into: Tensor  # (K, rank, inputs)
    out: Tensor  # (K, outputs, rank)


class FirstLayers(NamedTuple):
    """The first layers of dynamics and reward side by side, h units each, for K tasks."""

    weight: Tensor  # (2 h, inputs), of latent, action and zeros up to a multiple of 8
    linear_bias: Tensor  # (2, K, h), with the task embedding's part
    norm_weight: Tensor  # (2, h)
    norm_bias: Tensor  # (2, h)
    change: Factors | None  # of the product with the weight, where it differs by task


class Folded(NamedTuple):
    """A world model rearranged for K tasks, for one rollout."""

    first: FirstLayers
    dynamics: list[Callable[..., Tensor]]  # the layers after the first: (..., h) -> (..., latent)
    zeros: Tensor  # (1, 1, inputs - latent - action_dim)


class Imagined(NamedTuple):
    """One imagined step of K tasks."""

    latent: Tensor  # (K, B, latent), where the step leads
    reward_features: Tensor  # (K, B, h), what :func:`imagined_reward` takes


class ImaginedRollout(NamedTuple):
    """Imagined by the actors in the world model, time first."""

    latents: Tensor  # (H+1, K, B, latent)
    rewards: Tensor  # (H, K, B), in the units that critics learn in
    actions: tuple[Tensor, ...]  # H of (K, B, action_dim)
    continuation: Tensor | None = None  # (H, K, B), probability that a step does not end it
    disagreement: Tensor | None = None  # (H, K, B), of an ensemble's rewards, in their units
    within: Tensor | None = None  # (H, K, B), 1 for steps up to where a rollout was cut, then 0
    modes: Tensor | None = None  # (K, n B, action_dim), what Q valued in the last n states

    @property
    def acted_in(self) -> Tensor:
        """(K, n, latent) states in which the actors were asked, without gradient."""
        return by_task(self.latents[:-1] if self.modes is None else self.latents)

    @property
    def counts(self) -> Tensor | None:
        """(K, H B), 1 for states from which a step was taken, and 0 where a rollout was cut."""
        return None if self.within is None else by_task(self.within)


class Outcome(NamedTuple):
    """What a world model predicts of a rollout, time first."""

    rewards: Tensor  # (H, K, B)
    continuation: Tensor | None  # (H, K, B)
    disagreement: Tensor | None = None  # (H, K, B)


class Imagination:
    """Rolls K tasks' actors out in a frozen world model, differentiably.

    Args:
        model: the world model, in which actions are chosen.
        task_ids: (K,), of the model's suite.
        config: its gradients' path, rewards' units and weight of disagreement.
        ensemble: further frozen world models of the same suite. Each predicts the rewards of the
            same actions from its own latents; where predictions disagree, rewards are lowered.
            Of predicted terminations the mean is taken.
    """

    def __init__(
        self,
        model: WorldModel,
        task_ids: Tensor,
        config: ActorCriticConfig,
        ensemble: Sequence[WorldModel] = (),
    ) -> None:
        self._model, self._task_ids, self._config = model, task_ids, config
        self._ensemble = list(ensemble)

    def roll_out(
        self,
        act: Act,
        start: Tensor,
        noise: Tensor,
        ensemble_start_latents: Sequence[Tensor] = (),
    ) -> ImaginedRollout:
        """H steps of the actors from start states.

        Args:
            act: the K tasks' actors.
            start: (K, B, latent).
            noise: (H, K, B, action_dim) standard normal.
            ensemble_start_latents: the start states as latents of the ensemble's further models,
                each (K, B, that model's latent).
        """
        folded = fold(self._model, self._task_ids)
        z = in_product_precision(start)
        latents, actions, features = [z], [], []
        for step_noise in noise:
            action = act(z.detach() if self._config.detach_actor_input else z, step_noise)
            z, reward_features = imagine_step(self._model, folded, z, action)
            latents.append(z)
            actions.append(action)
            features.append(reward_features)
        whole = torch.stack(latents)
        outcome = self._outcome(self._model, whole[1:], features)
        if self._ensemble:
            others = [
                self._ensemble_outcome(model, z, actions)
                for model, z in zip(self._ensemble, ensemble_start_latents, strict=True)
            ]
            outcome = self._combined([outcome, *others])
        return ImaginedRollout(
            whole, outcome.rewards, tuple(actions), outcome.continuation, outcome.disagreement
        )

    @torch.no_grad()
    def disagreement(self, latents: Sequence[Tensor], action: Tensor) -> Tensor:
        """(K, n) standard deviations of the models' rewards of given actions.

        Args:
            latents: the states in each model, (K, n, its latent).
            action: (K, n, action_dim).
        """
        task, models = self._task_ids.unsqueeze(1), (self._model, *self._ensemble)
        rewards = [
            self._in_units(model.symlog_reward(z, action, task))
            for model, z in zip(models, latents, strict=True)
        ]
        return mean_and_deviation(torch.stack(rewards))[1]

    def _ensemble_outcome(self, model: WorldModel, z: Tensor, actions: Sequence[Tensor]) -> Outcome:
        """What the same actions lead to in another world model."""
        folded, z = fold(model, self._task_ids), in_product_precision(z)
        latents, features = [], []
        for action in actions:
            z, reward_features = imagine_step(model, folded, z, action)
            latents.append(z)
            features.append(reward_features)
        return self._outcome(model, torch.stack(latents), features)

    def _outcome(self, model: WorldModel, latents: Tensor, features: Sequence[Tensor]) -> Outcome:
        rewards = self._in_units(imagined_reward(model, torch.stack(list(features))))
        goes_on = None
        if model.episodic:
            goes_on = continuation(model, latents, self._task_ids)
        return Outcome(rewards, goes_on)

    def _in_units(self, symlog_rewards: Tensor) -> Tensor:
        """Rewards in the units that critics learn in."""
        return symexp(symlog_rewards) if self._config.reward_units == "real" else symlog_rewards

    def _combined(self, outcomes: Sequence[Outcome]) -> Outcome:
        mean, deviation = mean_and_deviation(torch.stack([o.rewards for o in outcomes]))
        rewards = mean - self._config.ensemble.uncertainty_coef * deviation
        goes_on = [o.continuation for o in outcomes if o.continuation is not None]
        return Outcome(rewards, torch.stack(goes_on).mean(0) if goes_on else None, deviation)


@torch.no_grad()
def fold(model: WorldModel, task_ids: Tensor) -> Folded:
    """Rearrange a model for the tasks with ids (K,); cheap beside one rollout."""
    layers = _first(model.dynamics), _first(model.reward_head)
    weight = torch.cat([layer.weight for layer in layers])
    latent, task_dim = model.size.latent_dim, model.size.task_dim
    of_latent, of_task, of_action = weight.tensor_split([latent, latent + task_dim], 1)
    bias = torch.cat([layer.bias for layer in layers])
    embedding = model.task_embedding(task_ids).to(bias.dtype)
    bias = bias + embedding @ of_task.T
    joint = torch.cat([of_latent, of_action], 1)
    padding = -joint.shape[1] % 8
    change = _change(layers)
    if change is not None:
        of_latent, of_task, of_action = change.into.tensor_split([latent, latent + task_dim], 2)
        bias = bias + each_with_its_own(embedding.unsqueeze(1), of_task, change.out).squeeze(1)
        into = F.pad(torch.cat([of_latent, of_action], 2), (0, padding))
        change = Factors(in_product_precision(into), in_product_precision(change.out))
    first = FirstLayers(
        in_product_precision(F.pad(joint, (0, padding))),
        bias.view(len(task_ids), 2, -1).transpose(0, 1).contiguous(),
        torch.stack([layer.ln.weight for layer in layers]),
        torch.stack([layer.ln.bias for layer in layers]),
        change,
    )
    following = [with_frozen_weights(layer) for layer in islice(model.dynamics, 1, None)]
    return Folded(first, following, first.weight.new_zeros(1, 1, padding))


def _change(layers: Sequence[NormedLinear]) -> Factors | None:
    """The changes of layers that lie one above the other, as those of one layer."""
    into, out = list[Tensor](), list[Tensor]()
    for number, layer in enumerate(layers):
        if (delta := layer.change) is not None:
            assert isinstance(delta, StackedDeltas)
            units = delta.out.shape[1]
            above, below = number * units, (len(layers) - 1 - number) * units
            into.append(delta.into)
            out.append(F.pad(delta.scale * delta.out, (0, 0, above, below)))
    return Factors(torch.cat(into, 1), torch.cat(out, 2)) if into else None


def imagine_step(model: WorldModel, folded: Folded, z: Tensor, action: Tensor) -> Imagined:
    """One step of latent dynamics: (K, B, latent), (K, B, action_dim)."""
    first, (tasks, batch, _) = folded.first, z.shape
    parts, units = first.norm_weight.shape
    zeros = folded.zeros.expand(tasks, batch, -1)
    x = torch.cat([z, action.to(z.dtype), zeros], -1)
    joint = F.linear(x, first.weight)
    if first.change is not None:
        joint = joint + each_with_its_own(x, *first.change)
    dynamics, reward = normed_activation(
        joint.reshape(1, tasks * batch, parts, units),
        first.norm_weight,
        first.norm_bias,
        linear_bias=first.linear_bias,
    ).view(parts, tasks, batch, units)
    *hidden, last = folded.dynamics
    for layer in hidden:
        dynamics = layer(dynamics)
    return Imagined(last(dynamics, dtype=z.dtype).to(z.dtype), reward)


def imagined_reward(model: WorldModel, features: Tensor) -> Tensor:
    """Expected rewards in symlog units: (..., h) -> (...)."""
    logits = with_frozen_weights(model.reward_head[1:])(features)
    return expected_bin(logits, model.bins)


def continuation(model: WorldModel, latents: Tensor, task_ids: Tensor) -> Tensor:
    """Probabilities that episodes of tasks (K,) go on: (H, K, B, latent) -> (H, K, B)."""
    return model.continuation(latents, task_ids.unsqueeze(1))


def by_task(x: Tensor) -> Tensor:
    """(H, K, B, ...) to (K, H B, ...), without gradient."""
    return x.detach().transpose(0, 1).flatten(1, 2)


def _first(net: nn.Sequential) -> NormedLinear:
    layer = net[0]
    assert isinstance(layer, NormedLinear)
    return layer
