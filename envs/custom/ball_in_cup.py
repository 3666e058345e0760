"""The ball in a cup, swung round outside it."""

from __future__ import annotations

from math import inf

import numpy as np
from dm_control.suite import ball_in_cup
from dm_control.suite.base import Task
from dm_control.utils.rewards import tolerance

from .base import loader

_OUTSIDE_PROBABILITY = 0.1


class _Spin(ball_in_cup.BallInCup):
    """Keep the ball far from the target and fast; most episodes start with it in the cup."""

    def initialize_episode(self, physics: ball_in_cup.Physics) -> None:
        """Draws whether the ball may start outside the cup, then positions until one will do."""
        anywhere = self.random.uniform() < _OUTSIDE_PROBABILITY
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        # Past the stock task's own draw.
        Task.initialize_episode(self, physics)

    def get_reward(self, physics: ball_in_cup.Physics) -> float:
        distance = np.linalg.norm(physics.ball_to_target())
        speed = np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]])
        far = tolerance(distance, (0.5, inf), margin=0.25, value_at_margin=0.5, sigmoid="linear")
        fast = tolerance(speed, (6, inf), margin=3, value_at_margin=0.5, sigmoid="linear")
        return (1 - physics.in_target()) * (far + 2 * fast) / 3


TASKS = {"cup-spin": loader(ball_in_cup.catch, _Spin)}
