"""Environments in plain torch behind the contract of batched simulators."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pwm.locomotion.batched_simulation import Step


class TorchSimulation(ABC):
    """N copies of an environment whose state is one tensor (N, state_size).

    A kind of environment says how episodes begin, how a state moves on, and what is seen of it;
    clocks, resets and gradients are common to all.

    Args:
        num_envs: N.
        seed: of the states that episodes begin in.
        device: where the tensors are.
    """

    name: str
    observation_size: int
    action_size: int
    episode_length: int
    step_seconds: float
    differentiable = True

    def __init__(self, num_envs: int, seed: int = 0, device: str = "cpu") -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._state = torch.empty(0)
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.reset()

    @abstractmethod
    def begin(self, uniform: Tensor) -> Tensor:
        """States (n, state_size) that episodes begin in, of numbers (n, state_size) in [-1, 1]."""

    @abstractmethod
    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state, the reward (N,) and whether that ended the episode, (N,) bool."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """(N, observation_size)."""

    @property
    @abstractmethod
    def state_size(self) -> int:
        """How many numbers are a state."""

    def reset(self, seed: int | None = None) -> Tensor:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        if seed is not None:
            self._generator.manual_seed(seed)
        self._state = self._first_states()
        self._clock = torch.zeros_like(self._clock)
        return self.observe(self._state)

    def _first_states(self) -> Tensor:
        """Of all N, so that what an environment draws does not depend on the others' ends."""
        shape = self.num_envs, self.state_size
        uniform = torch.rand(shape, generator=self._generator, device=self.device)
        return self.begin(2 * uniform - 1)

    def step(self, action: Tensor) -> Step:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        reached, reward, terminated = self.advance(self._state, action.clamp(-1, 1))
        final_observation = self.observe(reached)
        clock = self._clock + 1
        truncated = (clock >= self.episode_length) & ~terminated
        ended = terminated | truncated
        self._state = torch.where(ended.unsqueeze(1), self._first_states(), reached)
        self._clock = clock.masked_fill(ended, 0)
        observation = self.observe(self._state)
        return Step(observation, reward, terminated, truncated, final_observation)

    def detach(self) -> Tensor:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        self._state = self._state.detach()
        return self.observe(self._state)

    def state(self) -> dict[str, Tensor]:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        return {
            "state": self._state.detach().clone(),
            "clock": self._clock.clone(),
            "random": self._generator.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :class:`pwm.locomotion.batched_simulation.BatchedSimulation`."""
        self._state = state["state"].to(self.device).clone()
        self._clock = state["clock"].to(self.device).clone()
        self._generator.set_state(state["random"].cpu())

    def close(self) -> None:
        """Drop the states."""
        self._state = torch.empty(0)
