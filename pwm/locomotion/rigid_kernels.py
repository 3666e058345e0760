"""Warp kernels of articulated rigid bodies on flat ground, which all have adjoints.

A robot is a tree of links with one joint each: a hinge, a slide, or, for the root alone, a free
joint. Spatial vectors are linear part first, in world axes, about a point of each world that is its
floating root's centre of mass (and the world's origin for a root that is not free). A free root is
described by that centre's velocity and its spin, so that the mass matrix may be kept for several
substeps while the robot travels.

Equations of motion are Featherstone's: recursive Newton-Euler for the bias forces, composite
inertias for the mass matrix. No kernel overwrites what it reads, except for sums over children.
"""

import warp as wp

wp.config.log_level = wp.LOG_WARNING  # what a command prints is its own

FREE = wp.constant(0)
HINGE = wp.constant(1)
SLIDE = wp.constant(2)


@wp.struct
class Tree:
    """One robot's links; every world has a copy of it. Index arrays are (links,)."""

    links: int
    coordinates: int
    dofs: int
    parent: wp.array[int]
    kind: wp.array[int]
    q_start: wp.array[int]
    qd_start: wp.array[int]
    placement: wp.array[wp.transform]  # of the joint in the parent's frame
    axis: wp.array[wp.vec3]
    mass: wp.array[float]
    centre: wp.array[wp.vec3]
    inertia: wp.array[wp.mat33]  # about the centre, in the link's axes
    subtree_mass: wp.array[float]
    gravity: float


@wp.func
def origin_of(tree: Tree, pose: wp.array[wp.transform], world: int) -> wp.vec3:
    """The point that a world's spatial vectors are about."""
    origin = wp.vec3()
    if tree.kind[0] == FREE:
        origin = wp.transform_point(pose[world * tree.links], tree.centre[0])
    return origin


@wp.func
def cross_motion(a: wp.spatial_vector, b: wp.spatial_vector) -> wp.spatial_vector:
    """Rate of change of the motion b that moves along with the twist a."""
    spin = wp.spatial_bottom(a)
    linear = wp.cross(spin, wp.spatial_top(b)) + wp.cross(wp.spatial_top(a), wp.spatial_bottom(b))
    return wp.spatial_vector(linear, wp.cross(spin, wp.spatial_bottom(b)))


@wp.kernel
def link_poses(tree: Tree, q: wp.array2d[float], pose: wp.array[wp.transform]):
    """Frames of all links in the world; one thread per world."""
    world = wp.tid()
    for link in range(tree.links):
        parent = tree.parent[link]
        frame = tree.placement[link]
        if parent >= 0:
            frame = pose[world * tree.links + parent] * tree.placement[link]
        i = tree.q_start[link]
        if tree.kind[link] == FREE:
            place = wp.vec3(q[world, i], q[world, i + 1], q[world, i + 2])
            turn = wp.quat(q[world, i + 3], q[world, i + 4], q[world, i + 5], q[world, i + 6])
            pose[world * tree.links + link] = frame * wp.transform(place, turn)
        elif tree.kind[link] == HINGE:
            turn = wp.quat_from_axis_angle(tree.axis[link], q[world, i])
            pose[world * tree.links + link] = frame * wp.transform(wp.vec3(), turn)
        else:
            moved = wp.transform(tree.axis[link] * q[world, i], wp.quat_identity())
            pose[world * tree.links + link] = frame * moved


