"""The pendulum, spinning."""

from __future__ import annotations

from math import inf

from dm_control.suite import pendulum
from dm_control.utils.rewards import tolerance

from .base import loader


class _Spin(pendulum.SwingUp):
    """Turn at 9 rad/s, either way round."""

    def get_reward(self, physics: pendulum.Physics) -> float:
        speed = abs(physics.angular_velocity().item())
        return tolerance(speed, (9, inf), margin=4.5, value_at_margin=0.5, sigmoid="linear")


TASKS = {"pendulum-spin": loader(pendulum.swingup, _Spin)}
