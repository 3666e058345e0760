"""One control step of many articulated robots and its adjoint, as recorded kernel launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from pwm.locomotion import force_kernels, rigid_kernels
from pwm.locomotion.robot import Robot
from pwm.locomotion.tree import LinkTree

GRAVITY = 9.81  # m/s^2
Buffers = dict[str, Any]


class ArticulatedStep:
    """Advances ``num_envs`` worlds by ``substeps`` of a robot's control step.

    All launches are recorded once, and replayed without Python between them: those of the step,
    and those of its adjoint. The mass matrix is that of the first substep.

    Attributes:
        coordinates, dofs, muscles: numbers per world.
        rest_q: (coordinates,) the robot as its file places it.
        radii: (shapes,) m, of the spheres, capsules and cylinders that its bodies are made of.
    """

    def __init__(self, robot: Robot, num_envs: int, device: str) -> None:
        self.robot, self.num_envs = robot, num_envs
        self.device = wp.get_device(device)
        single = robot.build()
        tree = LinkTree(single)
        self.coordinates, self.dofs, self._links = tree.coordinates, tree.dofs, len(tree.links)
        self.rest_q = torch.tensor(single.joint_q, dtype=torch.float32, device=device)
        self._tree = tree.struct(GRAVITY, self.device)
        self._outer_link: Any = wp.array(tree.outer_links(), dtype=int, device=self.device)
        self._armature: Any = wp.array(single.joint_armature, dtype=float, device=self.device)
        self._drives = robot.drive(single).struct(self.device)
        shapes = robot.shapes(single, tree)
        self._shape_links = torch.tensor([shape.link for shape in shapes], device=device)
        ends = np.array([[shape.ends[0], shape.ends[-1]] for shape in shapes])
        self._shape_ends = torch.tensor(ends, dtype=torch.float32, device=device)
        self.radii = torch.tensor([shape.radius for shape in shapes], device=device)
        self._spheres = robot.spheres(single, tree, self.device)
        self._muscles = robot.muscles(single, tree, self.device)
        self.muscles = len(self._muscles[0])
        self._allocate()
        self._tape = wp.Tape()
        with self._tape:
            self._launch_all()
        self._forward_graph = self._record(self._run_forward)
        self._backward_graph = self._record(self._run_backward)

    def __call__(
        self, q: Tensor, qd: Tensor, control: Tensor, activation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Coordinates and velocities after one control step.

        Args:
            q: (N, coordinates).
            qd: (N, dofs); a floating root's are the velocity of its centre of mass and its spin.
            control: (N, dofs), what :class:`~pwm.locomotion.robot.Drive` makes torques of.
            activation: (N, muscles) in [0, 1].

        Returns:
            The next (N, coordinates) and (N, dofs).
        """
        q_next, qd_next = _Differentiable.apply(self, q, qd, control, activation)
        return q_next, qd_next

    def shape_ends(self, q: Tensor) -> Tensor:
        """Where both ends of each shape are, (N, shapes, 2, 3) m, at coordinates (N, q)."""
        pose = torch.zeros(self.num_envs * self._links, 7, device=q.device)
        own: Any = wp.from_torch(q.detach().float().contiguous())
        wp.launch(
            rigid_kernels.link_poses,
            self.num_envs,
            inputs=[self._tree, own, wp.from_torch(pose, dtype=wp.transform)],
            device=self.device,
            stream=self._stream(),
        )
        frames = pose.reshape(self.num_envs, self._links, 7)[:, self._shape_links, None]
        place, turn, scalar = frames[..., :3], frames[..., 3:6], frames[..., 6:]
        ends = self._shape_ends.expand(self.num_envs, -1, -1, -1)
        turn = turn.expand_as(ends)
        swept = 2 * torch.linalg.cross(turn, ends)
        return place + ends + scalar * swept + torch.linalg.cross(turn, swept)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The step without derivatives."""
        self._load(inputs)
        self._replay(self._forward_graph)
        return tuple(_tensor(value).clone() for value in self._outputs)

    def backward(self, inputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> list[Tensor]:
        """Gradients of the inputs from those of the outputs, by the step's adjoint.

        A world whose derivatives are not finite gets none: it has blown up, and the others go on.
        """
        self._load(inputs)
        for seed, gradient in zip(self._seeds, gradients, strict=True):
            _tensor(seed).copy_(gradient)
        self._replay(self._forward_graph)
        self._replay(self._backward_graph)
        results = [_tensor(value.grad).clone() for value in self._inputs]
        finite = torch.stack([value.isfinite().all(1) for value in results]).all(0)
        return [torch.where(finite[:, None], value, 0.0) for value in results]

    def _load(self, inputs: tuple[Tensor, ...]) -> None:
        for target, value in zip(self._inputs, inputs, strict=True):
            _tensor(target).copy_(value)

    def _stream(self) -> Any:
        """Torch's current stream; None on a CPU."""
        if not self.device.is_cuda:
            return None
        return wp.stream_from_torch(torch.cuda.current_stream(wp.device_to_torch(self.device)))

    def _replay(self, graph: Any) -> None:
        wp.capture_launch(graph, stream=self._stream())

    def _record(self, run: Callable[[], None]) -> Any:
        with wp.ScopedCapture(device=self.device) as capture:
            run()
        return capture.graph

    def _zeros(self, *shape: int, dtype: Any = float) -> Any:
        return wp.zeros(shape, dtype=dtype, device=self.device, requires_grad=True)

    def _allocate(self) -> None:
        """Buffers of all substeps, each kind in one array, so that one call clears them."""
        n, steps, links = self.num_envs, self.robot.substeps, self.num_envs * self._links
        self._states = {
            "q": self._zeros(steps + 1, n, self.coordinates),
            "qd": self._zeros(steps + 1, n, self.dofs),
        }
        self._buffers = {
            "pose": self._zeros(steps, links, dtype=wp.transform),
            "subspace": self._zeros(steps, n, self.dofs, dtype=wp.spatial_vector),
        }
        for name in ("twist", "drift", "bias", "external", "transmitted"):
            self._buffers[name] = self._zeros(steps, links, dtype=wp.spatial_vector)
        for name in ("torque", "qdd", "scratch"):
            self._buffers[name] = self._zeros(steps, n, self.dofs)
        self._shared = {
            "moment": self._zeros(links, dtype=wp.vec3),
            "inertia": self._zeros(links, dtype=wp.mat33),
            "mass": self._zeros(n, self.dofs, self.dofs),
            "factor": self._zeros(n, self.dofs, self.dofs),
        }
        self._control = self._zeros(n, self.dofs)
        self._activation = self._zeros(n, self.muscles)
        states = self._states.values()
        self._inputs = [*(value[0] for value in states), self._control, self._activation]
        self._outputs = [value[steps] for value in states]
        self._seeds = [wp.zeros_like(value, requires_grad=False) for value in self._outputs]

    def _run_forward(self) -> None:
        for value in (self._buffers["external"], self._buffers["transmitted"]):
            value.zero_()
        for value in (self._shared["moment"], self._shared["inertia"]):
            value.zero_()
        self._launch_all()

    def _run_backward(self) -> None:
        for group in (self._states, self._buffers, self._shared):
            for value in group.values():
                value.grad.zero_()
        for value in (self._control, self._activation):
            value.grad.zero_()
        for output, seed in zip(self._outputs, self._seeds, strict=True):
            wp.copy(output.grad, seed)
        self._tape.backward()

    def _launch(self, kernel: Any, dim: Any, *arguments: Any, record: bool = True) -> None:
        wp.launch(kernel, dim, inputs=arguments, device=self.device, record_tape=record)

    def _launch_all(self) -> None:
        for index in range(self.robot.substeps):
            self._launch_substep(index)

    def _launch_substep(self, index: int) -> None:
        kernels, n, tree, shared = rigid_kernels, self.num_envs, self._tree, self._shared
        b = {name: value[index] for name, value in self._buffers.items()}
        q, qd = self._states["q"][index], self._states["qd"][index]
        self._launch(kernels.link_poses, n, tree, q, b["pose"])
        moving = (b["subspace"], b["twist"], b["drift"], b["bias"])
        self._launch(kernels.link_motions, n, tree, qd, b["pose"], *moving)
        self._launch_forces(b)
        self._launch(
            force_kernels.joint_torques,
            *(n, tree, self._drives, q, qd, self._control, b["subspace"], b["bias"]),
            *(b["external"], b["transmitted"], b["torque"]),
        )
        if index == 0:
            self._launch_mass(b)
        self._launch(
            kernels.accelerations,
            *(n, shared["mass"], shared["factor"], b["torque"], b["qdd"], b["scratch"]),
        )
        self._launch(
            kernels.integrate,
            *((n, self._links), tree, q, qd, b["qdd"]),
            *(self.robot.step_seconds / self.robot.substeps,),
            *(self._states["q"][index + 1], self._states["qd"][index + 1]),
        )

    def _launch_forces(self, b: Buffers) -> None:
        ground = self.robot.ground
        self._launch(
            force_kernels.ground_contact,
            *((self.num_envs, len(self._spheres[-1])), self._tree, b["pose"], b["twist"]),
            *self._spheres,
            *(ground.stiffness, ground.damping, ground.friction, ground.grip),
            b["external"],
        )
        if self.muscles:
            self._launch(
                force_kernels.muscle_pull,
                *((self.num_envs, self.muscles), self._tree, b["pose"], self._activation),
                *self._muscles,
                b["external"],
            )

    def _launch_mass(self, b: Buffers) -> None:
        kernels, n, s = rigid_kernels, self.num_envs, self._shared
        self._launch(
            kernels.composite_inertias, n, self._tree, b["pose"], s["moment"], s["inertia"]
        )
        self._launch(
            kernels.mass_matrix,
            *((n, self.dofs, self.dofs), self._tree, self._outer_link),
            *(b["subspace"], s["moment"], s["inertia"], s["mass"]),
        )
        # Its part of the adjoint is in that of the solution.
        self._launch(kernels.cholesky, n, s["mass"], self._armature, s["factor"], record=False)


def _tensor(value: Any) -> Tensor:
    tensor: Tensor = wp.to_torch(value, requires_grad=False)
    return tensor


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: ArticulatedStep, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.save_for_backward(*inputs)
        return step.forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.step.backward(ctx.saved_tensors, gradients))
