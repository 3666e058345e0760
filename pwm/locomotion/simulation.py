"""Differentiable locomotion environments: batches of articulated robots, in torch."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from pwm.locomotion import tasks
from pwm.locomotion.articulated_step import ArticulatedStep
from pwm.locomotion.batched_simulation import Step
from pwm.locomotion.tasks import Task

JOINT_NOISE = 0.1  # rad, either way, of joints at the beginning
TILT_NOISE = 0.05  # either way, of the components of the torso's quaternion
SPEED_NOISE = 0.25  # m/s and rad/s, either way
TOP_SPEED = 1000.0  # rad/s or m/s, beyond which a world has blown up


class ArticulatedSimulation:
    """N copies of a :class:`~pwm.locomotion.tasks.Task`, a ``BatchedSimulation``.

    Worlds whose state is not finite, or faster than ``TOP_SPEED``, end as by a fall: their last
    observation is of the state before, without gradients.

    Args:
        name: the environment's.
        task: what is rewarded, and which robot does it.
        num_envs: N.
        seed: of where episodes begin.
        device: where it is computed.
        contact_stiffness: of the ground, as a multiple of the robot's own.

    Attributes:
        failures: how many worlds have ended so.
    """

    differentiable = True
    episode_length = 1000

    def __init__(
        self,
        name: str,
        task: Task,
        *,
        num_envs: int,
        seed: int = 0,
        device: str = "cpu",
        contact_stiffness: float = 1.0,
    ) -> None:
        self.name, self.num_envs = name, num_envs
        self._task, self._device = task, device
        robot = task.robot.on_stiffer_ground(contact_stiffness)
        self._world = ArticulatedStep(robot, num_envs, device)
        self.step_seconds = task.robot.step_seconds
        self.observation_size = task.observation_size
        self.action_size = self._world.muscles if task.muscles else self._joints
        self.failures = 0
        self._generator = torch.Generator(device).manual_seed(seed)
        self._rest_q = torch.tensor(task.rest_q, device=device)
        self._elapsed = torch.zeros(num_envs, dtype=torch.long, device=device)
        self._action = torch.zeros(num_envs, self.action_size, device=device)
        self._q, self._qd = self._beginnings()
        self._before = self._q, self._qd

    @property
    def _joints(self) -> int:
        """Degrees of freedom that are not the root's; these are the last ones."""
        return self._world.dofs - (3 if self._task.travel == 1 else 6)

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin an episode in all environments."""
        if seed is not None:
            self._generator.manual_seed(seed)
        self._elapsed.zero_()
        self._action = torch.zeros_like(self._action)
        self._q, self._qd = self._beginnings()
        return self._observation()

    def step(self, action: Tensor) -> Step:
        """Advance all environments by one control step."""
        action = action.to(self._q).clamp(-1.0, 1.0)
        self._advance(action)
        self._action, self._elapsed = action, self._elapsed + 1
        blown = self._restore_blown()
        reward = self._task.reward(self._q, self._qd, action)
        final = self._observation()
        terminated = blown | self._task.fallen(self._q, self._qd)
        truncated = (self._elapsed >= self.episode_length) & ~terminated
        ended = terminated | truncated
        if not bool(ended.any()):
            return Step(final, reward, terminated, truncated, final)
        self._begin_again(ended)
        return Step(self._observation(), reward, terminated, truncated, final)

    def detach(self) -> Tensor:
        """Let gradients of later steps end at the present state."""
        self._q, self._qd = self._q.detach(), self._qd.detach()
        self._action = self._action.detach()
        return self._observation()

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the next steps depend on."""
        return {
            "q": self._q.detach().clone(),
            "qd": self._qd.detach().clone(),
            "action": self._action.detach().clone(),
            "elapsed": self._elapsed.clone(),
            "failures": torch.tensor(self.failures),
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state` gave."""
        self._q, self._qd = state["q"].clone(), state["qd"].clone()
        self._action, self._elapsed = state["action"].clone(), state["elapsed"].clone()
        self.failures = int(state["failures"])
        self._generator.set_state(state["generator"])

    def capsules(self) -> tuple[Tensor, Tensor]:
        """Ends (N, capsules, 2, 3) of the bodies' shapes, in m, and their radii (capsules,)."""
        return self._world.shape_ends(self._q), self._world.radii

    def close(self) -> None:
        """There is nothing to release."""

    def _observation(self) -> Tensor:
        return self._task.observation(self._q, self._qd, self._action)

    def _advance(self, action: Tensor) -> None:
        """The physics, about each robot's own place: far from the origin, sums would round."""
        self._before = self._q.detach(), self._qd.detach()
        travel = self._task.travel
        shift = pad(self._before[0][:, :travel], (0, self._world.coordinates - travel))
        none = action[:, :0]
        drives, pull = (none, (action + 1) / 2) if self._task.muscles else (action, none)
        control = pad(drives, (self._world.dofs - drives.shape[1], 0))
        q, self._qd = self._world(self._q - shift, self._qd, control, pull)
        self._q = q + shift

    def _restore_blown(self) -> Tensor:
        """Put worlds that blew up back to the state before, and say which they are."""
        fine = self._q.isfinite().all(1) & (self._qd.abs() < TOP_SPEED).all(1)
        if not bool(fine.all()):
            self.failures += int((~fine).sum())
            self._q = torch.where(fine[:, None], self._q, self._before[0])
            self._qd = torch.where(fine[:, None], self._qd, self._before[1])
        return ~fine

    def _begin_again(self, ended: Tensor) -> None:
        q, qd = self._beginnings()
        here = ended[:, None]
        self._q, self._qd = torch.where(here, q, self._q), torch.where(here, qd, self._qd)
        self._action = torch.where(here, 0.0, self._action)
        self._elapsed = torch.where(ended, 0, self._elapsed)

    def _beginnings(self) -> tuple[Tensor, Tensor]:
        """Perturbed initial states of all environments."""
        n, coordinates, dofs = self.num_envs, self._world.coordinates, self._world.dofs
        q = self._rest_q.repeat(n, 1)
        q[:, -self._joints :] += JOINT_NOISE * self._uniform(n, self._joints)
        if coordinates > dofs:
            turn = q[:, 3:7] + TILT_NOISE * self._uniform(n, 4)
            q[:, 3:7] = turn / turn.norm(dim=1, keepdim=True)
        return q, SPEED_NOISE * self._uniform(n, dofs)

    def _uniform(self, *shape: int) -> Tensor:
        """In [-1, 1), of the environment's own generator."""
        return 2 * torch.rand(*shape, generator=self._generator, device=self._device) - 1


hopper = partial(ArticulatedSimulation, "hopper", tasks.HOPPER)
ant = partial(ArticulatedSimulation, "ant", tasks.ANT)
anymal = partial(ArticulatedSimulation, "anymal", tasks.QUADRUPED)
humanoid = partial(ArticulatedSimulation, "humanoid", tasks.HUMANOID)
humanoid_muscles = partial(ArticulatedSimulation, "humanoid_muscles", tasks.MUSCLES)
