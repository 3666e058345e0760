"""An episode: its rows in memory and on the disk, and which values they may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.action_bounds import bounds_fault, shown
from pwm.core.errors import PwmError
from pwm.core.precision import lost_in_float32
from pwm.core.suites import Task

ACTION_LIMIT = 1 + 1e-6  # actions lie in [-1, 1] but for rounding
ROWS_NAME = "rows.bin"
EPISODES_NAME = "episodes.bin"


EPISODE_DTYPE = np.dtype(
    {
        "names": [
            "start",  # first row of the episode in rows.bin
            "seed",
            "return",  # undiscounted sum of rewards
            "length",  # rows, that is T + 1
            "behaviour",  # position in EpisodeStore.behaviours
            "source",  # position in list(EpisodeStore.sources)
            "success_last",
            "success_any",
            "is_piece",  # 1 for some of its rows alone; return and successes are the whole's
            "success_unknown",  # 1 where nothing says whether it succeeded; the others are 0 then
        ],
        "formats": ["<i8", "<i8", "<f8", "<u4", "<u2", "<u2", "u1", "u1", "u1", "u1"],
        "offsets": [0, 8, 16, 24, 28, 30, 32, 33, 34, 35],
        "itemsize": 40,
    }
)


def row_dtype(task: Task) -> np.dtype[Any]:
    """The record of one row of a task: a whole number of float32 wide, little-endian."""
    obs_bytes, action_bytes = 4 * task.obs_dim, 4 * task.action_dim
    reward = obs_bytes + action_bytes
    return np.dtype(
        {
            "names": ["obs", "action", "reward", "terminated", "success"],
            "formats": [("<f4", (task.obs_dim,)), ("<f4", (task.action_dim,)), "<f4", "u1", "u1"],
            "offsets": [0, obs_bytes, reward, reward + 4, reward + 5],
            "itemsize": reward + 8,
        }
    )


def table_fault(table: np.ndarray, rows: int, known: Mapping[str, int]) -> str | None:
    """What contradicts itself in a table, (episodes,) of `EPISODE_DTYPE`, or None.

    ``rows`` is the task's committed rows, ``known`` how many behaviours and sources there are.
    """
    if not len(table):
        return None
    lengths = table["length"].astype(np.int64)
    if lengths.min() < 2:
        return f"episode {int(lengths.argmin())} has fewer than two rows"
    ends = np.cumsum(lengths)
    wrong = np.flatnonzero(table["start"] != ends - lengths)
    if len(wrong):
        return f"episode {wrong[0]} does not start where the one before it ends"
    if ends[-1] != rows:
        return "its episodes do not add up to the committed rows"
    for name, count in known.items():
        if table[name].max() >= count:
            return f"episode {int(table[name].argmax())} has an unknown {name}"
    return None


def packed_path(directory: Path, task: str) -> Path:
    """The file of a task in a packed store."""
    return directory / f"{task}.safetensors.xz"


def successes(values: np.ndarray | None) -> np.ndarray | None:
    """(T,) numbers as whether each step succeeds, or None where they do not say.

    They do not if some are NaN, or neither 0 nor 1: a share, a distance or a count.
    """
    if values is None or not np.isin(values, (0, 1)).all():
        return None
    return np.asarray(values, bool)


@dataclass
class Episode:
    """One whole episode of T >= 1 steps; step t leads from ``obs[t]`` to ``obs[t + 1]``.

    Attributes:
        obs: (T+1, obs_dim) float32, without padding.
        action: (T, action_dim) float32 in [-1, 1]; :func:`normalize_actions` scales those in an
            environment's own units. (T,) is taken as (T, 1).
        reward: (T,) float32; (T, 1) is taken as that, here and below.
        terminated: (T,) bool, True at the last step alone or nowhere; a time limit is no
            termination.
        success: (T,) bool, or None if it is not known.
        behaviour: what chose the actions, such as ``"scripted"``.
        seed: the seed that reproduces the episode, -1 where there is none.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    success: np.ndarray | None = None
    behaviour: str = "unknown"
    seed: int = -1

    def __post_init__(self) -> None:
        if np.ndim(self.action) == 1:
            self.action = np.asarray(self.action)[:, None]
        for name in ("reward", "terminated", "success"):
            values = getattr(self, name)
            if np.ndim(values) == 2 and np.shape(values)[1] == 1:
                setattr(self, name, np.asarray(values)[:, 0])

    @classmethod
    def from_rows(
        cls, rows: np.ndarray, behaviour: str, seed: int, success_known: bool = True
    ) -> Episode:
        """The episode whose rows, (T+1,) of `row_dtype`, a store holds."""
        return cls(
            obs=rows["obs"].copy(),
            action=rows["action"][1:].copy(),
            reward=rows["reward"][1:].copy(),
            terminated=rows["terminated"][1:].astype(bool),
            success=rows["success"][1:].astype(bool) if success_known else None,
            behaviour=behaviour,
            seed=seed,
        )

    def rows(self, dtype: np.dtype[Any]) -> np.ndarray:
        """What a store holds of it, (T+1,) of `row_dtype`."""
        rows = np.zeros(len(self.obs), dtype)
        rows["obs"] = self.obs
        rows["action"][0] = rows["reward"][0] = np.nan
        for name in ("action", "reward", "terminated", "success"):
            if (values := getattr(self, name)) is not None:
                rows[name][1:] = values
        return rows

    def lost_entries(self) -> list[int]:
        """Entries of its observations whose variation float32 rounds away."""
        obs = np.asarray(self.obs)
        if obs.dtype.itemsize < 8:
            return []
        return lost_in_float32(obs.min(0), obs.max(0))

    def fault(self, task: Task) -> str | None:
        """What keeps it from being stored as an episode of a task; None if nothing does."""
        steps = len(np.atleast_1d(self.action))
        if steps < 1:
            return "it has no step, and at least one is needed"
        wanted = {
            "obs": (steps + 1, task.obs_dim),
            "action": (steps, task.action_dim),
            "reward": (steps,),
            "terminated": (steps,),
        }
        if self.success is not None:
            wanted["success"] = (steps,)
        for name, shape in wanted.items():
            array = np.asarray(getattr(self, name))
            if array.shape != shape:
                return f"its {name} has shape {array.shape} and {shape} was expected"
            if array.dtype.kind not in "fiub":
                return f"its {name} holds {array.dtype}, and numbers were expected"
        for name in ("obs", "action", "reward"):
            with np.errstate(over="ignore"):
                values = np.asarray(getattr(self, name), np.float32)
            if not np.isfinite(values).all():
                return f"its {name} holds NaN or infinite values (in float32)"
        if (largest := float(np.abs(self.action).max())) > ACTION_LIMIT:
            return (
                f"its actions reach {largest:.6g} and must lie in [-1, 1]; if they are in the "
                "environment's own units, scale them: pwm.normalize_actions(action, low, high) "
                f"with the low and high of its action space{_stated_bounds(task)}"
            )
        if np.any(self.terminated[:-1]):
            return (
                f"it terminated at step {int(np.argmax(self.terminated))} and goes on after that; "
                "make what follows another episode"
            )
        if self.success is not None and not np.isin(self.success, (0, 1)).all():
            return (
                "its success holds other values than True and False; give success=None where it "
                "is not known"
            )
        if not 1 <= len(self.behaviour) <= 64 or not self.behaviour.isprintable():
            return f"its behaviour {self.behaviour!r} is not a name of 1 to 64 characters"
        if not -(2**63) <= self.seed < 2**63:
            return f"its seed {self.seed} does not fit 64 bits"
        return None


