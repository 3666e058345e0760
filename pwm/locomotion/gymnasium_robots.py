"""Gymnasium's robots in MuJoCo behind the contract of batched simulators, without gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from torch import Tensor

from pwm.locomotion.batched_simulation import Step

_SPEC = mujoco.mjtState.mjSTATE_INTEGRATION
_POSITIONS = ("xpos", "xipos")  # of bodies, a substep old, by which an environment measures travel


class GymnasiumSimulation:
    """N environments of one id, with its observations, rewards and falls; one after another.

    Actions in [-1, 1] are stretched to the environment's own bounds. What an episode begins with
    follows from the seed, the number of the environment and that of its episode.

    Args:
        name: as in ``pwm.locomotion.catalog``.
        env_id: a MuJoCo environment of Gymnasium.
        num_envs: N.
        seed: of where episodes begin.
        device: where the tensors are; MuJoCo computes on the CPU.
    """

    differentiable: ClassVar[bool] = False

    def __init__(self, name: str, env_id: str, num_envs: int, seed: int, device: str) -> None:
        self.name, self.num_envs, self.device = name, num_envs, torch.device(device)
        made = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(num_envs)]
        spec = made[0].spec
        assert spec is not None and spec.max_episode_steps is not None
        self.episode_length = spec.max_episode_steps
        self._envs: list[MujocoEnv] = [env.unwrapped for env in made]  # type: ignore[misc]
        first = self._envs[0]
        self.step_seconds = float(first.dt)
        self.observation_size = int(np.prod(first.observation_space.shape or ()))
        bounds = first.action_space
        assert isinstance(bounds, gymnasium.spaces.Box)
        self.action_size = int(np.prod(bounds.shape))
        self._middle, self._half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
        self._seed = seed
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._episode = np.zeros(self.num_envs, np.int64)
        self._clock = np.zeros(self.num_envs, np.int64)
        self._observation = np.array([self._begin(i) for i in range(self.num_envs)], np.float32)

    def _begin(self, i: int) -> np.ndarray:
        drawn = np.random.SeedSequence((self._seed, i, int(self._episode[i]))).generate_state(1)
        self._episode[i] += 1
        self._clock[i] = 0
        obs: np.ndarray = self._envs[i].reset(seed=int(drawn[0]))[0]
        return obs

    def reset(self, seed: int | None = None) -> Tensor:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        self._seed = self._seed if seed is None else seed
        self._begin_anew()
        return self._tensor(self._observation)

    def step(self, action: Tensor) -> Step:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        given = self._middle + self._half * action.detach().clamp(-1, 1).cpu().numpy()
        came: list[Any] = [env.step(a) for env, a in zip(self._envs, given, strict=True)]
        final = np.array([c[0] for c in came], np.float32)
        reward = np.array([c[1] for c in came], np.float32)
        terminated = np.array([c[2] for c in came], bool)
        self._clock += 1
        truncated = (self._clock >= self.episode_length) & ~terminated
        self._observation = final.copy()
        for i in np.flatnonzero(terminated | truncated):
            self._observation[i] = self._begin(int(i))
        columns = (self._observation, reward, terminated, truncated, final)
        return Step(*(self._tensor(column) for column in columns))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.copy()).to(self.device)

    def detach(self) -> Tensor:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        return self._tensor(self._observation)

    def state(self) -> dict[str, Tensor]:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        size = mujoco.mj_stateSize(self._envs[0].model, _SPEC)
        physics = np.empty((self.num_envs, size))
        for env, row in zip(self._envs, physics, strict=True):
            mujoco.mj_getState(env.model, env.data, row, _SPEC)
        arrays = {
            "physics": physics,
            "episode": self._episode.copy(),
            "clock": self._clock.copy(),
            "seed": np.array(self._seed),
            "observation": self._observation.copy(),
        }
        arrays |= {n: np.array([getattr(env.data, n) for env in self._envs]) for n in _POSITIONS}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
        for i, env in enumerate(self._envs):
            mujoco.mj_setState(env.model, env.data, arrays["physics"][i], _SPEC)
            mujoco.mj_forward(env.model, env.data)
            mujoco.mj_setState(env.model, env.data, arrays["physics"][i], _SPEC)  # the warm start
            for name in _POSITIONS:
                getattr(env.data, name)[:] = arrays[name][i]
        self._episode, self._clock = arrays["episode"].copy(), arrays["clock"].copy()
        self._seed = int(arrays["seed"])
        self._observation = arrays["observation"].copy()

    def close(self) -> None:
        """Release the simulators."""
        for env in self._envs:
            env.close()


def ant(num_envs: int, seed: int, device: str) -> GymnasiumSimulation:
    """``Ant-v5``, whose observations include contact forces."""
    return GymnasiumSimulation("mujoco_ant", "Ant-v5", num_envs, seed, device)


def humanoid(num_envs: int, seed: int, device: str) -> GymnasiumSimulation:
    """``Humanoid-v5``."""
    return GymnasiumSimulation("mujoco_humanoid", "Humanoid-v5", num_envs, seed, device)