@wp.kernel
def link_motions(
    tree: Tree,
    qd: wp.array2d[float],
    pose: wp.array[wp.transform],
    subspace: wp.array2d[wp.spatial_vector],
    twist: wp.array[wp.spatial_vector],
    drift: wp.array[wp.spatial_vector],
    bias: wp.array[wp.spatial_vector],
):
    """Twists, accelerations at zero joint acceleration, and the forces that these take.

    One thread per world. ``bias`` contains gravity with the opposite sign.
    """
    world = wp.tid()
    origin = origin_of(tree, pose, world)
    for link in range(tree.links):
        here = world * tree.links + link
        parent = world * tree.links + tree.parent[link]
        i = tree.qd_start[link]
        if tree.kind[link] == FREE:
            velocity = wp.vec3(qd[world, i], qd[world, i + 1], qd[world, i + 2])
            spin = wp.vec3(qd[world, i + 3], qd[world, i + 4], qd[world, i + 5])
            for k in range(3):
                unit = wp.vec3()
                unit[k] = 1.0
                subspace[world, i + k] = wp.spatial_vector(unit, wp.vec3())
                subspace[world, i + 3 + k] = wp.spatial_vector(wp.vec3(), unit)
            twist[here] = wp.spatial_vector(velocity, spin)
            drift[here] = wp.spatial_vector(-wp.cross(spin, velocity), wp.vec3())
        else:
            axis = wp.quat_rotate(wp.transform_get_rotation(pose[here]), tree.axis[link])
            arm = wp.transform_get_translation(pose[here]) - origin
            along = wp.spatial_vector(wp.cross(arm, axis), axis)
            if tree.kind[link] == SLIDE:
                along = wp.spatial_vector(axis, wp.vec3())
            subspace[world, i] = along
            moved = along * qd[world, i]
            if tree.parent[link] >= 0:
                twist[here] = twist[parent] + moved
                drift[here] = drift[parent] + cross_motion(twist[parent] + moved, moved)
            else:
                twist[here] = moved
                drift[here] = wp.spatial_vector()

        centre = wp.transform_point(pose[here], tree.centre[link]) - origin
        turn = wp.quat_to_matrix(wp.transform_get_rotation(pose[here]))
        inertia = turn * tree.inertia[link] * wp.transpose(turn)
        omega = wp.spatial_bottom(twist[here])
        alpha = wp.spatial_bottom(drift[here])
        speed = wp.spatial_top(twist[here]) + wp.cross(omega, centre)
        acceleration = wp.spatial_top(drift[here]) + wp.cross(alpha, centre)
        acceleration = acceleration + wp.cross(omega, speed) + wp.vec3(0.0, 0.0, tree.gravity)
        force = tree.mass[link] * acceleration
        moment = inertia * alpha + wp.cross(omega, inertia * omega) + wp.cross(centre, force)
        bias[here] = wp.spatial_vector(force, moment)


@wp.kernel
def composite_inertias(
    tree: Tree,
    pose: wp.array[wp.transform],
    moment: wp.array[wp.vec3],
    inertia: wp.array[wp.mat33],
):
    """First and second moments of mass of each link with all that hangs from it.

    One thread per world; both begin at zero, and are about the world's point.
    """
    world = wp.tid()
    origin = origin_of(tree, pose, world)
    for offset in range(tree.links):
        link = tree.links - offset - 1
        here = world * tree.links + link
        mass = tree.mass[link]
        r = wp.transform_point(pose[here], tree.centre[link]) - origin
        turn = wp.quat_to_matrix(wp.transform_get_rotation(pose[here]))
        own = turn * tree.inertia[link] * wp.transpose(turn) - mass * wp.skew(r) * wp.skew(r)
        first = moment[here] + mass * r
        second = inertia[here] + own
        moment[here] = first
        inertia[here] = second
        if tree.parent[link] >= 0:
            parent = world * tree.links + tree.parent[link]
            moment[parent] = moment[parent] + first
            inertia[parent] = inertia[parent] + second


@wp.kernel
def mass_matrix(
    tree: Tree,
    outer_link: wp.array2d[int],
    subspace: wp.array2d[wp.spatial_vector],
    moment: wp.array[wp.vec3],
    inertia: wp.array[wp.mat33],
    mass: wp.array3d[float],
):
    """The joint-space mass matrix; one thread per world, row and column.

    ``outer_link`` names, for two degrees of freedom on one branch, the link of the outer one.
    """
    world, row, column = wp.tid()
    link = outer_link[row, column]
    if link >= 0:
        here = world * tree.links + link
        velocity = wp.spatial_top(subspace[world, column])
        spin = wp.spatial_bottom(subspace[world, column])
        h = moment[here]
        momentum = tree.subtree_mass[link] * velocity + wp.cross(spin, h)
        angular = inertia[here] * spin + wp.cross(h, velocity)
        mass[world, row, column] = wp.dot(
            subspace[world, row], wp.spatial_vector(momentum, angular)
        )


