"""Before training: a word about rewards that the bins of a world model have no room for."""

from __future__ import annotations

from collections.abc import Sequence

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.reward_range import outside_of_bins
from pwm.data.store import EpisodeStore
from pwm.models.world_model import ModelSize


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
