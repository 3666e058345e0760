"""Windows read from a store's files, of which nothing stays in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from pwm.core.suites import Suite, Task
from pwm.data.episode import ROWS_NAME, all_good, bad_values
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch, BufferPool, blank_arrays

_TERMINATED = np.array([1, 0, 0, 0], np.uint8).view(np.uint32)  # of a row's flags, the first byte


class StoredWindows:
    """Reads windows of a store's rows one by one and pads them to a suite's sizes.

    Args:
        store: where the rows are.
        tasks: the tasks to read, in the order of their ids.
        suite: gives ids and padded sizes.
        terminations: whether batches have ``terminated``.

    Attributes:
        buffers: the memory of the batches.
    """

    def __init__(
        self, store: EpisodeStore, tasks: Sequence[Task], suite: Suite, terminations: bool = False
    ) -> None:
        self.buffers = BufferPool()
        self._suite, self._terminations = suite, terminations
        self._files = [store.record_file(task.name, ROWS_NAME) for task in tasks]
        self._fds = np.array([file.fileno() for file in self._files])
        self._widths = np.array([file.dtype.itemsize for file in self._files])
        self._ids = np.array([suite.id(task.name) for task in tasks])
        sizes = [(task.obs_dim, task.action_dim) for task in tasks]
        self._groups = [  # of neighbouring tasks whose rows have the same layout
            (end, size) for end, size in enumerate(sizes, 1) if sizes[end : end + 1] != [size]
        ]
        self._raw = BufferPool()

    def read(self, which: np.ndarray, rows: np.ndarray, horizon: int) -> tuple[Batch, np.ndarray]:
        """Reads windows of H = ``horizon`` steps.

        Args:
            which: (B,) positions of the windows' tasks, ascending.
            rows: (B,) the windows' first rows in their task.
            horizon: H.

        Returns:
            The batch, and which windows are no good, (B,) bool: they could not be read, are of a
            file that was changed since it was opened, or hold values that no window may hold.
        """
        raw, bad = self._read(which, rows, horizon + 1)
        obs, action, reward, terminated = self._pad(raw.view(np.float32), which, horizon)
        if not all_good(obs, action, reward):
            bad_obs, bad_steps = bad_values(obs, action, reward)
            bad |= bad_obs.any(0) | bad_steps.any(0)
        arrays = obs, action, reward, self._ids[which], *([terminated] * self._terminations)
        return Batch(*(torch.from_numpy(array) for array in arrays)), bad

    def _read(
        self, which: np.ndarray, rows: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The windows' bytes one after the other, and which of them cannot be trusted."""
        widths = self._widths[which]
        requests = np.stack([self._fds[which], widths * rows, widths * length], 1).tolist()
        if hasattr(os, "posix_fadvise"):
            for fd, offset, size in requests:  # so that the disk works on all of them at once
                os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)
        raw = self._raw.take(length * int(widths.sum()))
        bad = np.zeros(len(which), bool)
        view, end = raw.data, 0
        for i, (fd, offset, size) in enumerate(requests):
            begin, end = end, end + size
            try:
                bad[i] = os.preadv(fd, [view[begin:end]], offset) != size
            except OSError:
                bad[i] = True
        for position in np.unique(which):
            if self._files[position].fault():
                bad |= which == position
        return raw, bad

    def _pad(self, raw: np.ndarray, which: np.ndarray, horizon: int) -> list[np.ndarray]:
        obs, action, reward = blank_arrays(self.buffers, self._suite, horizon, len(which))
        terminated = np.zeros(reward.shape, bool)
        first, end = 0, 0
        for group_end, (obs_dim, action_dim) in self._groups:
            begin, end = end, int(np.searchsorted(which, group_end))
            width = obs_dim + action_dim + 2  # of float32: with reward and flags
            part, last = slice(begin, end), first + (end - begin) * (horizon + 1) * width
            rows = raw[first:last].reshape(end - begin, horizon + 1, width).swapaxes(0, 1)
            first = last
            obs[:, part, :obs_dim] = rows[..., :obs_dim]
            obs[:, part, obs_dim:] = 0
            action[:, part, :action_dim] = rows[1:, :, obs_dim : obs_dim + action_dim]
            action[:, part, action_dim:] = 0
            reward[:, part] = rows[1:, :, obs_dim + action_dim]
            flags = rows[1:, :, obs_dim + action_dim + 1].view(np.uint32)
            terminated[:, part] = flags & _TERMINATED != 0
        return [obs, action, reward, terminated]
