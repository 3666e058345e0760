"""What is observed, rewarded and ended in each locomotion environment, in torch.

All functions take joint coordinates (N, coordinates), velocities (N, dofs) and actions (N, A) as
``pwm.locomotion.articulated_step`` describes them, and give (N, ...) tensors with gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pwm.locomotion import robots
from pwm.locomotion.robot import Robot

Observe = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Posture:
    """Height, up and heading of a floating torso, and its velocity forward.

    Attributes:
        height: (N,) m, of its origin.
        up: (N,) 1 where its own vertical axis is vertical.
        heading: (N,) 1 where it faces along x.
        forward: (N,) m/s, along x, of its centre of mass.
    """

    height: Tensor
    up: Tensor
    heading: Tensor
    forward: Tensor

    @classmethod
    def of(cls, q: Tensor, qd: Tensor) -> Posture:
        """Of joint coordinates and velocities with a free joint first."""
        x, y, z = q[:, 3], q[:, 4], q[:, 5]
        return cls(q[:, 2], 1 - 2 * (x**2 + y**2), 1 - 2 * (y**2 + z**2), qd[:, 0])


@dataclass(frozen=True)
class Task:
    """An environment of one robot.

    Attributes:
        robot: the robot.
        rest_q: its pose at the beginning, of which the last ones are its joints.
        travel: how many leading coordinates say where it is over ground.
        observation: what is observed.
        reward: (N,) of the state that a step led to and the step's action.
        fallen: (N,) bool, whether that state ends the episode.
        observation_size: number of its components.
        muscles: whether actions are muscles' and not joints'.
    """

    robot: Robot
    rest_q: tuple[float, ...]
    travel: int
    observation: Observe
    reward: Observe
    fallen: Callable[[Tensor, Tensor], Tensor]
    observation_size: int
    muscles: bool = False


def _floating_observation(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    posture = Posture.of(q, qd)
    parts = [q[:, 2:7], qd[:, :6], q[:, 7:], 0.2 * qd[:, 6:]]
    return torch.cat([*parts, posture.up[:, None], posture.heading[:, None], action], dim=1)


def _unactuated_observation(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    return _floating_observation(q, qd, action[:, :0])


def _hopper_observation(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    return torch.cat([q[:, 1:], qd], dim=1)


def _height_bonus(height: Tensor, tolerance: float, slope: float) -> Tensor:
    """``slope`` per metre up to ``tolerance`` above zero, and a steep parabola below."""
    clipped = height.clamp(-1.0, tolerance)
    return torch.where(clipped < 0, -200 * clipped**2, slope * clipped)


def _ant_reward(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    posture = Posture.of(q, qd)
    height = posture.height - ANT_FALL
    return posture.forward + height + 0.1 * posture.up + posture.heading


def _hopper_reward(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    height = _height_bonus(q[:, 1] - (HOPPER_FALL + 0.15), 0.3, 1.0)
    lean = 1 - (q[:, 2] / HOPPER_LEAN) ** 2
    return qd[:, 0] + height + lean - 0.1 * action.square().sum(1)


def _quadruped_reward(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    posture = Posture.of(q, qd)
    height = posture.height - QUADRUPED_FALL
    bonus = height + 0.1 * posture.up + posture.heading
    return posture.forward + bonus - 0.005 * action.square().sum(1)


def _humanoid_reward(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    posture = Posture.of(q, qd)
    height = _height_bonus(posture.height - (HUMANOID_FALL + 0.1), 0.1, 10.0)
    bonus = height + 0.1 * posture.up + posture.heading
    return posture.forward + bonus - 0.002 * action.square().sum(1)


def _muscles_reward(q: Tensor, qd: Tensor, action: Tensor) -> Tensor:
    activation = (action + 1) / 2
    return _humanoid_reward(q, qd, action[:, :0]) - 0.002 * activation.square().sum(1)


def _hopper_fallen(q: Tensor, qd: Tensor) -> Tensor:
    return (q[:, 1] < HOPPER_FALL) | (q[:, 2].abs() > HOPPER_TOPPLED)


def _below(height: float, coordinate: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, qd: q[:, coordinate] < height


ANT_FALL = 0.27  # m
HOPPER_FALL = -0.45  # m, against standing
HOPPER_LEAN = 0.5236  # rad at which leaning is worth nothing
HOPPER_TOPPLED = 1.0  # rad
QUADRUPED_FALL = 0.25  # m
HUMANOID_FALL = 0.74  # m

_LEVEL = (0.0, 0.0, 0.0, 1.0)
HOPPER = Task(
    robots.HOPPER,
    rest_q=(0.0,) * 6,
    travel=1,
    observation=_hopper_observation,
    reward=_hopper_reward,
    fallen=_hopper_fallen,
    observation_size=11,
)
ANT = Task(
    robots.ANT,
    rest_q=(0.0, 0.0, 0.6, *_LEVEL, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0),
    travel=2,
    observation=_floating_observation,
    reward=_ant_reward,
    fallen=_below(ANT_FALL, 2),
    observation_size=37,
)
QUADRUPED = Task(
    robots.QUADRUPED,
    rest_q=(0.0, 0.0, 0.52, *_LEVEL, *robots.STANDING_QUADRUPED),
    travel=2,
    observation=_floating_observation,
    reward=_quadruped_reward,
    fallen=_below(QUADRUPED_FALL, 2),
    observation_size=49,
)
HUMANOID = Task(
    robots.HUMANOID,
    rest_q=(0.0, 0.0, 1.31, *_LEVEL, *(0.0,) * 21),
    travel=2,
    observation=_floating_observation,
    reward=_humanoid_reward,
    fallen=_below(HUMANOID_FALL, 2),
    observation_size=76,
)
MUSCLES = Task(
    robots.MUSCLES,
    rest_q=HUMANOID.rest_q,
    travel=2,
    observation=_unactuated_observation,
    reward=_muscles_reward,
    fallen=HUMANOID.fallen,
    observation_size=55,
    muscles=True,
)
