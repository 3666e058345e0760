"""Episodes of one task in files of plain arrays.

A row is a decision step. Row t of observations is what the action of row t was chosen for; files
also have one more observation than actions, or, as TD-MPC2's, an action in row t that led to it
(that of row 0 is NaN). Files that lack the observation after an episode's last action lose that
action.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.action_bounds import with_bounds
from pwm.core.errors import PwmError
from pwm.core.files import file_sha256
from pwm.core.suites import Task
from pwm.data.episode import Episode, successes
from pwm.interop.array_files import Table, open_tables, rows

_CHUNK = 65_536
ACTION_UNITS = ("environment", "normalized")


class ArraySource:
    """Files of plain arrays that hold a task's episodes.

    Attributes:
        task: the task.
        description: which files they are, for a store's sources.
        episodes: how many they have.
        lost: how many last steps of episodes are left out, since the observation after them is
            not there: all of them, and those that ``terminated``.
    """

    def __init__(
        self,
        files: Sequence[Path],
        task: Task,
        bounds: tuple[np.ndarray, np.ndarray] | None,
        obs_keys: Sequence[str] | None = None,
    ) -> None:
        """Opens the files and finds their episodes; arrays are read later.

        Args:
            files: in the order of their episodes.
            task: the task.
            bounds: the lowest and the highest action, (action_dim,) each, which become -1 and 1;
                None for actions that are in [-1, 1] already.
            obs_keys: of observations in several arrays, those to take, in this order.

        Raises:
            PwmError: if a file cannot be read, or does not fit the task.
        """
        if bounds is not None and task.domain == "gymnasium":
            task = with_bounds(task, *bounds)
        self.task = task
        self._files, self._bounds, self._keys = files, bounds, obs_keys
        self.lost: Counter[str] = Counter()
        self.episodes = 0
        for path in files:
            with open_tables(path) as tables:
                self.parts = self._parts(tables[0])
                self.episodes += sum(len(self._spans(table)) for table in tables)
        _require_different(digests := {path: file_sha256(path) for path in files})
        shared = os.path.commonpath([path.parent for path in files])
        self.description = {
            "dataset": ", ".join(path.name for path in files[:3]) + (", ..." * (len(files) > 3)),
            "files": {os.path.relpath(path, shared): digests[path] for path in files},
            "action_bounds": None if bounds is None else [bound.tolist() for bound in bounds],
            "obs_keys": list(self.parts) or None,
        }

    def read(self) -> Iterator[tuple[Episode, int]]:
        """The episodes in their order, one in memory at a time, and how many actions were clipped.

        Raises:
            PwmError: if a file cannot be read.
        """
        for path in self._files:
            try:
                with open_tables(path) as tables:
                    for table in tables:
                        yield from self._episodes(table)
            except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
                raise PwmError(f"{path} is damaged ({error}); fetch it again.") from error

    def _parts(self, table: Table) -> dict[str, int]:
        """Sizes of the arrays that an observation consists of, by name; empty if it is one."""
        obs = table.columns["obs"]
        if not isinstance(obs, Mapping):
            if self._keys:
                raise PwmError(f"{table.name} has one array of observations; leave out obs_keys.")
            size = int(np.prod(obs.shape[1:], dtype=int))
            if size != self.task.obs_dim:
                raise PwmError(
                    f"{table.name} has observations of {size} numbers, and task "
                    f"'{self.task.name}' has {self.task.obs_dim}; correct obs_dim or give other "
                    "data."
                )
            return {}
        keys = self._keys or [key for key, column in obs.items() if _is_vector(column)]
        if missing := [key for key in keys if key not in obs]:
            raise PwmError(
                f"{table.name} has no observation {missing[0]}; it has {', '.join(obs)}."
            )
        sizes = {key: int(np.prod(obs[key].shape[1:], dtype=int)) for key in keys}
        if sum(sizes.values()) != self.task.obs_dim:
            told = ", ".join(f"{key} ({size})" for key, size in sizes.items())
            raise PwmError(
                f"{table.name} has observations {told}, {sum(sizes.values())} numbers in all, and "
                f"task '{self.task.name}' has {self.task.obs_dim}; choose some by obs_keys=[a,b]."
            )
        return sizes

    def _spans(self, table: Table) -> list[tuple[int, int]]:
        """First row and end of each episode of a table."""
        count, seen = _count(table.columns["action"]), _count(table.columns["obs"])
        if not count:
            raise PwmError(f"{table.name} has no step; leave it out.")
        _require_as_many(table, count)
        if seen == count + 1 or _follows(table):
            return [(0, count)]
        if seen != count:
            raise PwmError(
                f"{table.name} has {seen} observations and {count} actions; give as many of both, "
                "or one observation more."
            )
        ends = np.zeros(count, bool)
        for name in ("terminated", "truncated", "done"):
            ends |= _flags(table, name, count)
        ends[:-1] |= self._jumps(table, ends)
        bounds = [0, *(np.flatnonzero(ends) + 1).tolist()]
        if bounds[-1] < count:
            bounds.append(count)
        spans = list(pairwise(bounds))
        if not {"truncated", "done"} & table.columns.keys():  # a time limit ends them unsaid
            most = self.task.episode_length
            spans = [(s, min(s + most, e)) for a, e in spans for s in range(a, e, most)]
        return spans

    def _jumps(self, table: Table, ends: np.ndarray) -> np.ndarray:
        """Which steps, (rows - 1,), led elsewhere than to the next row though no episode ends."""
        count, jumps = len(ends), np.zeros(len(ends) - 1, bool)
        if "next_obs" not in table.columns:
            return jumps
        for first in range(0, count - 1, _CHUNK):
            end = min(first + _CHUNK, count - 1)
            led_to = self._observations(table.columns["next_obs"], first, end)
            found = self._observations(table.columns["obs"], first + 1, end + 1)
            jumps[first:end] = ~np.isclose(led_to, found, 1e-3, 1e-5, equal_nan=True).all(1)
        jumps &= ~ends[:-1]
        if jumps.sum() > 0.5 * (~ends[:-1]).sum():
            raise PwmError(
                f"{table.name} is not in the order of time: {jumps.sum():,} of {count:,} steps "
                "have next_observations other than the next row's observations; give the rows of "
                "one episode after another, not shuffled or interleaved."
            )
        return jumps

    def _episodes(self, table: Table) -> Iterator[tuple[Episode, int]]:
        columns = table.columns
        count = len(columns["action"])
        flags = {"terminated": _flags(table, "terminated", count)}
        if "success" in columns:
            flags["success"] = _column(table, "success", count)
        for first, end in self._spans(table):
            action = rows(columns["action"], first, end)
            reward = _flat(rows(columns["reward"], first, end))
            kept = {name: values[first:end] for name, values in flags.items()}
            obs = self._observations(columns["obs"], first, end + 1)
            if _follows(table):  # the first row's action and reward mean nothing
                action, reward = action[1:], reward[1:]
                kept = {name: values[1:] for name, values in kept.items()}
            elif "next_obs" in columns:
                last = self._observations(columns["next_obs"], end - 1, end)
                obs = np.concatenate([obs[: end - first], last])
            elif len(obs) == end - first or end < count:
                self.lost.update({"all": 1, "terminated": int(kept["terminated"][-1])})
                obs, action, reward = obs[: end - first], action[:-1], reward[:-1]
                kept = {name: values[:-1] for name, values in kept.items()}
            scaled, clipped = self._scaled(action)
            success = successes(kept.get("success"))
            yield Episode(obs, scaled, reward, kept["terminated"], success), clipped

    def _observations(self, columns: Any, first: int, end: int) -> np.ndarray:
        keyed = isinstance(columns, Mapping)
        parts = [columns[key] for key in self.parts] if keyed else [columns]
        read = [rows(part, first, end) for part in parts]
        return np.concatenate([part.reshape(len(part), -1) for part in read], 1)

    def _scaled(self, action: np.ndarray) -> tuple[np.ndarray, int]:
        action = action.reshape(len(action), *action.shape[1:] or (1,)).astype(np.float64)
        if self._bounds is None or action.shape[1:] != self._bounds[0].shape:
            return action.astype(np.float32), 0
        low, high = self._bounds
        scaled = 2 * (action - low) / (high - low) - 1
        outside = (np.abs(scaled) > 1 + 1e-6).any(1)
        return np.clip(scaled, -1, 1).astype(np.float32), int(outside.sum())


def _require_as_many(table: Table, count: int) -> None:
    """Raise PwmError unless there is a reward, and a next observation if any, for each action."""
    for name in {"reward", "next_obs"} & table.columns.keys():
        if (found := _count(table.columns[name])) != count:
            raise PwmError(
                f"{table.name} has {found} of {name} and {count} actions; give as many, each at "
                "the row of the action that led to it."
            )


def _require_different(digests: Mapping[Path, str]) -> None:
    """Raise PwmError where two files are the same: held out episodes would be trained on too."""
    first: dict[str, Path] = {}
    for path, digest in digests.items():
        if (other := first.setdefault(digest, path)) is not path:
            raise PwmError(f"{other} and {path} hold the same bytes; leave one of them out.")


def action_bounds(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest action of a task's environment, (action_dim,) each."""
    if task.domain != "gymnasium":
        return -np.ones(task.action_dim), np.ones(task.action_dim)
    if task.action_low is not None:
        return np.array(task.action_low), np.array(task.action_high)
    from pwm.envs import GymnasiumEnv

    try:
        env = GymnasiumEnv(task)
    except PwmError as error:
        raise PwmError(
            f"the units of the actions are not known ({error}); give action_units=normalized if "
            "they are in [-1, 1] already, or state actions: {min: ..., max: ...} in the task's "
            "file."
        ) from error
    env.close()
    return env.action_bounds


