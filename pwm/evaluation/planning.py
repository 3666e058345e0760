"""Planners of evaluation on one world model, or on several of which each has tasks of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pwm.core.suites import Suite, Task
from pwm.evaluation.agents import AnyAgent
from pwm.evaluation.mppi import Planner, PlannerConfig
from pwm.evaluation.mppi_agent import GatedAgent, MPPIAgent, content_of
from pwm.evaluation.mppi_guides import ActorAndCritic, TDMPC2Guide, TerminalValue
from pwm.models.policy import Policy
from pwm.models.world_model import WorldModel
from pwm.models.world_models import WorldModels

PLANNER, PLANNER_ACTOR = "planner", "planner+actor"
PLANNERS = (PLANNER, PLANNER_ACTOR)


class Planning:
    """A planner with what proposes actions and ends its plans, by world model.

    Args:
        planner: one of `PLANNERS`.
        models: to plan on.
        suite: the tasks.
        policies: extracted ones by task name, for ``planner+actor``.
        directory: where these policies and their critics are.

    Raises:
        PwmError: if a world model lacks what the planner needs, or none has a task.
    """

    def __init__(
        self,
        planner: str,
        models: WorldModels,
        suite: Suite,
        policies: Mapping[str, Policy],
        directory: Path,
    ) -> None:
        for task in suite:
            models.suite.id(task.name)  # raises for a task that no world model has

        def guide(model: WorldModel, tasks: Sequence[Task]) -> TerminalValue:
            if planner == PLANNER:
                return TDMPC2Guide(model)
            some = {task.name: policies[task.name] for task in tasks}
            return ActorAndCritic.load(model, some, directory)

        self._parts = [(model, some, guide(model, some)) for model, some in models.split(suite)]

    def agent(self, config: PlannerConfig, digests: Mapping[str, Any]) -> AnyAgent:
        """What plays all tasks.

        Args:
            config: of planning.
            digests: of what it is made of beside the world models, as JSON.
        """
        found: dict[str, MPPIAgent] = {}
        for model, tasks, guide in self._parts:
            made_of = {"model": content_of(model), **digests}
            planner = Planner(model, guide, config)
            agent = MPPIAgent(planner, model.suite, model.bins.device, made_of)
            found |= dict.fromkeys([task.name for task in tasks], agent)
        first, *others = dict.fromkeys(found.values())
        return GatedAgent(found) if others else first
