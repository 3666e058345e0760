"""Places of bodies and their accelerations beside those of MuJoCo, off the ground."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch

pytest.importorskip("newton", reason="needs the extra locomotion")
pytest.importorskip("mujoco", reason="needs the extra sim")

import mujoco

from pwm.locomotion import robots
from pwm.locomotion.articulated_step import GRAVITY, ArticulatedStep

SECONDS = 1e-3
MODELS = {
    "hopper": (robots.HOPPER, robots.GYMNASIUM_ASSETS, "hopper.xml"),
    "humanoid": (robots.HUMANOID, robots.NEWTON_ASSETS, "nv_humanoid.xml"),
}


def within_limits(model, chance: np.random.Generator) -> np.ndarray:
    limited = [joint for joint in range(model.njnt) if model.jnt_limited[joint]]
    low, high = model.jnt_range[limited].T
    return low + (high - low) * chance.uniform(0.2, 0.8, len(limited))


@pytest.mark.parametrize("name", MODELS)
def test_places_and_accelerations_are_those_of_mujoco(name):
    robot, folder, file = MODELS[name]
    text = files(folder[0]).joinpath(*folder[1:], file).read_text()
    model = mujoco.MjModel.from_xml_string(re.sub("<sensor>.*</sensor>", "", text, flags=re.DOTALL))
    model.opt.gravity[:] = [0, 0, -GRAVITY]
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    model.jnt_stiffness[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE] = 0  # a default of the file
    chance = np.random.default_rng(3)
    angles = within_limits(model, chance)
    qd = chance.normal(size=model.nv)
    data = mujoco.MjData(model)
    step = ArticulatedStep(replace(robot, substeps=1, step_seconds=SECONDS), 1, "cpu")
    ours_qd = qd.copy()
    if name == "hopper":
        data.qpos[1], data.qpos[2], lean = 4.25, 0.3, 0.3
        q = np.array([0, 3.0, lean, *angles])
    else:
        turn = np.array([0.9, 0.1, -0.2, 0.3]) / np.linalg.norm([0.9, 0.1, -0.2, 0.3])
        data.qpos[:7] = [0, 0, 4, *turn]
        q = np.array([0, 0, 4, *turn[1:], turn[0], *angles])
    data.qpos[-len(angles) :], data.qvel[:] = angles, qd
    mujoco.mj_kinematics(model, data)
    if name == "humanoid":  # MuJoCo's free joint: velocity of the origin, spin in the body's axes
        rotation = data.xmat[1].reshape(3, 3)
        ours_qd[3:6] = rotation @ qd[3:6]
        ours_qd[:3] = qd[:3] + np.cross(ours_qd[3:6], data.xipos[1] - data.xpos[1])
    mujoco.mj_forward(model, data)
    given = [torch.tensor(value, dtype=torch.float32)[None] for value in (q, ours_qd)]
    centres = step.shape_ends(given[0])[0].mean(1).numpy()
    assert np.allclose(centres, data.geom_xpos[model.geom_bodyid > 0], atol=1e-5)
    with torch.no_grad():
        _, moved = step(*given, torch.zeros(1, step.dofs), torch.zeros(1, 0))
    found = ((moved - given[1])[0].double() / SECONDS).numpy()
    wanted = data.qacc.copy()
    if name == "humanoid":
        found, wanted = found[3:], wanted[3:]
        wanted[:3] = rotation @ wanted[:3]
    assert np.allclose(found, wanted, rtol=1e-2, atol=1e-3 * np.abs(wanted).max())
