"""Windows of H+1 rows from an episode store, as padded time-first batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from pwm.dataset import EpisodeStore, shared_tasks
from pwm.errors import PwmError
from pwm.splits import Split, episodes_in_split
from pwm.suites import Suite, Task

_PREFETCHED = 4
_THREADS = 2  # two gathers wait for the disk together where the data do not fit memory
_PAGE_BUDGET = 2**29  # bytes of mapped files that may become resident before they are let go
_FAULT_BYTES = 2**16  # what Linux maps around one touched page


class Batch(NamedTuple):
    """B windows of H steps, time first, zero-padded to the suite's largest sizes.

    Attributes:
        obs: (H+1, B, obs_dim) float32.
        action: (H, B, action_dim) float32; ``action[t]`` leads from ``obs[t]`` to ``obs[t+1]``.
        reward: (H, B) float32, the reward of that step.
        task: (B,) int64, ids in the suite.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    task: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; to CUDA by way of pinned memory, without waiting."""
        if torch.device(device).type != "cuda":
            return Batch(*(tensor.to(device) for tensor in self))
        return Batch(*(tensor.pin_memory().to(device, non_blocking=True) for tensor in self))


class WindowSampler:
    """Draws training windows from a store; what it draws depends on (seed, step) alone.

    A window is H+1 successive rows of one episode. Row 0's action and reward, which an episode
    does not have, are never part of a batch. Episodes shorter than H+1 rows are left out.
    Batches are grouped by task, in the order of ids.

    The sampler sees the episodes that were committed when the store was opened. Beside the mapped
    files it keeps eight bytes per episode and horizon in memory, and it lets go of mapped pages as
    they pass half a gibibyte, so resident memory is bounded whatever the store's size.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizon: int,
        batch_size: int,
        seed: int,
        *,
        split: Split = "train",
        suite: Suite | None = None,
        tasks: Sequence[str] | None = None,
        balance: str = "task",
        device: torch.device | str = "cpu",
    ) -> None:
        """Checks that every task has windows.

        Args:
            store: where the episodes are.
            horizon: H, the steps in a window.
            batch_size: B, the windows in a batch.
            seed: of all draws, not negative.
            split: ``"train"``, ``"held_out"`` (every 20th episode) or ``"all"``.
            suite: gives task ids and padded sizes, and limits the tasks to its own; it may also
                have tasks that the store does not know. The store's suite by default.
            tasks: draw from these tasks of the suite only; ids stay those of the suite.
            balance: ``"task"`` gives every task the same share of each batch (what does not
                divide goes to tasks drawn by chance), ``"rows"`` every window the same chance.
            device: where batches are put.

        Raises:
            PwmError: for a horizon or batch size below 1, or a task without a single window.
        """
        if horizon < 1 or batch_size < 1 or seed < 0:
            raise PwmError(
                f"horizon {horizon} and batch size {batch_size} must be at least 1 and the seed "
                f"{seed} at least 0."
            )
        if balance not in ("task", "rows"):
            raise PwmError(f"unknown balance '{balance}'; it is 'task' or 'rows'.")
        self.store = store
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self.split: Split = split
        self.suite = suite or store.suite
        self.balance = balance
        self.device = torch.device(device)
        self.tasks = shared_tasks(store, self.suite, tasks)
        self._indexes: dict[int, _WindowIndex] = {}
        self._index(horizon)
        self._sources = [_TaskRows.of(store, task, self.suite.id(task.name)) for task in self.tasks]
        self._touched = 0

    def batch(self, step: int, horizon: int | None = None) -> Batch:
        """The batch of a step: always the same for the same seed, step and store.

        Args:
            step: the update's number, from 0.
            horizon: H of this batch, the sampler's own by default.

        Raises:
            PwmError: if a task has no window of this horizon.
        """
        return self._gather(step, horizon or self.horizon).to(self.device)

    def iterate(self, start: int, stop: int, horizon: int | None = None) -> Iterator[Batch]:
        """Yields ``batch(step)`` for start <= step < stop, prepared ahead in threads.

        The threads end when the iterator is exhausted or closed, and their errors are raised
        here. They make no CUDA calls: the caller's thread issues the transfer, on its stream.
        """
        horizon = horizon or self.horizon
        self._index(horizon)
        with ThreadPoolExecutor(_THREADS, "window-sampler") as pool:
            pending: deque[Future[Batch]] = deque()
            try:
                for step in range(start, stop):
                    pending.append(pool.submit(self._gather, step, horizon))
                    if len(pending) > _PREFETCHED:
                        yield pending.popleft().result().to(self.device)
                while pending:
                    yield pending.popleft().result().to(self.device)
            finally:
                for future in pending:
                    future.cancel()

    def windows(self, horizon: int | None = None) -> dict[str, int]:
        """How many different windows each task has."""
        totals = self._index(horizon or self.horizon).totals
        return {task.name: int(total) for task, total in zip(self.tasks, totals, strict=True)}

    def _index(self, horizon: int) -> _WindowIndex:
        if horizon not in self._indexes:
            self._indexes[horizon] = _WindowIndex.of(self.store, self.tasks, horizon, self.split)
        return self._indexes[horizon]

    def _gather(self, step: int, horizon: int) -> Batch:
        index = self._index(horizon)
        rng = np.random.default_rng([self.seed, step])
        windows, shares = self._draw(rng, index)
        episodes, offsets = index.locate(windows)
        size, suite = self.batch_size, self.suite
        obs = np.empty((horizon + 1, size, suite.obs_dim), np.float32)
        action = np.empty((horizon, size, suite.action_dim), np.float32)
        reward = np.empty((horizon, size), np.float32)
        ids = np.repeat([source.id for source in self._sources], shares)
        end = 0
        for source, first_episode, share in zip(
            self._sources, index.first_episode, shares, strict=True
        ):
            begin, end = end, end + share
            if share:
                part = slice(begin, end)
                starts = source.starts[episodes[part] - first_episode] + offsets[part]
                source.copy(starts, obs[:, part], action[:, part], reward[:, part])
                self._note_pages(share * (source.width * 4 * (horizon + 1) + _FAULT_BYTES))
        return Batch(*(torch.from_numpy(array) for array in (obs, action, reward, ids)))

    def _draw(self, rng: np.random.Generator, index: _WindowIndex) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of windows, grouped by task, and how many each task has."""
        count = len(self.tasks)
        if self.balance == "rows":
            windows = np.sort(rng.integers(index.ends[-1], size=self.batch_size))
            return windows, np.diff(np.searchsorted(windows, index.ends), prepend=0)
        shares = np.full(count, self.batch_size // count)
        shares[rng.permutation(count)[: self.batch_size % count]] += 1
        firsts = np.repeat(index.ends - index.totals, shares)
        return firsts + rng.integers(np.repeat(index.totals, shares)), shares

    def _note_pages(self, touched: int) -> None:
        self._touched += touched
        if self._touched > _PAGE_BUDGET:
            self.store.release_pages()
            self._touched = 0


@dataclass(frozen=True)
class _TaskRows:
    """One task's rows as a float32 matrix; the last column holds flags and is never read."""

    id: int
    obs_dim: int
    action_dim: int
    matrix: np.ndarray  # (rows, width)
    starts: np.ndarray  # (episodes,) first rows

    @classmethod
    def of(cls, store: EpisodeStore, task: Task, task_id: int) -> _TaskRows:
        rows = store.rows(task.name, scattered=True)
        matrix = rows.view(np.float32).reshape(len(rows), -1)
        starts = store.episodes(task.name)["start"]
        return cls(task_id, task.obs_dim, task.action_dim, matrix, starts)

    @property
    def width(self) -> int:
        return self.matrix.shape[1]

    def copy(
        self, starts: np.ndarray, obs: np.ndarray, action: np.ndarray, reward: np.ndarray
    ) -> None:
        """Copies the windows that start at the given rows, and zeros the padding."""
        length = len(obs)
        by_row, by_column = self.matrix.strides
        windows = as_strided(
            self.matrix,
            (len(self.matrix) - length + 1, length, self.width),
            (by_row, by_row, by_column),
            writeable=False,
        )
        block = windows[starts].swapaxes(0, 1)  # (H+1, share, width), one disk block a window
        last_action = self.obs_dim + self.action_dim
        obs[..., : self.obs_dim] = block[..., : self.obs_dim]
        obs[..., self.obs_dim :] = 0
        action[..., : self.action_dim] = block[1:, :, self.obs_dim : last_action]
        action[..., self.action_dim :] = 0
        reward[...] = block[1:, :, last_action]