def _is_vector(column: Any) -> bool:
    """Whether an array has a few numbers a step, and no picture."""
    return len(column.shape) <= 2


def _follows(table: Table) -> bool:
    """Whether the action of a row led to it, as in TD-MPC2's files."""
    same = _count(table.columns["obs"]) == _count(table.columns["action"])
    return same and bool(np.isnan(rows(table.columns["action"], 0, 1).astype(np.float64)).all())


def _count(column: Any) -> int:
    """Rows of a column, which may be a mapping of arrays."""
    return len(next(iter(column.values())) if isinstance(column, Mapping) else column)


def _flags(table: Table, name: str, count: int) -> np.ndarray:
    """A column of true and false, (count,); false where there is none."""
    if name not in table.columns:
        return np.zeros(count, bool)
    return np.nan_to_num(_column(table, name, count)) > 0


def _column(table: Table, name: str, count: int) -> np.ndarray:
    """A number for each action, (count,); of one number more, the first is left out."""
    values = _flat(rows(table.columns[name]))
    if values.shape not in ((count,), (count + 1,)) or values.dtype.kind not in "fiub":
        raise PwmError(f"{table.name} has {name} of shape {values.shape}, and {count} actions.")
    return values[len(values) - count :]


def _flat(values: np.ndarray) -> np.ndarray:
    """(T, 1) as (T,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
