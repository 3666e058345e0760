"""Warp kernels of what acts on articulated bodies: the ground, muscles, motors, springs, limits."""

import warp as wp

from pwm.locomotion.rigid_kernels import FREE, Tree, origin_of


@wp.kernel
def ground_contact(
    tree: Tree,
    pose: wp.array[wp.transform],
    twist: wp.array[wp.spatial_vector],
    sphere_link: wp.array[int],
    sphere_centre: wp.array[wp.vec3],
    sphere_radius: wp.array[float],
    stiffness: float,
    damping: float,
    friction: float,
    grip: float,
    external: wp.array[wp.spatial_vector],
):
    """Force of the ground on spheres that are fixed to links; one thread per world and sphere.

    The normal force is ``stiffness * depth * (1 - damping * vertical velocity)``, never negative.
    Friction is ``grip`` times a slow sliding speed, and ``friction`` times the normal force against
    a fast one. The slope is bounded because a step that is not stable under an impact makes
    gradients meaningless long before it makes motions so.
    """
    world, sphere = wp.tid()
    link = world * tree.links + sphere_link[sphere]
    centre = wp.transform_point(pose[link], sphere_centre[sphere])
    depth = sphere_radius[sphere] - centre[2]
    if depth > 0.0:
        origin = origin_of(tree, pose, world)
        arm = centre - wp.vec3(0.0, 0.0, sphere_radius[sphere]) - origin
        velocity = wp.spatial_top(twist[link]) + wp.cross(wp.spatial_bottom(twist[link]), arm)
        normal = stiffness * depth * wp.max(1.0 - damping * velocity[2], 0.0)
        sliding = velocity[0] * velocity[0] + velocity[1] * velocity[1]
        most = friction * normal
        drag = -most / wp.sqrt(sliding + (most * most) / (grip * grip) + 1.0e-6)
        force = wp.vec3(drag * velocity[0], drag * velocity[1], normal)
        wp.atomic_add(external, link, wp.spatial_vector(force, wp.cross(arm, force)))


@wp.kernel
def muscle_pull(
    tree: Tree,
    pose: wp.array[wp.transform],
    activation: wp.array2d[float],
    origin_link: wp.array[int],
    origin_point: wp.array[wp.vec3],
    insertion_link: wp.array[int],
    insertion_point: wp.array[wp.vec3],
    strength: wp.array[float],
    rest_length: wp.array[float],
    tension_slope: float,
    external: wp.array[wp.spatial_vector],
):
    """Draw a muscle's two attachments together; one thread per world and muscle.

    A stretched muscle pulls more and a shortened one less, by ``tension_slope`` per rest length,
    as on the ascending limb of the length-tension relation. With a constant tension, muscles that
    pull against each other across a joint would make it buckle.
    """
    world, muscle = wp.tid()
    first = world * tree.links + origin_link[muscle]
    second = world * tree.links + insertion_link[muscle]
    start = wp.transform_point(pose[first], origin_point[muscle])
    end = wp.transform_point(pose[second], insertion_point[muscle])
    stretch = wp.length(end - start) / rest_length[muscle] - 1.0
    tension = strength[muscle] * wp.max(1.0 + tension_slope * stretch, 0.0)
    force = tension * activation[world, muscle] * wp.normalize(end - start)
    arm = start - origin_of(tree, pose, world)
    wrench = wp.spatial_vector(force, wp.cross(arm, force))
    wp.atomic_add(external, first, wrench)
    wp.atomic_add(external, second, -wrench)


@wp.func
def limit_torque(
    q: float, qd: float, lower: float, upper: float, stiffness: float, damping: float
) -> float:
    """Spring and damper beyond a joint's limits; the damper sets in over 0.02 of the coordinate."""
    torque = 0.0
    if q < lower:
        torque = stiffness * (lower - q) - damping * wp.min((lower - q) / 0.02, 1.0) * qd
    if q > upper:
        torque = stiffness * (upper - q) - damping * wp.min((q - upper) / 0.02, 1.0) * qd
    return torque


@wp.struct
class Drives:
    """How torque comes about at each degree of freedom, (dofs,) each."""

    gear: wp.array[float]
    target_stiffness: wp.array[float]
    target_rest: wp.array[float]
    target_range: wp.array[float]
    damping: wp.array[float]
    limit_lower: wp.array[float]
    limit_upper: wp.array[float]
    limit_stiffness: wp.array[float]
    limit_damping: wp.array[float]


@wp.kernel
def joint_torques(
    tree: Tree,
    drives: Drives,
    q: wp.array2d[float],
    qd: wp.array2d[float],
    control: wp.array2d[float],
    subspace: wp.array2d[wp.spatial_vector],
    bias: wp.array[wp.spatial_vector],
    external: wp.array[wp.spatial_vector],
    transmitted: wp.array[wp.spatial_vector],
    torque: wp.array2d[float],
):
    """Generalized forces, from the tips of the tree to its root; one thread per world.

    ``transmitted`` begins at zero and sums what the children of each link pass on.
    """
    world = wp.tid()
    for offset in range(tree.links):
        link = tree.links - offset - 1
        here = world * tree.links + link
        total = bias[here] + transmitted[here] - external[here]
        i = tree.qd_start[link]
        if tree.kind[link] == FREE:
            for k in range(6):
                torque[world, i + k] = -wp.dot(subspace[world, i + k], total)
        else:
            coordinate = q[world, tree.q_start[link]]
            speed = qd[world, i]
            u = control[world, i]
            target = drives.target_rest[i] + drives.target_range[i] * u
            drive = drives.gear[i] * u + drives.target_stiffness[i] * (target - coordinate)
            limit = limit_torque(
                coordinate,
                speed,
                drives.limit_lower[i],
                drives.limit_upper[i],
                drives.limit_stiffness[i],
                drives.limit_damping[i],
            )
            passive = limit - drives.damping[i] * speed
            torque[world, i] = drive + passive - wp.dot(subspace[world, i], total)
        if tree.parent[link] >= 0:
            parent = world * tree.links + tree.parent[link]
            transmitted[parent] = transmitted[parent] + total