def _stated_bounds(task: Task) -> str:
    if task.action_low is None:
        return ""
    return f", which are {shown(task.action_low)} and {shown(task.action_high)}"


def all_good(obs: np.ndarray, action: np.ndarray, reward: np.ndarray) -> bool:
    """Whether contiguous arrays hold no bad value for sure; False calls for a closer look.

    It takes a tenth of the time of looking at each value: a sum of squares is finite if all values
    are and none is huge.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [np.dot(values.ravel(), values.ravel()) for values in (obs, reward)]
        inside = action.min() >= -ACTION_LIMIT and action.max() <= ACTION_LIMIT
    return bool(np.isfinite(sums).all() and inside)


def bad_values(
    obs: np.ndarray, action: np.ndarray, reward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which observations (..., obs_dim) no row, and which actions and rewards no step may have."""
    good_steps = (np.abs(action) <= ACTION_LIMIT).all(-1) & np.isfinite(reward)
    return ~np.isfinite(obs).all(-1), ~good_steps


def normalize_actions(actions: Any, low: Any, high: Any) -> np.ndarray:
    """Actions in an environment's own units as the [-1, 1] that an episode store holds.

    For example ``normalize_actions(torques, env.action_space.low, env.action_space.high)``.

    Args:
        actions: (..., action_dim), each entry within its bounds.
        low: (action_dim,) the lowest action, or one number for all entries.
        high: likewise the highest.

    Returns:
        (..., action_dim) float32 in [-1, 1].

    Raises:
        PwmError: if the bounds are not finite, or actions lie beyond them.
    """
    given, least, most = (np.asarray(values, np.float64) for values in (actions, low, high))
    width = given.shape[-1] if given.ndim else 1
    try:
        bounds = [np.broadcast_to(bound, (width,)).tolist() for bound in (least, most)]
    except ValueError:
        bounds = [least.ravel().tolist(), most.ravel().tolist()]
    if fault := bounds_fault(bounds[0], bounds[1], width):
        raise PwmError(
            f"actions cannot be scaled by these bounds ({fault}); give the low and high of the "
            "environment's action space."
        )
    scaled = 2 * (given - least) / (most - least) - 1
    if scaled.size and (largest := float(np.abs(scaled).max())) > ACTION_LIMIT:
        raise PwmError(
            f"actions reach {largest:.6g} times the half-range of their bounds {shown(bounds[0])} "
            f"to {shown(bounds[1])}; give the bounds that they were made for, or where the "
            "environment clips its actions, np.clip them to its bounds first."
        )
    return np.clip(scaled, -1, 1).astype(np.float32)
