"""Before training: a word about data that a world model cannot make the most of."""

from __future__ import annotations

from collections.abc import Sequence

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.reward_range import outside_of_bins
from pwm.data.store import EpisodeStore, shared_tasks
from pwm.models.world_model import ModelSize

_IMAGE = 1024
"""Entries of an observation from which on it is likelier an image than a state."""


def data_warnings(
    store: EpisodeStore,
    suite: Suite,
    tasks: Sequence[str] | None,
    bad: BadData,
    size: ModelSize,
    has_q: bool,
    refuses: bool,
) -> list[str]:
    """Sentences on rewards that would be clamped, and on observations that look like images.

    Arguments are those of :func:`clamped_rewards`.

    Raises:
        PwmError: as :func:`clamped_rewards` does.
    """
    large = [task for task in shared_tasks(store, suite, tasks) if task.obs_dim >= _IMAGE]
    lines = [
        f"task {task.name} has observations of {task.obs_dim:,} entries; if these are images: they "
        "are taken as plain numbers by fully connected layers, for there is no encoder of images, "
        "so give states or an image model's features."
        for task in large
    ]
    return lines + clamped_rewards(store, suite, tasks, bad, size, has_q, refuses)


def clamped_rewards(
    store: EpisodeStore,
    suite: Suite,
    tasks: Sequence[str] | None,
    bad: BadData,
    size: ModelSize,
    has_q: bool,
    refuses: bool,
) -> list[str]:
    """A sentence for each task with rewards, or with a Q ensemble returns, outside of the bins.

    Args:
        store: the data.
        suite: the world model's tasks.
        tasks: of the suite, by default all that the store has.
        bad: its episodes are left out.
        size: has the bins' range.
        has_q: whether returns are to be compared too.
        refuses: whether 1 % or more of a task is an error.

    Raises:
        PwmError: with the share that is outside, and the settings that have room for it.
    """
    discounts = {task.name: task.discount for task in suite} if has_q else None
    found = outside_of_bins(store, suite, (size.vmin, size.vmax), bad, tasks, discounts)
    for outside in found:
        if refuses and not outside.is_few:
            raise PwmError(
                f"{outside}; pretrain a new world model with {outside.remedy}, or scale the "
                "rewards."
            )
    return [f"{outside}; a world model with {outside.remedy} has room." for outside in found]
