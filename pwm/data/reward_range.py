"""Whether recorded rewards lie in the range that a world model can predict, and where they do not.

Predictions are distributions over bins of symlog(reward), and what lies outside of the bins is
clamped to the outermost. The values of a Q ensemble have the same bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pwm.core.suites import Suite
from pwm.data.problems import BadData, DataError
from pwm.data.shared_tasks import shared_tasks
from pwm.data.splits import spread_episodes
from pwm.data.start_states import discounted_to_go
from pwm.data.store import EpisodeStore

FEW = 0.01
"""The share of a task's numbers outside of the bins up to which training is of use still."""


@dataclass(frozen=True)
class Outside:
    """What of a task's data lies outside of the bins.

    Attributes:
        task: its name.
        what: rewards or discounted returns.
        share: of all that were looked at, above 0.
        low, high: the least and the largest of them.
        bins: the bins' range, (vmin, vmax), in symlog units.
    """

    task: str
    what: str
    share: float
    low: float
    high: float
    bins: tuple[float, float]

    @property
    def is_few(self) -> bool:
        """Whether a warning will do."""
        return self.share < FEW

    def __str__(self) -> str:
        vmin, vmax = self.bins
        share = f"{self.share:.2%}" if self.share >= 1e-4 else "less than 0.01%"
        return (
            f"task {self.task}: {share} of the {self.what} lie outside of the range that the "
            f"world model can predict, {_symexp(vmin):,.0f} to {_symexp(vmax):,.0f} (they go from "
            f"{self.low:,.6g} to {self.high:,.6g}), and would be clamped to it"
        )

    @property
    def remedy(self) -> str:
        """The settings of ``pwm pretrain`` whose bins have room for the data."""
        vmin, vmax = self.bins
        wanted = {
            "model.vmin": (vmin, min(vmin, math.floor(_symlog(self.low)))),
            "model.vmax": (vmax, max(vmax, math.ceil(_symlog(self.high)))),
        }
        return " ".join(f"{name}={new:g}" for name, (old, new) in wanted.items() if new != old)


def outside_of_bins(
    store: EpisodeStore,
    suite: Suite,
    bins: tuple[float, float],
    bad: BadData,
    tasks: Sequence[str] | None = None,
    discounts: Mapping[str, float] | None = None,
) -> list[Outside]:
    """Compares the train episodes' rewards with the bins' range.

    Of tasks with more than 131,072 rows every second, third, ... episode is taken.

    Args:
        store: where the episodes are.
        suite: the world model's tasks.
        bins: (vmin, vmax), in symlog units.
        bad: its episodes are left out.
        tasks: of the suite, by default all that the store has.
        discounts: by task, of a model with a Q ensemble, whose values are compared too, by the
            discounted sums of the rewards from each step to the episode's end.

    Returns:
        One entry for each task and quantity of which something lies outside.
    """
    found = []
    for task in shared_tasks(store, suite, tasks):
        episodes = [
            _rewards(store, task.name, int(i)) for i in spread_episodes(store, task.name, bad)
        ]
        quantities = {"rewards": episodes}
        if discounts is not None:
            discount = discounts[task.name]
            quantities["discounted returns"] = [discounted_to_go(r, discount) for r in episodes]
        for what, parts in quantities.items():
            if outside := _outside(task.name, what, np.concatenate([*parts, np.empty(0)]), bins):
                found.append(outside)
    return found


def _rewards(store: EpisodeStore, task: str, episode: int) -> np.ndarray:
    """(T,) finite rewards of an episode, float64; none of what cannot be read, told elsewhere."""
    entry = store.episodes(task)[episode]
    start = int(entry["start"])
    try:
        rows = store.rows(task, start + 1, start + int(entry["length"]))
    except DataError:
        return np.empty(0)
    reward = rows["reward"].astype(np.float64)
    return reward[np.isfinite(reward)]


def _outside(task: str, what: str, values: np.ndarray, bins: tuple[float, float]) -> Outside | None:
    low, high = map(_symexp, bins)
    share = float(np.mean((values < low) | (values > high))) if len(values) else 0.0
    return Outside(task, what, share, values.min(), values.max(), bins) if share else None


def _symexp(x: float) -> float:
    return math.copysign(math.expm1(abs(x)), x)


def _symlog(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)
