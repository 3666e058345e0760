"""Before training: a word about data that a world model cannot make the most of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.reward_range import outside_of_bins
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.data.terminations import terminating_tasks
from pwm.models.world_model import ModelSize

_IMAGE = 1024
"""Entries of an observation from which on it is likelier an image than a state."""


class Traits(NamedTuple):
    """What of a world model the data are compared with."""

    size: ModelSize
    has_q: bool  # and its targets are to be learned
    episodic: bool


def data_warnings(
    store: EpisodeStore,
    suite: Suite,
    tasks: Sequence[str] | None,
    bad: BadData,
    model: Traits,
    refuses: bool,
) -> list[str]:
    """Sentences on terminations, images, and rewards that the world model cannot predict.

    Args:
        store: the data.
        suite: the world model's tasks.
        tasks: of the suite, by default all that the store has.
        bad: its episodes are left out.
        model: the world model.
        refuses: whether 1 % or more of a task's rewards, or with a Q ensemble of its returns,
            outside of the bins is an error.

    Raises:
        PwmError: with the share that is outside, and the settings that have room for it.
    """
    ending = [] if model.episodic else terminating_tasks(store, suite, bad, tasks)
    lines = [
        f"episodes of task {name} terminate, and the world model does not predict that: imagined "
        "episodes go on; one that is pretrained on these data without episodic=never does."
        for name in ending
    ]
    lines += [
        f"task {task.name} has observations of {task.obs_dim:,} entries; if these are images: they "
        "are taken as plain numbers by fully connected layers, for there is no encoder of images, "
        "so give states or an image model's features."
        for task in shared_tasks(store, suite, tasks)
        if task.obs_dim >= _IMAGE
    ]
    bins = model.size.vmin, model.size.vmax
    discounts = {task.name: task.discount for task in suite} if model.has_q else None
    for outside in outside_of_bins(store, suite, bins, bad, tasks, discounts):
        if refuses and not outside.is_few:
            raise PwmError(
                f"{outside}; pretrain a new world model with {outside.remedy}, or scale the "
                "rewards."
            )
        lines.append(f"{outside}; a world model with {outside.remedy} has room.")
    return lines
