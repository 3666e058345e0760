"""Small environments in which every learner can be tried in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pwm.locomotion.torch_simulation import TorchSimulation

_GRAVITY = 9.81  # m/s^2
_SUBSTEPS = 4


class BallWall(TorchSimulation):
    """A ball is thrown at 10 m/s, and the reward is how far it gets, in units of 10 m.

    The action is the angle, from along the ground to straight up. A wall of 2 m, 5 m away, stops
    what flies too low: there the distance is 0.5 whatever the angle, so its gradient is zero, and
    where the ball just clears the wall the distance jumps to twice that. A gradient of one throw
    knows nothing of the jump (PWM, Georgiev et al. 2025, begins with such an example).
    """

    name = "ball_wall"
    observation_size, action_size, episode_length, step_seconds = 1, 1, 1, 2.0
    speed, wall_distance, wall_height, unit = 10.0, 5.0, 2.0, 10.0

    @property
    def state_size(self) -> int:
        """One number that says nothing: there is nothing to see before the throw."""
        return 1

    def begin(self, uniform: Tensor) -> Tensor:
        """Always the same."""
        return torch.ones_like(uniform)

    def distance(self, angle: Tensor) -> Tensor:
        """Metres that a ball gets which is thrown at angles in radians."""
        along, up = self.speed * torch.cos(angle), self.speed * torch.sin(angle)
        lands = 2 * along * up / _GRAVITY
        time = self.wall_distance / along.clamp(min=1e-6)
        height = up * time - 0.5 * _GRAVITY * time**2
        hits = (lands > self.wall_distance) & (height < self.wall_height)
        return torch.where(hits, self.wall_distance, lands)

    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One throw, after which the episode has ended."""
        angle = (action[:, 0] + 1) * (math.pi / 4)
        reward = self.distance(angle) / self.unit
        return state, reward, torch.ones_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(N, 1) ones."""
        return state


class Pendulum(TorchSimulation):
    """A torque that is too weak to lift a pendulum at once swings it up.

    State: angle from upright (rad) and velocity (rad/s). The reward is at most 1, for standing
    upright, and lower with the square of velocity and torque.
    """

    name = "pendulum"
    observation_size, action_size, episode_length, step_seconds = 3, 1, 100, 0.05
    torque = 4.0  # of a mass of 1 kg at 1 m, which 9.81 would hold level

    @property
    def state_size(self) -> int:
        """Angle and velocity."""
        return 2

    def begin(self, uniform: Tensor) -> Tensor:
        """Any angle, and up to 1 rad/s."""
        return uniform * torch.tensor([math.pi, 1.0], device=uniform.device)

    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Semi-implicit Euler in four substeps."""
        angle, velocity = state.unbind(1)
        dt = self.step_seconds / _SUBSTEPS
        for _ in range(_SUBSTEPS):
            pull = _GRAVITY * torch.sin(angle) + self.torque * action[:, 0] - 0.1 * velocity
            velocity = velocity + dt * pull
            angle = angle + dt * velocity
        reward = torch.cos(angle) - 0.01 * velocity**2 - 0.01 * action[:, 0] ** 2
        return torch.stack([angle, velocity], 1), reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """Cosine and sine of the angle, and the velocity."""
        angle, velocity = state.unbind(1)
        return torch.stack([torch.cos(angle), torch.sin(angle), velocity / 4], 1)


class DoublePendulum(TorchSimulation):
    """Two links of 1 kg and 1 m, each a point mass at its end, with a torque at each joint.

    Hanging links that are driven hard move chaotically, so a gradient through many steps grows
    without bound although every step is smooth. State: angles from upright of both links, and
    their velocities. The reward is the height of the end, from -1 to 1, less a cost of velocity
    and torque.
    """

    name = "double_pendulum"
    observation_size, action_size, episode_length, step_seconds = 6, 2, 100, 0.05
    torques = (20.0, 10.0)

    @property
    def state_size(self) -> int:
        """Two angles and two velocities."""
        return 4

    def begin(self, uniform: Tensor) -> Tensor:
        """Near hanging straight down, at rest."""
        spread = torch.tensor([0.5, 0.5, 0.1, 0.1], device=uniform.device)
        return uniform * spread + torch.tensor([math.pi, math.pi, 0, 0], device=uniform.device)

    def _acceleration(self, state: Tensor, torque: Tensor) -> Tensor:
        """(N, 2) of the angles, from the Lagrangian of two point masses."""
        a1, a2, v1, v2 = state.unbind(1)
        cos, sin = torch.cos(a1 - a2), torch.sin(a1 - a2)
        # [[2, cos], [cos, 1]] @ acceleration = force
        force1 = 2 * _GRAVITY * torch.sin(a1) - sin * v2**2 + torque[:, 0] - torque[:, 1] - 0.1 * v1
        force2 = _GRAVITY * torch.sin(a2) + sin * v1**2 + torque[:, 1] - 0.1 * (v2 - v1)
        determinant = 2 - cos**2
        first = (force1 - cos * force2) / determinant
        return torch.stack([first, (2 * force2 - cos * force1) / determinant], 1)

    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Semi-implicit Euler in four substeps."""
        torque = action * torch.tensor(self.torques, device=action.device)
        dt = self.step_seconds / _SUBSTEPS
        angle, velocity = state.split(2, 1)
        for _ in range(_SUBSTEPS):
            pull = self._acceleration(torch.cat([angle, velocity], 1), torque)
            velocity = velocity + dt * pull
            angle = angle + dt * velocity
        height = torch.cos(angle).sum(1) / 2
        cost = 0.002 * velocity.square().sum(1) + 0.01 * action.square().sum(1)
        ended = torch.zeros(len(state), dtype=torch.bool, device=state.device)
        return torch.cat([angle, velocity], 1), height - cost, ended

    def observe(self, state: Tensor) -> Tensor:
        """Cosines and sines of the angles, and the velocities."""
        angle, velocity = state.split(2, 1)
        return torch.cat([torch.cos(angle), torch.sin(angle), velocity / 8], 1)
