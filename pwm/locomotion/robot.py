"""What the simulator needs to know of a robot: its bodies, drives, muscles and the ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import newton
import numpy as np
import warp as wp

from pwm.locomotion import force_kernels
from pwm.locomotion.tree import LinkTree

Array = np.ndarray


@dataclass(frozen=True)
class Ground:
    """Compliant flat ground.

    Attributes:
        stiffness: N/m per contact sphere.
        damping: s/m, of the normal force against the vertical velocity.
        friction: Coulomb's coefficient.
        grip: N s/m per contact sphere, the slope of friction against slow sliding.
    """

    stiffness: float
    damping: float
    friction: float
    grip: float


@dataclass(frozen=True)
class Drive:
    """How torque comes about at each degree of freedom, (dofs,) each.

    ``gear * control + target_stiffness * (target_rest + target_range * control - coordinate)
    - damping * velocity``, and springs with dampers beyond the limits.
    """

    gear: Array
    target_stiffness: Array
    target_rest: Array
    target_range: Array
    damping: Array
    limit_lower: Array
    limit_upper: Array
    limit_stiffness: Array
    limit_damping: Array

    def struct(self, device: wp.Device) -> force_kernels.Drives:
        """The drives as kernels take them."""
        drives = force_kernels.Drives()
        for entry in fields(self):
            value: Any = wp.array(getattr(self, entry.name), dtype=float, device=device)
            setattr(drives, entry.name, value)
        return drives


@dataclass(frozen=True)
class Muscles:
    """Straight muscles between points of two bodies.

    Attributes:
        origin_body, insertion_body: (muscles,) indices of bodies.
        origin_point, insertion_point: (muscles, 3) m, in the frames of those bodies.
        strength: (muscles,) N at full activation and rest length.
        rest_length: (muscles,) m.
        tension_slope: by which share of its strength a muscle pulls more per rest length that it is
            stretched.
    """

    origin_body: list[int]
    origin_point: Array
    insertion_body: list[int]
    insertion_point: Array
    strength: Array
    rest_length: Array
    tension_slope: float


def no_muscles(_: newton.ModelBuilder) -> Muscles:
    """Of a robot that is driven at its joints."""
    return Muscles([], np.zeros((0, 3)), [], np.zeros((0, 3)), np.zeros(0), np.ones(0), 0.0)


@dataclass(frozen=True)
class Shape:
    """A sphere, or a capsule or cylinder, which has two ends.

    Attributes:
        link: that carries it.
        ends: (3,) each, in the link's frame.
        radius: m.
    """

    link: int
    ends: list[Array]
    radius: float


@dataclass(frozen=True)
class Robot:
    """A robot that :class:`~pwm.locomotion.articulated_step.ArticulatedStep` can simulate.

    Attributes:
        build: gives one copy of it.
        drive: its drives, given that copy.
        ground: what it stands on.
        substeps: integration steps per control step.
        step_seconds: length of a control step.
        muscle_table: its muscles, given that copy.
    """

    build: Callable[[], newton.ModelBuilder]
    drive: Callable[[newton.ModelBuilder], Drive]
    ground: Ground
    substeps: int
    step_seconds: float = 1 / 60
    muscle_table: Callable[[newton.ModelBuilder], Muscles] = no_muscles

    def on_stiffer_ground(self, factor: float) -> Robot:
        """The robot on ground whose contacts are so many times as stiff.

        Steps of integration are shorter by the root of it where that is above 1, as a stiffer
        spring swings faster.
        """
        ground = replace(self.ground, stiffness=factor * self.ground.stiffness)
        substeps = math.ceil(self.substeps * max(1.0, factor) ** 0.5)
        return replace(self, ground=ground, substeps=substeps)

    def shapes(self, single: newton.ModelBuilder, tree: LinkTree) -> list[Shape]:
        """All that the robot's bodies are made of."""
        found = []
        for kind, body, size, place in zip(
            single.shape_type,
            single.shape_body,
            single.shape_scale,
            single.shape_transform,
            strict=True,
        ):
            if body < 0:
                continue
            half = 0.0 if kind == newton.GeoType.SPHERE else float(size[1])
            ends = []
            for end in {-half, half}:
                centre = wp.transform_point(wp.transform(*place), wp.vec3(0.0, 0.0, end))
                ends.append(tree.point(body, np.array(centre)))
            found.append(Shape(tree.link_of_body[body], ends, float(size[0])))
        return found

    def spheres(
        self, single: newton.ModelBuilder, tree: LinkTree, device: wp.Device
    ) -> tuple[Any, Any, Any]:
        """What touches the ground: spheres, and both ends of capsules and cylinders.

        Returns:
            Arrays of links, of centres in their frames, and of radii.
        """
        links, centres, radii = [], [], []
        for shape in self.shapes(single, tree):
            for end in shape.ends:
                links.append(shape.link)
                centres.append(end)
                radii.append(shape.radius)
        return (
            wp.array(links, dtype=int, device=device),
            wp.array(np.array(centres), dtype=wp.vec3, device=device),
            wp.array(radii, dtype=float, device=device),
        )

    def muscles(
        self, single: newton.ModelBuilder, tree: LinkTree, device: wp.Device
    ) -> tuple[Any, ...]:
        """What ``force_kernels.muscle_pull`` takes, from origins' links to the tension's slope."""
        table = self.muscle_table(single)
        result: list[Any] = []
        for bodies, points in (
            (table.origin_body, table.origin_point),
            (table.insertion_body, table.insertion_point),
        ):
            links = [tree.link_of_body[body] for body in bodies]
            placed = [tree.point(body, point) for body, point in zip(bodies, points, strict=True)]
            result.append(wp.array(np.array(links, dtype=np.int32), dtype=int, device=device))
            result.append(wp.array(np.array(placed).reshape(-1, 3), dtype=wp.vec3, device=device))
        of_muscles = (table.strength, table.rest_length)
        result += [wp.array(values, dtype=float, device=device) for values in of_muscles]
        return (*result, table.tension_slope)
