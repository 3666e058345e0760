"""The custom tasks' rewards against the table of definitions, written out from raw physics."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import mujoco
import numpy as np
import pytest

from envs import dmcontrol
from envs.custom import CUSTOM_TASKS

State = tuple[mujoco.MjModel, mujoco.MjData]


def soft(x: float, low: float, high: float, margin: float = 0.0) -> float:
    """1 within the bounds, a Gaussian falling to 0.1 a margin beyond them."""
    gap = max(low - x, x - high, 0.0)
    if gap == 0:
        return 1.0
    return 0.1 ** ((gap / margin) ** 2) if margin else 0.0


def ramp(x: float, low: float, high: float, margin: float, at_margin: float) -> float:
    """1 within the bounds, a straight line through ``at_margin`` a margin beyond them, then 0."""
    gap = max(low - x, x - high, 0.0) / margin
    return max(0.0, 1 - gap * (1 - at_margin))


def speed(state: State) -> float:
    model, data = state
    mujoco.mj_subtreeVel(model, data)
    return data.subtree_linvel[model.body("torso").id][0]


def z(state: State, body: str) -> float:
    return state[1].body(body).xpos[2]


def walker_backwards(v: float) -> Callable[[State], float]:
    def reward(state: State) -> float:
        standing = soft(z(state, "torso"), 1.2, inf, 0.6)
        upright = (1 + state[1].body("torso").xmat[8]) / 2
        stand = (3 * standing + upright) / 4
        move = ramp(speed(state), -inf, -v, v / 2, 0.5)
        return stand * (5 * move + 1) / 6

    return reward


def cheetah_run_backwards(state: State) -> float:
    return ramp(speed(state), -inf, -8, 8, 0)


def cheetah_one_foot(foot: str) -> Callable[[State], float]:
    def reward(state: State) -> float:
        torso_up = soft(z(state, "torso"), 1.2, inf, 0.6)
        foot_up = soft(z(state, foot), 1.2, inf, 0.6)
        fast = ramp(speed(state), 6, inf, 6, 0)
        return (3 * foot_up + 2 * torso_up) / 5 * (5 * fast + 1) / 6

    return reward


def cheetah_jump(state: State) -> float:
    still = ramp(speed(state), -0.5, 0.5, 0.5, 0)
    high = [
        soft((z(state, "torso") + z(state, foot)) / 2, 1.2, inf, 0.6) for foot in ("bfoot", "ffoot")
    ]
    return sum((5 * one + still) / 6 for one in high) / 2


def hopper_backwards(state: State) -> float:
    data = state[1]
    height = data.body("torso").xipos[2] - data.body("foot").xipos[2]
    return soft(height, 0.6, 2) * ramp(speed(state), -inf, -1, 0.5, 0.5)


def reacher(size: float) -> Callable[[State], float]:
    def reward(state: State) -> float:
        data = state[1]
        gap = data.geom("target").xpos[:2] - data.geom("finger").xpos[:2]
        return float(np.hypot(*gap) <= size + 0.01)

    return reward


def cup_spin(state: State) -> float:
    data = state[1]
    gap = (data.site("target").xpos - data.body("ball").xpos)[[0, 2]]
    caught = float((np.abs(gap) < 0.05 - 0.025).all())
    far = ramp(float(np.hypot(*gap)), 0.5, inf, 0.25, 0.5)
    velocity = np.hypot(data.joint("ball_x").qvel[0], data.joint("ball_z").qvel[0])
    return (1 - caught) * (far + 2 * ramp(float(velocity), 6, inf, 3, 0.5)) / 3


def pendulum_spin(state: State) -> float:
    return ramp(abs(state[1].qvel[0]), 9, inf, 4.5, 0.5)


REWARDS: dict[str, Callable[[State], float]] = {
    "walker-walk-backwards": walker_backwards(1),
    "walker-run-backwards": walker_backwards(8),
    "cheetah-run-backwards": cheetah_run_backwards,
    "cheetah-run-front": cheetah_one_foot("bfoot"),
    "cheetah-run-back": cheetah_one_foot("ffoot"),
    "cheetah-jump": cheetah_jump,
    "hopper-hop-backwards": hopper_backwards,
    "reacher-three-easy": reacher(0.05),
    "reacher-three-hard": reacher(0.015),
    "cup-spin": cup_spin,
    "pendulum-spin": pendulum_spin,
}


def test_all_eleven_are_here() -> None:
    assert set(REWARDS) == set(CUSTOM_TASKS)


def scatter(task: str, physics: Any, rng: np.random.Generator) -> None:
    """A random state with the speeds and heights at which the task's terms change."""
    data = physics.data
    data.qvel[:] = rng.normal(0, 4, data.qvel.shape)
    if task.startswith(("walker", "cheetah", "hopper")):
        physics.named.data.qpos["rootz"] += rng.uniform(-0.2, 1.2)
        physics.named.data.qvel["rootx"] = rng.uniform(-12, 12) * rng.choice([0.1, 1])
    elif task == "cup-spin":
        near = rng.random() < 0.3
        reach = 0.04 if near else 0.9
        physics.named.data.qpos["ball_x"] = rng.uniform(-reach, reach)
        physics.named.data.qpos["ball_z"] = 0.35 + rng.uniform(-reach, reach)
    elif task.startswith("reacher") and rng.random() < 0.5:
        offset = rng.uniform(-0.05, 0.05, 2)
        finger = physics.named.data.geom_xpos["finger", :2]
        physics.named.model.geom_pos["target", :2] = finger + offset
    elif task == "pendulum-spin":
        data.qvel[:] = rng.uniform(-12, 12)


@pytest.mark.parametrize("task", REWARDS)
def test_reward(task: str) -> None:
    env = dmcontrol.load(task, 5)
    physics = env.physics
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        env.reset()
        scatter(task, physics, rng)
        physics.forward()
        reward = float(env.task.get_reward(physics))
        expected = REWARDS[task]((physics.model.ptr, physics.data.ptr))
        assert reward == pytest.approx(expected, abs=1e-9)
        assert 0 <= reward <= 1
        seen.append(reward)
    assert max(seen) > 0.5, "the states reach high rewards"
    assert min(seen) < 0.3, "the states reach low rewards"
    assert env.task.get_termination(physics) is None
