"""A policy or a world model for one task as networks of arrays, beside what computes the same."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.deployment.network import Input, Layer, Network
from pwm.models.angles import angle_periods
from pwm.models.layers import Mish, SimNorm, StackedLinear
from pwm.models.policy import Policy
from pwm.models.world_model import WorldModel

Function = Callable[..., Tensor]


class Source(ABC):
    """What is deployed.

    Attributes:
        kind: ``policy`` or ``world_model``.
        task: that it is for.
        networks: by function, what files compute.
    """

    kind: str
    task: Task
    networks: Mapping[str, Network]
    _module: nn.Module

    @abstractmethod
    def _functions(self, module: Any) -> dict[str, Function]:
        """The original functions, by name, of the module or a copy of it."""

    @torch.no_grad()
    def outputs(self, name: str, inputs: Sequence[np.ndarray], exact: bool = False) -> np.ndarray:
        """What the original computes for a batch, as torch does in float32, or in float64."""
        module = copy.deepcopy(self._module).double() if exact else self._module
        dtype = torch.float64 if exact else torch.float32
        given = [torch.from_numpy(np.array(each)).to(dtype) for each in inputs]
        return self._functions(module)[name](*given).numpy()

    def samples(self, name: str, count: int) -> list[np.ndarray]:
        """Inputs of a function such as it may get, float32, the same at every call."""
        rng = np.random.default_rng(0)
        return [self._sample(each, count, rng) for each in self.networks[name].inputs]

    def _sample(self, given: Input, count: int, rng: np.random.Generator) -> np.ndarray:
        if given.name == "latent":
            observations = self._sample(self.networks["encode"].inputs[0], count, rng)
            return self.outputs("encode", [observations])
        if given.name == "action":
            low, high = _bounds(self.task) or (-np.ones(given.size), np.ones(given.size))
            return rng.uniform(low, high, (count, given.size)).astype(np.float32)
        drawn = 1.5 * rng.standard_normal((count, given.size))
        if given.mean is not None and given.scale is not None:
            drawn = given.mean + given.scale * drawn
        if given.period is not None:
            drawn += given.period * rng.integers(-3, 4, drawn.shape)
        return drawn.astype(np.float32)


class PolicySource(Source):
    """A policy, whose one function gives actions."""

    kind = "policy"

    def __init__(self, policy: Policy) -> None:
        self._module, self.task = policy, policy.task
        parts = [part for part in (policy.encoder, policy.actor.mean) if part is not None]
        layers = [_layer(module) for part in parts for module in part.children()]
        mean, scale = _array(policy.obs_mean), _array(policy.obs_scale)
        wraps = policy.architecture.get("wrap_angles", False)
        observation, padding = _observation(self.task, mean, scale, wraps)
        layers[0] = _with_constants(
            layers[0], [slice(0, self.task.obs_dim)], padding, _array(policy.embedding)
        )
        last = layers[-1]
        used = slice(0, self.task.action_dim)
        layers[-1] = Layer(last.weight[used], last.bias[used])
        self.networks = {
            "action": Network(
                "action", (observation,), tuple(layers), "action", bounds=_bounds(self.task)
            )
        }

    def _functions(self, module: Policy) -> dict[str, Function]:
        return {"action": lambda obs: _in_units(module(obs), self.task)}


class WorldModelSource(Source):
    """A world model for one of its tasks: encode, next, reward, and continuation if it has that.

    Actions are in the units of the task's environment, without padding.
    """

    kind = "world_model"

    def __init__(self, model: WorldModel, task: Task) -> None:
        self._module, self.task = model, task
        self._id = torch.tensor(model.suite.id(task.name))
        with torch.no_grad():
            embedding = copy.deepcopy(model).double().task_embedding(self._id).numpy()
        mean, scale = np.zeros(model.suite.obs_dim), np.ones(model.suite.obs_dim)
        if model.normalize_obs:
            mean, scale = _array(model.obs_mean[self._id]), _array(model.obs_scale[self._id])
        wraps = model.normalize_obs and model.wrap_angles
        observation, padding = _observation(task, mean, scale, wraps)
        latent, action = Input("latent", model.size.latent_dim), _action(task)
        at_action = latent.size + len(embedding)
        of_action = slice(at_action, at_action + task.action_dim)

        def network(
            name: str, module: nn.Module, inputs: tuple[Input, ...], head: Any, constants: Any
        ) -> Network:
            columns = [slice(0, inputs[0].size)] + [of_action] * (len(inputs) - 1)
            first, *rest = [_layer(child) for child in module.children()]
            layers = (_with_constants(first, columns, *constants), *rest)
            bins = _array(model.bins) if head == "reward" else None
            return Network(name, inputs, layers, head, bins=bins)

        known = [embedding, np.zeros(model.suite.action_dim - task.action_dim)]
        both = (latent, action)
        constants = (padding, embedding)
        self.networks = {
            "encode": network("latent", model.encoder, (observation,), "latent", constants),
            "next": network("next_latent", model.dynamics, both, "latent", known),
            "reward": network("reward", model.reward_head, both, "reward", known),
        }
        if model.episodic:
            self.networks["continuation"] = network(
                "continuation", model.termination_head, (latent,), "continuation", (embedding,)
            )

    def _functions(self, module: WorldModel) -> dict[str, Function]:
        suite, task = module.suite, self._id

        def padded(x: Tensor, size: int) -> Tensor:
            return nn.functional.pad(x, (0, size - x.shape[-1]))

        def given(action: Tensor) -> Tensor:
            return padded(_normalized(action, self.task), suite.action_dim)

        return {
            "encode": lambda obs: module.encode(padded(obs, suite.obs_dim), task),
            "next": lambda z, action: module.next(z, given(action), task),
            "reward": lambda z, action: module.reward(z, given(action), task),
            "continuation": lambda z: module.continuation(z, task).unsqueeze(-1),
        }


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy().copy()


def _layer(module: nn.Module) -> Layer:
    if not isinstance(module, nn.Linear | StackedLinear):
        raise PwmError(
            f"a layer of kind {type(module).__name__} cannot be deployed; deploy a policy or a "
            "world model of this version of pwm."
        )
    own = [module.weight, module.bias]
    norm = getattr(module, "ln", None)
    if norm is not None:
        own += [norm.weight, norm.bias]
    arrays = [_array(each[0] if isinstance(module, StackedLinear) else each) for each in own]
    arrays[1] = arrays[1].astype(np.float64)
    if norm is None:
        return Layer(arrays[0], arrays[1])
    act = getattr(module, "act", None)
    if not isinstance(act, Mish | SimNorm | None):
        raise PwmError(
            f"a layer with {type(act).__name__} cannot be deployed; deploy a policy or a world "
            "model whose layers have Mish or SimNorm."
        )
    simplex = act.group if isinstance(act, SimNorm) else 0
    return Layer(arrays[0], arrays[1], (arrays[2], arrays[3]), simplex)


def _with_constants(layer: Layer, columns: Sequence[slice], *constants: np.ndarray) -> Layer:
    """The layer for some of its inputs, with the others, in their order, in its bias.

    The embedding of a task and the padding of a suite are the same at every call.
    """
    weight = layer.weight.astype(np.float64)
    kept = np.zeros(weight.shape[1], bool)
    for part in columns:
        kept[part] = True
    bias = layer.bias + weight[:, ~kept] @ np.concatenate(constants)
    return Layer(layer.weight[:, kept].copy(), bias, layer.norm, layer.simplex)


def _observation(
    task: Task, mean: np.ndarray, scale: np.ndarray, wraps: bool
) -> tuple[Input, np.ndarray]:
    """The observation of a task, and what the entries behind it are after normalization."""
    size = task.obs_dim
    period = angle_periods([task], size)[0].numpy() if wraps else np.zeros(size, np.float32)
    is_plain = not mean[:size].any() and bool((scale[:size] == 1).all())
    shift, unit = (None, None) if is_plain else (mean[:size], scale[:size])
    padding = (0 - mean[size:].astype(np.float64)) / scale[size:]
    return Input("obs", size, shift, unit, period if period.any() else None), padding


def _bounds(task: Task) -> tuple[np.ndarray, np.ndarray] | None:
    is_native = task.domain != "gymnasium"  # whose environments take [-1, 1]
    if is_native or task.action_low is None or task.action_high is None:
        return None
    return np.array(task.action_low, np.float32), np.array(task.action_high, np.float32)


def _action(task: Task) -> Input:
    if (bounds := _bounds(task)) is None:
        return Input("action", task.action_dim)
    low, high = (bound.astype(np.float64) for bound in bounds)
    return Input("action", task.action_dim, (low + high) / 2, (high - low) / 2)


def _limits(task: Task, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    bounds = _bounds(task)
    if bounds is None:
        return None
    low, high = (torch.from_numpy(bound).to(dtype) for bound in bounds)
    return low, high


def _in_units(action: Tensor, task: Task) -> Tensor:
    if (limits := _limits(task, action.dtype)) is None:
        return action
    low, high = limits
    return torch.clamp((low + high) / 2 + action * ((high - low) / 2), low, high)


def _normalized(action: Tensor, task: Task) -> Tensor:
    if (limits := _limits(task, action.dtype)) is None:
        return action
    low, high = limits
    return (action - (low + high) / 2) / ((high - low) / 2)
