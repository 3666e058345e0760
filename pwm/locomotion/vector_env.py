"""Batched locomotion environments behind Gymnasium's vector interface, in NumPy."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.catalog import make_simulation

Array = np.ndarray


class LocomotionVectorEnv(gymnasium.vector.VectorEnv[Array, Array, Array]):
    """N copies of an environment of the catalog, or of a simulation that is given.

    Environments that end begin again within the same step; the observation that they ended with is
    in ``info["final_obs"]``, where ``info["_final_obs"]`` holds.

    Args:
        environment: a name of ``pwm.locomotion.catalog``, or a simulation.
        num_envs: N, where a name is given.
        seed: of the initial states, where a name is given.
        device: where a simulation that is named runs.
    """

    def __init__(
        self,
        environment: str | BatchedSimulation,
        num_envs: int = 1,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if isinstance(environment, str):
            environment = make_simulation(environment, num_envs=num_envs, seed=seed, device=device)
        self.simulation = environment
        self.num_envs = environment.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        observations, actions = environment.observation_size, environment.action_size
        box = gymnasium.spaces.Box
        self.single_observation_space = box(-np.inf, np.inf, (observations,), np.float32)
        self.single_action_space = box(-1.0, 1.0, (actions,), np.float32)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode in all environments; one seed, or the first of a list, is for all."""
        first = seed[0] if isinstance(seed, list) else seed
        with torch.no_grad():
            return _array(self.simulation.reset(first)), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Advance all environments by one control step, without gradients."""
        with torch.no_grad():
            step = self.simulation.step(torch.as_tensor(actions, dtype=torch.float32))
        terminated, truncated = _array(step.terminated), _array(step.truncated)
        ended = terminated | truncated
        info: dict[str, Any] = {}
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(ended):
                final[index] = _array(step.final_observation[index])
            info = {"final_obs": final, "_final_obs": ended}
        return _array(step.observation), _array(step.reward), terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Close the simulation."""
        self.simulation.close()


def _array(value: Tensor) -> Array:
    """A copy that the simulation does not change."""
    return value.detach().cpu().numpy().copy()
