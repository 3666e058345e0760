"""152 straight muscles for the humanoid, generated from rings of lines around its joints.

The table is ours: no anatomical model was copied. Each group spans one or more joints between two
bodies with a ring of muscles. Their attachments lie around the bones' directions at the joint's
centre, at a distance from it along both bones; some cross the joint obliquely and so turn it about
its long axis. The muscles of a ring together are strong enough for the torque of the motor of the
humanoid without muscles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import newton
import numpy as np
import warp as wp

from pwm.locomotion.robot import Muscles

Array = np.ndarray


@dataclass(frozen=True)
class Ring:
    """Muscles around a joint.

    Attributes:
        origin, insertion: names of the bodies that they join; ``{side}_`` stands for both sides.
        joint: name of the body whose joint they surround.
        count: muscles of the ring.
        radius: m, their distance from the bones.
        reach: m, of the attachments from the joint's centre, on the origin and the insertion.
        directions: from the joint's centre into the origin and into the insertion.
        torque: N m, that half of the ring has together.
    """

    origin: str
    insertion: str
    joint: str
    count: int
    radius: float
    reach: tuple[float, float]
    directions: tuple[tuple[float, float, float], tuple[float, float, float]]
    torque: float


_UP, _DOWN = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
_ARM = (1.0, -1.0, -1.0)  # of a right upper arm
_FOREARM = (1.0, 1.0, 1.0)
SIDES = (
    Ring("pelvis", "{side}_thigh", "{side}_thigh", 24, 0.07, (0.05, 0.2), (_UP, _DOWN), 135.0),
    Ring("{side}_thigh", "{side}_shin", "{side}_shin", 12, 0.05, (0.1, 0.08), (_UP, _DOWN), 90.0),
    Ring("{side}_shin", "{side}_foot", "{side}_foot", 14, 0.05, (0.1, 0.05), (_UP, _DOWN), 40.0),
    Ring(
        origin="torso",
        insertion="{side}_upper_arm",
        joint="{side}_upper_arm",
        count=10,
        radius=0.05,
        reach=(0.06, 0.12),
        directions=((-1.0, 1.0, 1.0), _ARM),
        torque=67.5,
    ),
    Ring(
        origin="{side}_upper_arm",
        insertion="{side}_lower_arm",
        joint="{side}_lower_arm",
        count=6,
        radius=0.04,
        reach=(0.14, 0.08),
        directions=((-1.0, 1.0, 1.0), _FOREARM),
        torque=45.0,
    ),
)
TRUNK = (
    Ring("torso", "lower_waist", "lower_waist", 12, 0.08, (0.1, 0.06), (_UP, _DOWN), 67.5),
    Ring("lower_waist", "pelvis", "pelvis", 8, 0.08, (0.08, 0.06), (_UP, _DOWN), 67.5),
)
TENSION_SLOPE = 8.0  # about 1 per length of fibres, which are an eighth of muscle and tendon
OBLIQUE = np.deg2rad(40.0)  # by which every third muscle of a ring turns about the joint


def humanoid_muscles(single: newton.ModelBuilder) -> Muscles:
    """The table: 66 muscles on each side, and 20 of the trunk."""
    rows = [row for ring in TRUNK for row in _muscles(single, ring, "", 1.0)]
    for side, mirror in (("right", 1.0), ("left", -1.0)):
        rows += [row for ring in SIDES for row in _muscles(single, ring, side, mirror)]
    origins, starts, insertions, ends, strengths, lengths = zip(*rows, strict=True)
    return Muscles(
        list(origins),
        np.array(starts),
        list(insertions),
        np.array(ends),
        np.array(strengths),
        np.array(lengths),
        TENSION_SLOPE,
    )


def _muscles(
    single: newton.ModelBuilder, ring: Ring, side: str, mirror: float
) -> list[tuple[int, Array, int, Array, float, float]]:
    """Origin, its point, insertion, its point, strength and length of each muscle of a ring."""
    names = [label.split("/")[-1] for label in single.body_label]
    origin, insertion, jointed = (
        names.index(name.format(side=side)) for name in (ring.origin, ring.insertion, ring.joint)
    )
    poses = _rest_poses(single)
    joint = list(single.joint_child).index(jointed)
    anchor = poses[jointed] * wp.transform(*single.joint_X_c[joint])
    centre = np.array(wp.transform_get_translation(anchor))
    flip = np.array([1.0, mirror, 1.0])
    into_origin, into_insertion = (
        flip * np.array(direction) / np.linalg.norm(direction) for direction in ring.directions
    )
    strength = ring.torque / (ring.count / 2 * ring.radius * 2 / np.pi)
    rows = []
    for index in range(ring.count):
        angle = mirror * 2 * np.pi * (index + 0.5) / ring.count
        turn = mirror * OBLIQUE * (0.0, 1.0, -1.0)[index % 3]
        start = _around(centre, into_origin, -into_origin, angle, ring.radius, ring.reach[0])
        end = _around(
            centre, into_insertion, into_insertion, angle + turn, ring.radius, ring.reach[1]
        )
        length = float(np.linalg.norm(end - start))
        start, end = (
            np.array(wp.transform_point(wp.transform_inverse(poses[body]), wp.vec3(*point)))
            for body, point in ((origin, start), (insertion, end))
        )
        rows.append((origin, start, insertion, end, strength, length))
    return rows


def _around(
    centre: Array, along: Array, axis: Array, angle: float, radius: float, reach: float
) -> Array:
    """A point beside a bone: ``reach`` along it and ``radius`` off it, at an angle about it."""
    forward = np.array([1.0, 0.0, 0.0])
    if abs(forward @ axis) > 0.9:
        forward = np.array([0.0, 0.0, 1.0])
    first = forward - (forward @ axis) * axis
    first /= np.linalg.norm(first)
    across = np.cos(angle) * first + np.sin(angle) * np.cross(axis, first)
    return centre + reach * along + radius * across


def _rest_poses(single: newton.ModelBuilder) -> dict[int, Any]:
    """Bodies' frames where all joint coordinates are zero."""
    poses: dict[int, Any] = {-1: wp.transform_identity()}
    for joint in range(single.joint_count):
        placed = poses[single.joint_parent[joint]] * wp.transform(*single.joint_X_p[joint])
        inside = wp.transform_inverse(wp.transform(*single.joint_X_c[joint]))
        poses[single.joint_child[joint]] = placed * inside
    return poses
