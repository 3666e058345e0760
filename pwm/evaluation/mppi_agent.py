"""MPPI as an agent of evaluation: it acts in the calling process, on the GPU if there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pwm.core.suites import Suite, Task
from pwm.evaluation.agents import BatchedAgent
from pwm.evaluation.mppi import Planner, shifted
from pwm.runtime.seeding import stream


@dataclass
class Plans:
    """The plans of n running episodes of one task."""

    task: Task
    start: Tensor  # (n, H, A) means that their next decision starts to sample around
    streams: list[torch.Generator]  # a random stream per episode


class MPPIAgent(BatchedAgent):
    """A planner that acts for many episodes, each of which has its own plan and random stream.

    An episode's random numbers follow from its task and seed alone. On a GPU all episodes that wait
    are planned for as one batch; on a CPU, where the size of a batch would change the last bits,
    those of one job at a time.

    Args:
        planner: decides.
        suite: of its world model.
        device: of its world model.
        made_of: digests of its models, as JSON.
    """

    def __init__(
        self, planner: Planner, suite: Suite, device: torch.device, made_of: Mapping[str, Any]
    ) -> None:
        self.planner, self.suite, self.device = planner, suite, device
        self._identity = {**_settings(planner), "device": device.type, **made_of}

    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`BatchedAgent`."""
        return self._identity

    def begin(self, task: Task, seeds: Sequence[int]) -> Plans:
        """See :class:`BatchedAgent`."""
        shape = (len(seeds), self.planner.config.horizon, self.suite.action_dim)
        streams = [stream(seed, task.name, self.device) for seed in seeds]
        return Plans(task, torch.zeros(shape, device=self.device), streams)

    def act(self, waiting: Sequence[tuple[Plans, np.ndarray]]) -> list[np.ndarray]:
        """See :class:`BatchedAgent`."""
        if self.device.type == "cpu":
            return [self._act([(plans, obs)])[0] for plans, obs in waiting]
        return self._act(waiting)

    def _act(self, waiting: Sequence[tuple[Plans, np.ndarray]]) -> list[np.ndarray]:
        counts = [len(obs) for _, obs in waiting]
        padded = np.zeros((sum(counts), self.suite.obs_dim), np.float32)
        ends = np.cumsum(counts)
        for end, (_, obs) in zip(ends, waiting, strict=True):
            padded[end - len(obs) : end, : obs.shape[1]] = obs
        ids = torch.tensor([self.suite.id(plans.task.name) for plans, _ in waiting])
        plan = self.planner.plan(
            torch.from_numpy(padded).to(self.device),
            ids.repeat_interleave(torch.tensor(counts)).to(self.device),
            torch.cat([plans.start for plans, _ in waiting]),
            [own for plans, _ in waiting for own in plans.streams],
        )
        for (plans, _), mean in zip(waiting, plan.mean.split(counts), strict=True):
            plans.start = shifted(mean)
        actions = np.split(plan.action.cpu().numpy(), ends[:-1])
        return [
            rows[:, : plans.task.action_dim]
            for (plans, _), rows in zip(waiting, actions, strict=True)
        ]


class GatedAgent(BatchedAgent):
    """Planners on several world models, of which each plays the tasks of its own.

    Args:
        agents: by task name.
    """

    def __init__(self, agents: Mapping[str, MPPIAgent]) -> None:
        self._agents = dict(agents)

    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`BatchedAgent`."""
        return self._agents[task.name].identity(task)

    def begin(self, task: Task, seeds: Sequence[int]) -> Plans:
        """See :class:`BatchedAgent`."""
        return self._agents[task.name].begin(task, seeds)

    def act(self, waiting: Sequence[tuple[Plans, np.ndarray]]) -> list[np.ndarray]:
        """See :class:`BatchedAgent`."""
        rows: dict[MPPIAgent, list[int]] = {}
        for row, (plans, _) in enumerate(waiting):
            rows.setdefault(self._agents[plans.task.name], []).append(row)
        actions: dict[int, np.ndarray] = {}
        for agent, own in rows.items():
            actions |= zip(own, agent.act([waiting[row] for row in own]), strict=True)
        return [actions[row] for row in range(len(waiting))]


def _settings(planner: Planner) -> dict[str, Any]:
    """What of a planner decides how an episode goes, apart from last bits."""
    settings, precision = asdict(planner.config), planner.config.precision
    for name in ("compile", "precision"):
        del settings[name]
    if precision == "auto":
        precision = "bfloat16" if planner.accelerator.bfloat16 else "float32"
    rounded = {} if precision == "float32" else {"precision": precision}
    return {"planner": settings, **rounded}


def content_of(module: torch.nn.Module) -> str:
    """The SHA-256 of a module's parameters and buffers, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()
