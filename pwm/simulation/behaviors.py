"""What chooses the actions of collected episodes: noise, a script, a planner or a policy.

``reset`` begins an episode and takes the episode's own random generator, from which a behaviour
draws whatever varies between episodes (noise magnitude, gains).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.simulation.scripted_controllers import CONTROLLED_DOMAINS, make_controller
from pwm.simulation.simulator_mpc import SimulatorMPCConfig, SimulatorPlanner

BEHAVIOURS = ("random", "ou", "scripted", "held", "mpc", "policy")

NOISE_CORRELATIONS = (0.0, 0.8)
_NOISE_WHILE_HOLDING = 0.3  # of its magnitude


class Behaviour(Protocol):
    """Chooses actions from observations."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begins an episode with its generator, which `act` draws from too."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action, (action_dim,) float32 in [-1, 1], for ``obs``, (obs_dim,) float32."""


class AutoregressiveNoise:
    """Gaussian noise of a fixed magnitude, x' = c x + sqrt(1 - c^2) sigma e, begun stationary."""

    def __init__(self, size: int, rng: np.random.Generator, sigma: float, correlation: float):
        self._rng = rng
        self._correlation = correlation
        self._innovation = sigma * math.sqrt(1 - correlation**2)
        self._value = sigma * rng.standard_normal(size)

    def draw(self) -> np.ndarray:
        """The next value, (size,) float64."""
        value = self._value
        fresh = self._innovation * self._rng.standard_normal(len(value))
        self._value = self._correlation * value + fresh
        return value


@dataclass(frozen=True)
class PolicyNoise:
    """What is added to a controller's actions: an episode draws a magnitude and a correlation.

    Attributes:
        sigmas: standard deviations.
        correlations: from one step to the next, at least 0 and below 1.
    """

    sigmas: tuple[float, ...] = (0.0,)
    correlations: tuple[float, ...] = (0.0,)

    def draw(self, size: int, rng: np.random.Generator) -> AutoregressiveNoise:
        """The noise of an episode whose actions have ``size`` entries."""
        sigma, correlation = rng.choice(self.sigmas), rng.choice(self.correlations)
        return AutoregressiveNoise(size, rng, sigma, correlation)


class RandomBehaviour:
    """Uniform actions, independent in time."""

    def __init__(self, task: Task) -> None:
        self._size = task.action_dim

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        self._rng = rng

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        return self._rng.uniform(-1, 1, self._size).astype(np.float32)


class _OrnsteinUhlenbeck:
    """Temporally correlated noise alone, of a magnitude and correlation drawn per episode."""

    def __init__(self, task: Task) -> None:
        self._size = task.action_dim

    def reset(self, rng: np.random.Generator) -> None:
        sigma, correlation = rng.uniform(0.3, 1.2), rng.uniform(0.7, 0.97)
        self._noise = AutoregressiveNoise(self._size, rng, sigma, correlation)

    def act(self, obs: np.ndarray) -> np.ndarray:
        return _clipped(self._noise.draw())


class _NoisyController:
    """The actions of a controller, planner or policy plus noise.

    In the environment ``holds_in`` it holds still while the task succeeds: the last step is scored,
    and Meta-World's scripts were written for episodes that end with success.
    """

    def __init__(
        self, task: Task, controller: Any, noise: PolicyNoise, holds_in: Any = None
    ) -> None:
        self._size, self._controller, self._noises = task.action_dim, controller, noise
        self._holds_in = holds_in

    def reset(self, rng: np.random.Generator) -> None:
        self._noise = self._noises.draw(self._size, rng)
        self._controller.reset(rng)

    def act(self, obs: np.ndarray) -> np.ndarray:
        action, noise = self._controller.act(obs), self._noise.draw()
        if self._holds_in is not None and self._holds_in.success:
            action[:3] = 0.0  # the hand's movement; the last is the gripper's effort
            noise *= _NOISE_WHILE_HOLDING
        return _clipped(action + noise)


