"""Which tasks are learned together: settled once, so that a resumed extraction repeats it.

How many fit depends on the memory that is free at the moment, and how many are learned at once
shows in the last bits of their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.suites import Task, short_name
from pwm.extraction.config import ActorCriticConfig
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import is_checkpoint
from pwm.runtime.device import free_memory
from pwm.runtime.training_checkpoints import list_steps

_GROUPS, _PLAN = "groups", "plan.json"


def group_directory(out: Path, names: Sequence[str]) -> Path:
    """Where the tasks of these names are learned together."""
    return out / _GROUPS / short_name(names)


def kept_tasks(out: Path, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that have a policy already, or a part of its learning behind them."""
    plan = _read(out / _GROUPS / _PLAN)
    begun = {
        name
        for names in plan
        if list_steps(group_directory(out, names) / "checkpoints")
        for name in names
    }
    return [task for task in tasks if task.name in begun or is_checkpoint(out / task.name)]


def planned_groups(
    out: Path, tasks: Sequence[Task], size_for: Callable[[int], int]
) -> list[list[Task]]:
    """All groups of the tasks, complete ones too.

    A group that was planned by an earlier run is kept if all of its tasks are still asked for. The
    other tasks that have no policy yet are cut into new groups, which join the plan on disk.

    Args:
        out: the extraction's directory, which gets one policy directory per task.
        tasks: what is asked for.
        size_for: the size of groups for a number of tasks.

    Raises:
        PwmError: if the plan on disk is damaged.
    """
    file = out / _GROUPS / _PLAN
    plan = _read(file)
    asked = {task.name: task for task in tasks}
    kept = [names for names in plan if asked.keys() >= set(names)]
    planned = {name for names in kept for name in names}
    left = [n for n in asked if n not in planned and not is_checkpoint(out / n)]
    size = size_for(len(left)) if left else 1
    new = [left[first : first + size] for first in range(0, len(left), size)]
    if new:
        make_directory(file.parent)
        write_atomically(file, json.dumps([*plan, *new]).encode())
    return [[asked[name] for name in names] for names in [*kept, *new]]


def _read(file: Path) -> list[list[str]]:
    if not file.is_file():
        return []
    try:
        plan = json.loads(file.read_bytes())
        if not all(isinstance(name, str) for names in plan for name in names):
            raise TypeError("names are not text")
    except (OSError, ValueError, TypeError) as error:
        raise PwmError(
            f"{file} is damaged ({error}); put it back from a copy, or give another out=."
        ) from error
    return [list(names) for names in plan]


_SHARE = 0.7  # of the free memory; the rest is for pools of start states, caches and fragments
_MOST_ON_CPU = 16  # beyond this, products are large enough and more tasks only wait for each other


def largest_group(
    model: WorldModel,
    config: ActorCriticConfig,
    tasks: int,
    ensemble: Sequence[WorldModel] = (),
    accelerator: Accelerator | None = None,
) -> int:
    """The size of equal groups, as few as fit the free memory of the model's device, at least 1.

    Args:
        model: the world model, on the device that learns.
        config: of the iterations.
        tasks: how many there are to share out.
        ensemble: further world models.
        accelerator: how the iterations run; eagerly by default.
    """
    device = model.bins.device
    if device.type == "cuda":
        free, most = torch.cuda.mem_get_info(device)[0], tasks
    else:
        free, most = free_memory(), _MOST_ON_CPU
    fitting = int(_SHARE * free / bytes_a_task(model, config, ensemble, accelerator))
    largest = max(1, min(fitting, most))
    groups = max(1, -(-tasks // largest))
    return max(1, -(-tasks // groups))


@dataclass(frozen=True)
class _Kept:
    """Bytes that a backward pass finds of what an iteration computed, and what it needs beside."""

    unit: int  # of a hidden layer: its sum, its normalized sum, what Mish's derivative needs
    latent: int  # of a latent
    logit: int  # of a distribution over bins


_EAGER = _Kept(unit=24, latent=24, logit=16)
_FAST = _Kept(unit=12, latent=16, logit=16)
# A GPU held at most 5.3 a unit and 16 a latent (48M and 5M, 80 tasks; docs/scaling.md).
_FAST_BFLOAT16 = _Kept(unit=6, latent=16, logit=16)


def bytes_a_task(
    model: WorldModel,
    config: ActorCriticConfig,
    ensemble: Sequence[WorldModel] = (),
    accelerator: Accelerator | None = None,
) -> int:
    """An upper estimate of one task's share of an iteration's memory, in bytes.

    Fast code keeps fewer of a layer's values than autograd does by itself.
    """
    kept, size, nets = _EAGER, model.size, config.networks
    if accelerator is not None and accelerator.fused:
        kept = _FAST_BFLOAT16 if accelerator.bfloat16 else _FAST
    worlds = sum(_kept_a_step(world, kept) for world in (model, *ensemble))
    states = config.horizon * config.batch_size
    critics = nets.critics * kept.unit * sum(nets.critic)
    parameters = (
        24 * nets.critics * (size.latent_dim + sum(nets.critic)) * max(nets.critic, default=1)
    )
    of_q = _bytes_of_q(model, config, kept) if config.q.members else 0
    if config.ensemble.truncate_above is not None:  # all states are valued for the actors, too
        valued = sum(nets.actor) + config.q.members * sum(config.q.hidden)
        of_q += states * (kept.unit * valued if config.q.members else critics)
    return states * (kept.unit * sum(nets.actor) + worlds + critics) + parameters + of_q


def _bytes_of_q(model: WorldModel, config: ActorCriticConfig, kept: _Kept) -> int:
    """Bytes that Q functions, what an update keeps of them, and their recorded rows take."""
    q, suite = config.q, model.suite
    units = sum(q.hidden)
    weights = (model.size.latent_dim + suite.action_dim + units) * max(q.hidden, default=1)
    a_row = 4 * (2 * suite.obs_dim + suite.action_dim + 2)
    members = q.members + (q.expectile is not None)
    return members * (28 * weights + q.batch_size * kept.unit * units) + q.pool * a_row


def _kept_a_step(model: WorldModel, kept: _Kept) -> int:
    """Bytes that one imagined step of dynamics, reward and termination keeps."""
    size, layers = model.size, 6 if model.episodic else 4
    hidden = kept.unit * layers * size.mlp_dim
    return hidden + kept.latent * size.latent_dim + kept.logit * size.num_bins
