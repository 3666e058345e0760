"""The robots: models that installed packages ship, with our drives, limits and contacts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

import newton
import numpy as np
import warp as wp

from pwm.locomotion.muscles import humanoid_muscles
from pwm.locomotion.robot import Drive, Ground, Robot

NEWTON_ASSETS = ("newton", "examples", "assets")
GYMNASIUM_ASSETS = ("gymnasium", "envs", "mujoco", "assets")


def _load(folder: tuple[str, ...], file: str) -> newton.ModelBuilder:
    path = str(files(folder[0]).joinpath(*folder[1:], file))
    builder = newton.ModelBuilder()
    if file.endswith(".urdf"):
        builder.add_urdf(path, floating=True, enable_self_collisions=False)
    else:
        builder.add_mjcf(path, enable_self_collisions=False, parse_sites=False)
    return builder


def _hopper() -> newton.ModelBuilder:
    """The hopper, whose torso turns about its own centre.

    Newton makes one joint of the file's two slides and its hinge, and keeps only the first one's
    place, 1.25 m below the torso; height and speed would be those of that point.
    """
    builder: Any = _load(GYMNASIUM_ASSETS, "hopper.xml")
    builder.joint_X_p[0] = wp.transform(wp.vec3(0.0, 0.0, 1.25), wp.quat_identity())
    builder.joint_X_c[0] = wp.transform_identity()
    result: newton.ModelBuilder = builder
    return result


def _motors(
    single: newton.ModelBuilder,
    *,
    gears: tuple[float, ...],
    limit_stiffness: float,
    limit_damping: float,
) -> Drive:
    """Torque motors of the last degrees of freedom, beside the springs and dampers of the file."""
    dofs, motors = len(single.joint_qd), len(gears)
    passive = np.zeros(dofs - motors)
    rest = np.array(single.joint_rest_q[-motors:])
    return Drive(
        gear=np.concatenate([passive, gears]),
        target_stiffness=np.array(single.joint_stiffness),
        target_rest=np.concatenate([passive, rest]),
        target_range=np.zeros(dofs),
        damping=np.array(single.joint_damping),
        limit_lower=np.array(single.joint_limit_lower),
        limit_upper=np.array(single.joint_limit_upper),
        limit_stiffness=np.concatenate([passive, np.full(motors, limit_stiffness)]),
        limit_damping=np.concatenate([passive, np.full(motors, limit_damping)]),
    )


def _torque_driven(
    gears: tuple[float, ...], limit_stiffness: float, limit_damping: float
) -> Callable[[newton.ModelBuilder], Drive]:
    return partial(
        _motors, gears=gears, limit_stiffness=limit_stiffness, limit_damping=limit_damping
    )


def _servos(single: newton.ModelBuilder) -> Drive:
    """Position servos of a quadruped's 12 joints, about its standing pose."""
    joints, root = 12, np.zeros(6)
    far = np.full(len(single.joint_qd), 1e6)
    return Drive(
        gear=np.zeros(18),
        target_stiffness=np.concatenate([root, np.full(joints, SERVO_STIFFNESS)]),
        target_rest=np.concatenate([root, STANDING_QUADRUPED]),
        target_range=np.concatenate([root, np.full(joints, SERVO_RANGE)]),
        damping=np.concatenate([root, np.full(joints, SERVO_DAMPING)]),
        limit_lower=-far,
        limit_upper=far,
        limit_stiffness=np.zeros(18),
        limit_damping=np.zeros(18),
    )


SERVO_STIFFNESS = 85.0  # N m/rad
SERVO_DAMPING = 2.0  # N m s/rad
SERVO_RANGE = 0.5  # rad either way
STANDING_QUADRUPED = np.array([0.0, 0.4, -0.8, 0.0, -0.4, 0.8, 0.0, 0.4, -0.8, 0.0, -0.4, 0.8])
HUMANOID_GEARS = (
    *(67.5, 67.5, 67.5),
    *(45.0, 45.0, 135.0, 90.0, 22.5, 22.5),
    *(45.0, 45.0, 135.0, 90.0, 22.5, 22.5),
    *(67.5, 67.5, 45.0),
    *(67.5, 67.5, 45.0),
)

HOPPER = Robot(
    build=_hopper,
    drive=_torque_driven((200.0, 200.0, 200.0), 1000.0, 10.0),
    ground=Ground(stiffness=20000.0, damping=0.5, friction=0.9, grip=1000.0),
    substeps=16,
)
ANT = Robot(
    build=partial(_load, NEWTON_ASSETS, "nv_ant.xml"),
    drive=_torque_driven((7.5,) * 8, 50.0, 0.5),
    ground=Ground(stiffness=2000.0, damping=1.0, friction=1.0, grip=20.0),
    substeps=16,
)
QUADRUPED = Robot(
    build=partial(_load, NEWTON_ASSETS, "quadruped.urdf"),
    drive=_servos,
    ground=Ground(stiffness=20000.0, damping=0.5, friction=0.9, grip=400.0),
    substeps=16,
)
HUMANOID = Robot(
    build=partial(_load, NEWTON_ASSETS, "nv_humanoid.xml"),
    drive=_torque_driven(HUMANOID_GEARS, 300.0, 3.0),
    ground=Ground(stiffness=20000.0, damping=0.5, friction=0.9, grip=200.0),
    substeps=24,
)
MUSCLES = Robot(
    build=HUMANOID.build,
    drive=_torque_driven((0.0,) * 21, 300.0, 3.0),
    ground=HUMANOID.ground,
    substeps=HUMANOID.substeps,
    muscle_table=humanoid_muscles,
)
