"""What chooses the actions of collected episodes: noise, a script, a planner or a policy.

A behaviour is drawn anew for every episode: ``reset`` takes the episode's own random generator
and draws from it whatever varies between episodes (noise magnitude, gains).
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
from pwm.simulation.scripted_controllers import CONTROLLED_DOMAINS, Controller, make_controller
from pwm.simulation.simulator_mpc import Simulator, SimulatorMPCConfig, SimulatorPlanner

BEHAVIOURS = ("random", "ou", "scripted", "held", "mpc", "policy")

NOISE_CORRELATIONS = (0.0, 0.8)


class Behaviour(Protocol):
    """Chooses actions from observations."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begins an episode.

        Args:
            rng: the episode's generator, also used by `act`.
        """

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Chooses an action.

        Args:
            obs: (obs_dim,) float32.

        Returns:
            (action_dim,) float32 in [-1, 1].
        """


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


class OrnsteinUhlenbeck:
    """Temporally correlated noise alone, of a magnitude and correlation drawn per episode."""

    def __init__(self, task: Task) -> None:
        self._size = task.action_dim

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        sigma, correlation = rng.uniform(0.3, 1.2), rng.uniform(0.7, 0.97)
        self._noise = AutoregressiveNoise(self._size, rng, sigma, correlation)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        return _clipped(self._noise.draw())


class ScriptedBehaviour:
    """A hand-written controller plus noise of a magnitude and correlation drawn per episode."""

    def __init__(self, task: Task) -> None:
        """Picks the task's controller.

        Raises:
            PwmError: if the task has none.
        """
        self._size = task.action_dim
        self._controller: Controller = make_controller(task)

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        sigma, correlation = (
            rng.choice(self._controller.noise_sigmas),
            rng.choice(NOISE_CORRELATIONS),
        )
        self._noise = AutoregressiveNoise(self._size, rng, sigma, correlation)
        self._controller.reset(rng)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        return _clipped(_clipped(self._controller.act(obs)) + self._noise.draw())


@dataclass(frozen=True)
class PolicyNoise:
    """What is added to a policy's actions: an episode draws one magnitude and one correlation.

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


class Watched(Protocol):
    """An environment that tells whether its last step ended in success, 1.0 or 0.0."""

    success: float


class HoldingBehaviour:
    """Meta-World's scripted policy, which holds still while it succeeds, plus noise.

    The scripts are written for episodes that end with success; some let go of it afterwards. Here
    an episode goes on, and its last step is scored.
    """

    _NOISE = PolicyNoise((0.0, 0.1, 0.2, 0.3), NOISE_CORRELATIONS)
    _WHILE_HOLDING = 0.3  # of the noise

    def __init__(self, task: Task, env: Watched) -> None:
        """Acts in an environment.

        Raises:
            PwmError: if the task is not of Meta-World.
        """
        if not can_hold(task):
            raise PwmError(
                f"behaviour 'held' is of Meta-World's tasks, and '{task.name}' is none; use "
                "behaviour=scripted or mpc there."
            )
        self._env, self._size = env, task.action_dim
        self._controller = make_controller(task)

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        self._noise = self._NOISE.draw(self._size, rng)
        self._controller.reset(rng)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        action, noise = _clipped(self._controller.act(obs)), self._noise.draw()
        if self._env.success:
            action[:3] = 0.0  # the hand's movement; the last is the gripper's effort
            noise *= self._WHILE_HOLDING
        return _clipped(action + noise)


class PlannerBehaviour:
    """Planning on the simulator itself, plus noise of a magnitude drawn per episode."""

    _NOISE = PolicyNoise((0.0, 0.1, 0.3), NOISE_CORRELATIONS)

    def __init__(self, task: Task, env: Simulator, size: SimulatorMPCConfig | None = None) -> None:
        """Plans for an environment.

        Raises:
            PwmError: if the task's simulator cannot be asked what plans would bring.
        """
        self._size = task.action_dim
        self._planner = SimulatorPlanner(env, task, size)

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        self._noise = self._NOISE.draw(self._size, rng)
        self._planner.reset(rng)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        return _clipped(self._planner.act() + self._noise.draw())


class PolicyBehaviour:
    """A trained policy plus noise."""

    def __init__(self, task: Task, path: str, noise: PolicyNoise) -> None:
        """Loads the policy.

        Args:
            task: the task to act in.
            path: a directory of policies, one a task, or one that `pwm.load_policy` opens.
            noise: on its actions.

        Raises:
            PwmError: if there is no policy, or it does not act in this task.
        """
        from pwm.models.policy import load_policy  # here, for others do without torch
        from pwm.models.policy_directory import policy_path

        self._policy = load_policy(policy_path(Path(path), task.name))
        made_for = self._policy.task
        if (made_for.obs_dim, made_for.action_dim) != (task.obs_dim, task.action_dim):
            raise PwmError(
                f"the policy in {path} is for '{made_for.name}', with {made_for.obs_dim} "
                f"observation and {made_for.action_dim} action entries, and task '{task.name}' has "
                f"{task.obs_dim} and {task.action_dim}; give a policy of this task."
            )
        self._task = task
        self._noises = noise

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour.reset`."""
        self._noise = self._noises.draw(self._task.action_dim, rng)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Behaviour.act`."""
        return _clipped(np.asarray(self._policy.act(obs)) + self._noise.draw())


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
        name: ``"random"``, ``"ou"``, ``"scripted"``, ``"held"``, ``"mpc"`` or ``"policy"``.
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
        return OrnsteinUhlenbeck(task)
    if name == "scripted":
        return ScriptedBehaviour(task)
    if name in ("held", "mpc"):
        if env is None:
            raise PwmError(
                f"behaviour '{name}' needs the environment in which its actions are taken."
            )
        return (
            HoldingBehaviour(task, env) if name == "held" else PlannerBehaviour(task, env, planner)
        )
    if name == "policy":
        if policy is None:
            raise PwmError("behaviour 'policy' needs a policy; give its directory as policy=DIR.")
        return PolicyBehaviour(task, policy, policy_noise or PolicyNoise())
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