@dataclass(frozen=True)
class _WindowIndex:
    """All windows of a horizon, numbered through tasks and episodes in order."""

    episode_ends: np.ndarray  # (all episodes,) windows up to and with that episode
    first_episode: np.ndarray  # (tasks,) position of the task's first episode in episode_ends
    ends: np.ndarray  # (tasks,) windows up to and with that task
    totals: np.ndarray  # (tasks,)

    @classmethod
    def of(
        cls, store: EpisodeStore, tasks: Sequence[Task], horizon: int, split: Split
    ) -> _WindowIndex:
        counts = []
        for task in tasks:
            table = store.episodes(task.name)
            windows = np.maximum(table["length"].astype(np.int64) - horizon, 0)
            windows[~episodes_in_split(len(table), split)] = 0
            if not windows.any():
                raise PwmError(
                    f"task '{task.name}' has no episode of {horizon + 1} rows or more in split "
                    f"'{split}' of {store.path} ({len(table)} episodes in all); collect more, "
                    "lower the horizon, or leave the task out of the suite."
                )
            counts.append(windows)
        episodes = np.array([len(windows) for windows in counts])
        totals = np.array([windows.sum() for windows in counts])
        first_episode = np.cumsum(episodes) - episodes
        return cls(np.cumsum(np.concatenate(counts)), first_episode, np.cumsum(totals), totals)

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the windows' episodes in ``episode_ends``, and their first rows therein."""
        episodes = np.searchsorted(self.episode_ends, windows, side="right")
        before = np.where(episodes > 0, self.episode_ends[episodes - 1], 0)
        return episodes, windows - before