@wp.kernel(enable_backward=False)
def cholesky(mass: wp.array3d[float], armature: wp.array[float], factor: wp.array3d[float]):
    """Lower factor of the mass matrix with armature on its diagonal; one thread per world.

    It needs no adjoint: that of the solution differentiates the mass matrix directly.
    """
    world = wp.tid()
    n = mass.shape[1]
    for column in range(n):
        for row in range(column, n):
            value = mass[world, row, column]
            if row == column:
                value += armature[row]
            for k in range(column):
                value -= factor[world, row, k] * factor[world, column, k]
            if row == column:
                factor[world, row, column] = wp.sqrt(value)
            else:
                factor[world, row, column] = value / factor[world, column, column]


@wp.func
def substitute(
    world: int, factor: wp.array3d[float], right: wp.array2d[float], result: wp.array2d[float]
):
    """Solve with a factor and its transpose."""
    n = factor.shape[1]
    for row in range(n):
        value = right[world, row]
        for k in range(row):
            value -= factor[world, row, k] * result[world, k]
        result[world, row] = value / factor[world, row, row]
    for offset in range(n):
        row = n - 1 - offset
        value = result[world, row]
        for k in range(row + 1, n):
            value -= factor[world, k, row] * result[world, k]
        result[world, row] = value / factor[world, row, row]


@wp.func
def solve(
    world: int,
    mass: wp.array3d[float],
    factor: wp.array3d[float],
    torque: wp.array2d[float],
    qdd: wp.array2d[float],
    scratch: wp.array2d[float],
):
    """Accelerations that torques cause; ``scratch`` is for the adjoint."""
    substitute(world, factor, torque, qdd)


@wp.func_grad(solve)
def adjoint_of_solve(
    world: int,
    mass: wp.array3d[float],
    factor: wp.array3d[float],
    torque: wp.array2d[float],
    qdd: wp.array2d[float],
    scratch: wp.array2d[float],
):
    """With x = M^-1 b: b's gradient is y = M^-1 x's gradient, and M's is -y x^T."""
    substitute(world, factor, wp.adjoint[qdd], scratch)
    n = factor.shape[1]
    for row in range(n):
        wp.adjoint[torque][world, row] += scratch[world, row]
        for column in range(n):
            wp.adjoint[mass][world, row, column] += -scratch[world, row] * qdd[world, column]


@wp.kernel
def accelerations(
    mass: wp.array3d[float],
    factor: wp.array3d[float],
    torque: wp.array2d[float],
    qdd: wp.array2d[float],
    scratch: wp.array2d[float],
):
    """Joint accelerations; one thread per world."""
    solve(wp.tid(), mass, factor, torque, qdd, scratch)


@wp.kernel
def integrate(
    tree: Tree,
    q: wp.array2d[float],
    qd: wp.array2d[float],
    qdd: wp.array2d[float],
    seconds: float,
    q_next: wp.array2d[float],
    qd_next: wp.array2d[float],
):
    """Symplectic Euler step; one thread per world and link."""
    world, link = wp.tid()
    a = tree.q_start[link]
    b = tree.qd_start[link]
    if tree.kind[link] == FREE:
        velocity = wp.vec3(qd[world, b], qd[world, b + 1], qd[world, b + 2])
        spin = wp.vec3(qd[world, b + 3], qd[world, b + 4], qd[world, b + 5])
        linear = wp.vec3(qdd[world, b], qdd[world, b + 1], qdd[world, b + 2])
        angular = wp.vec3(qdd[world, b + 3], qdd[world, b + 4], qdd[world, b + 5])
        velocity = velocity + linear * seconds
        spin = spin + angular * seconds
        turn = wp.quat(q[world, a + 3], q[world, a + 4], q[world, a + 5], q[world, a + 6])
        turned = wp.normalize(turn + wp.quat(spin, 0.0) * turn * (0.5 * seconds))
        offset = wp.quat_rotate(turn, tree.centre[link]) - wp.quat_rotate(turned, tree.centre[link])
        place = wp.vec3(q[world, a], q[world, a + 1], q[world, a + 2])
        place = place + velocity * seconds + offset
        for k in range(3):
            q_next[world, a + k] = place[k]
            qd_next[world, b + k] = velocity[k]
            qd_next[world, b + 3 + k] = spin[k]
        for k in range(4):
            q_next[world, a + 3 + k] = turned[k]
    else:
        speed = qd[world, b] + qdd[world, b] * seconds
        qd_next[world, b] = speed
        q_next[world, a] = q[world, a] + speed * seconds
