"""Actors and critics of an earlier extraction, for another one to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.extraction.config import ActorCriticConfig
from pwm.models.actor_critic import Actors, Critics, TaskCritic, load_critic
from pwm.models.policy import Policy
from pwm.models.policy_directory import find_policies, policy_path
from pwm.models.world_model import WorldModel


class Networks(NamedTuple):
    """What extraction learned for one task."""

    actor: Actors
    critics: Critics


def earlier_networks(
    directory: Path, tasks: Sequence[Task], model: WorldModel, config: ActorCriticConfig
) -> dict[str, Networks]:
    """The networks of an earlier extraction by task name.

    They read the latents of the world model that they were learned with. Another model of the same
    size gives them other latents, near ones where the one was trained on from the other.

    Args:
        directory: what the extraction wrote, with a policy for each of the tasks.
        tasks: whose.
        model: the world model of the extraction that begins.
        config: its settings.

    Raises:
        PwmError: if one is missing, has other sizes, or values in other units.
    """
    found = {}
    for name, policy in find_policies(directory, [task.name for task in tasks]).items():
        path = policy_path(directory, name)
        critic = load_critic(path)
        if difference := _difference(policy, critic, model, config):
            raise PwmError(
                f"init={path} cannot be gone on with: {difference}; repeat the settings that it "
                "was made with, or leave init= out."
            )
        found[name] = Networks(policy.actor, critic.values)
    return found


def _difference(
    policy: Policy, critic: TaskCritic, model: WorldModel, config: ActorCriticConfig
) -> str | None:
    of_policy = {
        "world model": (policy.architecture["model"], asdict(model.size)),
        "action size": (policy.architecture["action_dim"], model.suite.action_dim),
        "networks": (policy.architecture["actor"], asdict(config.networks)),
        "reward_units": (critic.reward_units, config.reward_units),
        "discount": (critic.discount, config.discount),
        "scale of values": (critic.values.scale, config.value_scale),
    }
    for name, (theirs, ours) in of_policy.items():
        if theirs != ours:
            return f"its {name} is {theirs}, and {ours} is asked for"
    return None