class _PolicyController:
    """A trained policy of the task from a directory of policies, or one that is of this task."""

    def __init__(self, task: Task, path: str) -> None:
        from pwm.models.flat_policy import FlatPolicy  # here, for others do without torch
        from pwm.models.policy import load_policy
        from pwm.models.policy_directory import policy_path

        policy = load_policy(policy_path(Path(path), task.name))
        self._act, made_for = FlatPolicy(policy), policy.task
        if (made_for.obs_dim, made_for.action_dim) != (task.obs_dim, task.action_dim):
            raise PwmError(
                f"the policy in {path} is for '{made_for.name}', with {made_for.obs_dim} "
                f"observation and {made_for.action_dim} action entries, and task '{task.name}' has "
                f"{task.obs_dim} and {task.action_dim}; give a policy of this task."
            )

    def reset(self, rng: np.random.Generator) -> None:
        """Nothing varies between episodes."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        return self._act(obs)


def make_behaviour(
    name: str,
    task: Task,
    policy: str | None = None,
    policy_noise: PolicyNoise | None = None,
    env: Any = None,
    planner: SimulatorMPCConfig | None = None,
) -> Behaviour:
    """A behaviour by name.

    Args:
        name: ``"random"``; ``"ou"``, correlated noise; ``"scripted"``; ``"held"``, Meta-World's
            scripts, which hold still while they succeed; ``"mpc"``, planning on the simulator; or
            ``"policy"``.
        task: the task to act in.
        policy: the policy's directory, or that of many tasks' policies, for ``"policy"``.
        policy_noise: on the policy's actions, none by default.
        env: in which the actions are taken, for ``"held"`` and ``"mpc"``.
        planner: how much ``"mpc"`` tries.

    Raises:
        PwmError: for another name, a task without a controller, or a missing policy or simulator.
    """
    if name == "random":
        return RandomBehaviour(task)
    if name == "ou":
        return _OrnsteinUhlenbeck(task)
    if name == "scripted":
        script = make_controller(task)
        return _NoisyController(task, script, PolicyNoise(script.noise_sigmas, NOISE_CORRELATIONS))
    if name in ("held", "mpc") and env is None:
        raise PwmError(f"behaviour '{name}' needs the environment in which its actions are taken.")
    if name == "held":
        if not can_hold(task):
            raise PwmError(
                f"behaviour 'held' is of Meta-World's tasks, and '{task.name}' is none; use "
                "behaviour=scripted or mpc there."
            )
        noise = PolicyNoise((0.0, 0.1, 0.2, 0.3), NOISE_CORRELATIONS)
        return _NoisyController(task, make_controller(task), noise, holds_in=env)
    if name == "mpc":
        noise = PolicyNoise((0.0, 0.1, 0.3), NOISE_CORRELATIONS)
        return _NoisyController(task, SimulatorPlanner(env, task, planner), noise)
    if name == "policy":
        if policy is None:
            raise PwmError("behaviour 'policy' needs a policy; give its directory as policy=DIR.")
        return _NoisyController(
            task, _PolicyController(task, policy), policy_noise or PolicyNoise()
        )
    raise PwmError(f"unknown behaviour '{name}'; it is mixed or one of {', '.join(BEHAVIOURS)}.")


def has_controller(task: Task) -> bool:
    """Whether ``"scripted"`` is possible for a task."""
    if task.domain == "dmcontrol":
        return task.name.split("-")[0] in CONTROLLED_DOMAINS
    return task.domain == "metaworld"


def can_hold(task: Task) -> bool:
    """Whether ``"held"`` is possible for a task."""
    return task.domain == "metaworld"


def default_mixture(task: Task) -> dict[str, float]:
    """The share of episodes that each behaviour gets for a task."""
    if task.domain == "metaworld":
        return {"scripted": 0.8, "ou": 0.2}
    if has_controller(task):
        return {"scripted": 0.7, "ou": 0.3}
    return {"random": 0.5, "ou": 0.5}


def draw_name(mixture: Mapping[str, float], rng: np.random.Generator) -> str:
    """Draws a behaviour's name with the shares of a mixture."""
    names = list(mixture)
    return names[rng.choice(len(names), p=list(mixture.values()))]


def _clipped(action: np.ndarray) -> np.ndarray:
    return np.clip(action, -1, 1).astype(np.float32)
