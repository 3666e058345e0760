"""A batched simulation as a vectorized environment of Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv

from pwm.locomotion.batched_simulation import BatchedSimulation


class SimulationVecEnv(VecEnv):
    """Steps a simulation without gradients, in NumPy.

    Args:
        simulation: of N environments.
        seed: of the first episodes; later ones follow from them.
    """

    def __init__(self, simulation: BatchedSimulation, seed: int) -> None:
        self.simulation, self._seed = simulation, seed
        size, actions = simulation.observation_size, simulation.action_size
        super().__init__(
            simulation.num_envs,
            Box(-np.inf, np.inf, (size,), np.float32),
            Box(-1.0, 1.0, (actions,), np.float32),
        )
        self._device = simulation.reset(seed).device
        self._actions: np.ndarray = np.zeros((simulation.num_envs, actions), np.float32)

    def reset(self) -> Any:
        """See Stable-Baselines3; always the same episodes."""
        return _numpy(self.simulation.reset(self._seed))

    def step_async(self, actions: np.ndarray) -> None:
        """See Stable-Baselines3."""
        self._actions = actions

    @torch.no_grad()
    def step_wait(self) -> Any:
        """See Stable-Baselines3."""
        action = torch.as_tensor(self._actions, dtype=torch.float32, device=self._device)
        step = self.simulation.step(action)
        terminated, truncated = _numpy(step.terminated), _numpy(step.truncated)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        final = _numpy(step.final_observation)
        for i in np.flatnonzero(terminated | truncated):
            cut = bool(truncated[i] and not terminated[i])
            infos[i] = {"terminal_observation": final[i], "TimeLimit.truncated": cut}
        return _numpy(step.observation), _numpy(step.reward), terminated | truncated, infos

    def close(self) -> None:
        """See Stable-Baselines3."""
        self.simulation.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """See Stable-Baselines3; environments have nothing apart."""
        return [getattr(self.simulation, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """See Stable-Baselines3; nothing can be set."""
        raise AttributeError(attr_name)

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """See Stable-Baselines3; environments have nothing apart."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """See Stable-Baselines3."""
        return [False for _ in self._get_indices(indices)]


def _numpy(values: torch.Tensor) -> np.ndarray:
    """A copy: the simulation may write its tensors again."""
    return values.detach().cpu().numpy().copy()
