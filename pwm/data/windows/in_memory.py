"""Windows of rows that live in memory, of the host or of a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.episode import all_good, bad_values
from pwm.data.problems import BadData, DataError
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch, BufferPool, blank_arrays

_CHUNK_ROWS = 2**14


def resident_bytes(store: EpisodeStore, tasks: Sequence[Task], suite: Suite) -> int:
    """Bytes that the padded rows of some tasks take."""
    rows = sum(store.record(task.name).rows for task in tasks)
    return 4 * rows * (suite.obs_dim + suite.action_dim + 1)


class ResidentWindows:
    """All rows of some tasks, padded to a suite's sizes, read once from their files.

    Arguments are those of `StoredWindows`, the ``device`` where the rows live and batches are made,
    and ``bad``, which notes tasks whose rows cannot be read; ``terminations`` takes a byte a row.

    Attributes:
        buffers: the memory of the batches, where that is the host's.
    """

    def __init__(
        self,
        store: EpisodeStore,
        tasks: Sequence[Task],
        suite: Suite,
        device: torch.device,
        bad: BadData,
        terminations: bool = False,
    ) -> None:
        self.buffers = BufferPool()
        self._suite, self.device = suite, device
        counts = [store.record(task.name).rows for task in tasks]
        self._first = np.cumsum([0, *counts])
        total = int(self._first[-1])
        shapes = (total, suite.obs_dim), (total, suite.action_dim), (total,)
        self._columns = [_empty(shape, device) for shape in shapes]  # obs, action, reward
        self._terminated = torch.zeros(total, dtype=torch.bool) if terminations else None
        self._bad_obs, self._bad_step = np.zeros(total, bool), np.zeros(total, bool)
        for task, first in zip(tasks, self._first.tolist(), strict=False):
            try:
                self._load(store, task, first)
            except DataError as error:
                bad.note(error.problem)
                self._bad_obs[first : first + store.record(task.name).rows] = True
        if self._terminated is not None:
            self._terminated = self._terminated.to(device)
        self._has_bad = bool(self._bad_obs.any() or self._bad_step.any())
        self._ids = np.array([suite.id(task.name) for task in tasks])

    def _load(self, store: EpisodeStore, task: Task, first: int) -> None:
        count, starts = store.record(task.name).rows, store.episodes(task.name)["start"]
        for begin in range(0, count, _CHUNK_ROWS):
            end = min(begin + _CHUNK_ROWS, count)
            rows = store.rows(task.name, begin, end)
            is_first = starts[slice(*np.searchsorted(starts, [begin, end]))] - begin
            obs = np.pad(rows["obs"], ((0, 0), (0, self._suite.obs_dim - task.obs_dim)))
            action = np.pad(rows["action"], ((0, 0), (0, self._suite.action_dim - task.action_dim)))
            reward = rows["reward"].copy()
            action[is_first] = reward[is_first] = 0  # they have none, and no batch has it
            at = slice(first + begin, first + end)
            if not all_good(obs, action, reward):
                self._bad_obs[at], self._bad_step[at] = bad_values(obs, action, reward)
            if self._terminated is not None:
                self._terminated.numpy()[at] = rows["terminated"] != 0
            for column, values in zip(self._columns, (obs, action, reward), strict=True):
                _put(column[at], values)

    def read(self, which: np.ndarray, rows: np.ndarray, horizon: int) -> tuple[Batch, np.ndarray]:
        """Takes windows of H = ``horizon`` steps; see `StoredWindows.read`."""
        index = self._first[which] + rows + np.arange(horizon + 1)[:, None]  # (H+1, B)
        bad = np.zeros(len(which), bool)
        if self._has_bad:
            bad = self._bad_obs[index].any(0) | self._bad_step[index[1:]].any(0)
        take = self._take_on_host if self.device.type == "cpu" else self._take_on_device
        obs, action, reward = take(index)
        terminated = None
        if self._terminated is not None:
            terminated = self._terminated[self._to_device(index[1:])]
        return Batch(obs, action, reward, self._to_device(self._ids[which]), terminated), bad

    def _take_on_device(self, index: np.ndarray) -> list[Tensor]:
        rows = self._to_device(index)
        return [c[i] for c, i in zip(self._columns, (rows, rows[1:], rows[1:]), strict=True)]

    def _take_on_host(self, index: np.ndarray) -> list[Tensor]:
        arrays = blank_arrays(self.buffers, self._suite, len(index) - 1, index.shape[1])
        rows = index, index[1:], index[1:]
        for out, column, i in zip(arrays, self._columns, rows, strict=True):
            np.take(column.numpy(), i, 0, out, "clip")  # clip: straight into out
        return [torch.from_numpy(array) for array in arrays]

    def _to_device(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _put(target: Tensor, values: np.ndarray) -> None:
    if target.device.type == "cpu":
        target.numpy()[:] = values  # in one thread: torch's wait for each other on busy cores
    else:
        target.copy_(torch.from_numpy(values))


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.empty(shape, device=device)
    try:
        return torch.from_numpy(np.empty(shape, np.float32))  # NumPy asks for huge pages
    except MemoryError as error:
        raise PwmError(
            f"there is no memory for {4 * math.prod(shape) / 2**30:.1f} GiB of data; lower "
            "data_memory, so that they are read from their files."
        ) from error
