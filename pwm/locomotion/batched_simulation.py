"""What learners see of a simulator: N copies of one environment that step together, in tensors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Step(NamedTuple):
    """What one control step of N environments gives.

    Attributes:
        observation: (N, observation_size), after the reset of those that ended.
        reward: (N,).
        terminated: (N,) bool, ended by a fall or a success: nothing is to be had afterwards.
        truncated: (N,) bool, ended by the clock.
        final_observation: (N, observation_size), before any reset; equal to ``observation`` where
            no episode ended.
    """

    observation: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_observation: Tensor


class BatchedSimulation(Protocol):
    """N copies of one environment; those that end are reset within the step.

    Where ``differentiable`` is true and gradients are enabled, the reward and both observations of
    a step are differentiable functions of its action and of the actions since the last ``detach``
    or reset. Actions lie in [-1, 1].

    Attributes:
        name: as in ``pwm.locomotion.catalog``.
        num_envs: N.
        observation_size, action_size: numbers of components.
        episode_length: steps after which an episode is truncated.
        step_seconds: simulated time per step.
        differentiable: whether gradients flow through ``step``.
    """

    name: str
    num_envs: int
    observation_size: int
    action_size: int
    episode_length: int
    step_seconds: float
    differentiable: bool

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin an episode in all environments; (N, observation_size)."""
        ...

    def step(self, action: Tensor) -> Step:
        """Advance all environments by one control step under actions (N, action_size)."""
        ...

    def detach(self) -> Tensor:
        """Let gradients of later steps end at the present state; gives its observation."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Copies of everything that the next steps depend on, random generators included."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` gave."""
        ...

    def close(self) -> None:
        """Release what the simulator holds."""
        ...
