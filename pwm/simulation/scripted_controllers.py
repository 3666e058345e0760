"""Hand-written controllers: Meta-World's own, and for three domains of dm_control.

Those of dm_control draw gains, bias and the energy they aim for in every
episode, from useless to good: offline data should show many ways of acting, not one good one.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task


class Controller(ABC):
    """Computes actions from observations; a `Behaviour` without noise.

    Attributes:
        noise_sigmas: magnitudes of action noise to choose from, for data from good to bad.
    """

    noise_sigmas: tuple[float, ...] = (0.0, 0.1, 0.3, 0.6, 1.0)

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> None:
        """Begins an episode and draws what varies between episodes."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action, (action_dim,) float32 in [-1, 1]."""
        return np.clip(self._action(obs), -1, 1).astype(np.float32)

    @abstractmethod
    def _action(self, obs: np.ndarray) -> np.ndarray:
        """The action, (action_dim,), possibly beyond [-1, 1]."""


class _MetaWorld(Controller):
    """The scripted policy that Meta-World ships for a task."""

    noise_sigmas: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 1.5)

    def __init__(self, task: Task) -> None:
        """Finds the task's policy; imports Meta-World."""
        from metaworld.policies import ENV_POLICY_MAP

        self._make: Callable[[], Any] = ENV_POLICY_MAP[f"{task.name.removeprefix('mw-')}-v3"]

    def reset(self, rng: np.random.Generator) -> None:
        self._policy = self._make()

    def _action(self, obs: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every action beyond the bounds
            return np.asarray(self._policy.get_action(obs))


class _Pendulum(Controller):
    """Pumps energy until a drawn level, and holds by PD near the top.

    Observations are (cos, sin) of the angle from upright and the angular velocity. The sphere of
    1 kg at 0.5 m has m g l = 4.905 J and inertia 0.25 kg m^2; the torque is at most 1 N m.
    """

    _WEIGHT = 4.905
    _INERTIA = 0.25

    def __init__(self, task: Task) -> None:
        self._spins = task.name.endswith("spin")

    def reset(self, rng: np.random.Generator) -> None:
        highest = 4.0 if self._spins else 1.2
        self._target = self._WEIGHT * rng.uniform(0.85, highest)
        self._pump = rng.uniform(0.5, 6.0)
        self._stiffness, self._damping = rng.uniform(3.0, 15.0), rng.uniform(0.3, 3.0)
        self._catch = math.cos(rng.uniform(0.1, 0.5))
        self._bias = rng.normal(0.0, 0.1)

    def _action(self, obs: np.ndarray) -> np.ndarray:
        cosine, sine, velocity = (float(value) for value in obs)
        if cosine > self._catch and not self._spins:
            torque = -self._stiffness * sine - self._damping * velocity
        else:
            energy = 0.5 * self._INERTIA * velocity**2 + self._WEIGHT * cosine
            torque = self._pump * (self._target - energy) * math.copysign(1.0, velocity)
        return np.array([torque + self._bias])


class _Cartpole(Controller):
    """Pumps the pole's energy by moving the cart, and balances by state feedback near the top.

    Observations are cart position, (cos, sin) of the pole's angle from upright, cart velocity
    and angular velocity. Of swing-ups every other episode has gains near ones that were found by a
    random search for reward near the top.
    """

    _GOOD_GAINS = (0.67, 8.9, 1.7, 1.57)
    _GOOD_PUMP, _GOOD_CENTRE, _GOOD_CATCH = 0.68, 0.19, 0.8

    def __init__(self, task: Task) -> None:
        self._swings = "swingup" in task.name

    def reset(self, rng: np.random.Generator) -> None:
        strength = rng.uniform(0.0, 1.7)
        self._gains = strength * np.array([0.3, 5.0, 0.5, 1.2]) * rng.uniform(0.3, 1.7, 4)
        self._bias = rng.normal(0.0, 0.2)
        self._pump = rng.uniform(0.1, 1.5)
        self._centre = rng.uniform(0.0, 0.6)
        self._catch = math.cos(rng.uniform(0.2, 0.8))
        if self._swings and rng.random() < 0.5:
            self._gains = np.array(self._GOOD_GAINS) * rng.uniform(0.85, 1.15, 4)
            self._bias, self._pump, self._centre = 0.0, self._GOOD_PUMP, self._GOOD_CENTRE
            self._catch = self._GOOD_CATCH

    def _action(self, obs: np.ndarray) -> np.ndarray:
        position, cosine, sine, velocity, angular = (float(value) for value in obs)
        if cosine > self._catch or not self._swings:
            force = float(self._gains @ [position, sine, velocity, angular])
        else:
            lack = 1.0 - cosine - angular**2 / 29.4
            force = -self._pump * lack * math.copysign(1.0, angular * cosine)
            force -= self._centre * (position + 0.5 * velocity)
        return np.array([force + self._bias])


class _Reacher(Controller):
    """Pulls the finger towards the target by the transposed Jacobian, and damps the joints.

    Observations are the n joint angles, the vector (2) from finger to target, and the joints'
    velocities.
    """

    def __init__(self, task: Task) -> None:
        self._links = np.full(3, 0.09) if "three" in task.name else np.full(2, 0.12)  # m

    def reset(self, rng: np.random.Generator) -> None:
        self._stiffness, self._damping = rng.uniform(100.0, 800.0), rng.uniform(0.1, 0.4)
        self._farthest = rng.uniform(0.05, 0.25)  # m, beyond which the pull does not grow
        self._bias = rng.normal(0.0, 0.1, len(self._links))

    def _action(self, obs: np.ndarray) -> np.ndarray:
        joints = len(self._links)
        angles = np.cumsum(obs[:joints].astype(float))
        pull, velocity = obs[joints : joints + 2].astype(float), obs[joints + 2 :]
        pull *= min(1.0, self._farthest / max(float(np.linalg.norm(pull)), 1e-9))
        ends = self._links * np.array([-np.sin(angles), np.cos(angles)])
        jacobian = np.cumsum(ends[:, ::-1], 1)[:, ::-1]  # (2, n)
        return self._stiffness * pull @ jacobian - self._damping * velocity + self._bias


_OF_DOMAIN: dict[str, Callable[[Task], Controller]] = {
    "pendulum": _Pendulum,
    "cartpole": _Cartpole,
    "reacher": _Reacher,
}
CONTROLLED_DOMAINS = tuple(_OF_DOMAIN)


def make_controller(task: Task) -> Controller:
    """The task's controller; raises PwmError if there is none."""
    if task.domain == "metaworld":
        return _MetaWorld(task)
    domain = task.name.split("-")[0]
    if task.domain == "dmcontrol" and domain in _OF_DOMAIN:
        return _OF_DOMAIN[domain](task)
    raise PwmError(
        f"task '{task.name}' has no scripted controller; Meta-World's tasks and those of "
        f"{', '.join(CONTROLLED_DOMAINS)} do: use random, ou or policy for it."
    )
