"""A robot's tree of links with one joint each, made of what Newton reads from MJCF and URDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import newton
import numpy as np
import warp as wp

from pwm.locomotion import rigid_kernels

Array = np.ndarray


@dataclass
class Link:
    """A link: its joint in its parent's frame, and its mass; ``body`` is -1 between two hinges."""

    parent: int
    kind: int
    placement: Any
    axis: Array
    body: int = -1
    mass: float = 0.0
    centre: Array | None = None
    inertia: Array | None = None


class LinkTree:
    """The links of one robot; bodies with several hinges become several links.

    Attributes:
        links: from the root to the tips.
        coordinates, dofs: joint coordinates and degrees of freedom.
        link_of_body: index of the link that carries each of Newton's bodies.
        body_in_link: that body's frame in the link's.
    """

    def __init__(self, single: newton.ModelBuilder) -> None:
        self.links: list[Link] = []
        self.link_of_body: dict[int, int] = {}
        self.body_in_link: dict[int, Any] = {}
        self.coordinates, self.dofs = len(single.joint_q), len(single.joint_qd)
        for joint in range(single.joint_count):
            self._add(single, joint)

    def _add(self, single: newton.ModelBuilder, joint: int) -> None:
        body, parent = single.joint_child[joint], single.joint_parent[joint]
        placement: Any = wp.transform(*single.joint_X_p[joint])
        above = self.link_of_body.get(parent, -1)
        if above >= 0:
            placement = self.body_in_link[parent] * placement
        for kind, axis in _motions(single, joint):
            self.links.append(Link(above, kind, placement, axis))
            above, placement = len(self.links) - 1, wp.transform_identity()
        self.link_of_body[body] = above
        inside = wp.transform_inverse(wp.transform(*single.joint_X_c[joint]))
        self.body_in_link[body] = inside
        turn = np.array(wp.quat_to_matrix(wp.transform_get_rotation(inside))).reshape(3, 3)
        link = self.links[above]
        link.body, link.mass = body, single.body_mass[body]
        link.centre = np.array(wp.transform_point(inside, wp.vec3(*single.body_com[body])))
        link.inertia = turn @ np.array(single.body_inertia[body]).reshape(3, 3) @ turn.T

    def point(self, body: int, point: Array) -> Array:
        """A point of a body's frame, in the frame of its link."""
        return np.array(wp.transform_point(self.body_in_link[body], wp.vec3(*point)))

    def outer_links(self) -> Array:
        """(dofs, dofs): of two degrees of freedom on one branch, the outer one's link; else -1."""
        owners = [i for i, link in enumerate(self.links) for _ in range(_dofs(link.kind))]
        branch: list[set[int]] = []
        for index, link in enumerate(self.links):
            branch.append({index} | (branch[link.parent] if link.parent >= 0 else set()))
        return np.array(
            [
                [max(a, b) if a in branch[b] or b in branch[a] else -1 for b in owners]
                for a in owners
            ]
        )

    def struct(self, gravity: float, device: wp.Device) -> rigid_kernels.Tree:
        """The tree as kernels take it."""
        links = self.links
        tree = rigid_kernels.Tree()
        tree.links, tree.coordinates, tree.dofs = len(links), self.coordinates, self.dofs
        tree.gravity = gravity
        widths = [_dofs(link.kind) for link in links]
        starts = np.cumsum([0, *widths[:-1]])
        floating = links[0].kind == rigid_kernels.FREE
        subtree = [link.mass for link in links]
        for index in range(len(links) - 1, 0, -1):
            subtree[links[index].parent] += subtree[index]
        values = {
            "parent": ([link.parent for link in links], int),
            "kind": ([int(link.kind) for link in links], int),
            "q_start": (starts + (np.arange(len(links)) > 0) * floating, int),
            "qd_start": (starts, int),
            "placement": ([np.array(link.placement) for link in links], wp.transform),
            "axis": ([link.axis for link in links], wp.vec3),
            "mass": ([link.mass for link in links], float),
            "centre": ([_or_zeros(link.centre, 3) for link in links], wp.vec3),
            "inertia": ([_or_zeros(link.inertia, 3, 3) for link in links], wp.mat33),
            "subtree_mass": (subtree, float),
        }
        for name, (value, dtype) in values.items():
            setattr(tree, name, wp.array(np.array(value), dtype=dtype, device=device))
        return tree


def _or_zeros(value: Array | None, *shape: int) -> Array:
    return np.zeros(shape) if value is None else value


def _dofs(kind: int) -> int:
    return 6 if kind == rigid_kernels.FREE else 1


def _motions(single: newton.ModelBuilder, joint: int) -> list[tuple[int, Array]]:
    """The kinds and axes of the one-joint links that a joint of Newton's stands for."""
    if single.joint_type[joint] == newton.JointType.FREE:
        return [(rigid_kernels.FREE, np.zeros(3))]
    linear, angular = single.joint_dof_dim[joint]
    start = single.joint_qd_start[joint]
    axes = [np.array(single.joint_axis[start + i]) for i in range(linear + angular)]
    kinds = [rigid_kernels.SLIDE] * linear + [rigid_kernels.HINGE] * angular
    return list(zip(kinds, axes, strict=True))
