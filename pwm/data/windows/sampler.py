"""Windows of H+1 rows from an episode store, as padded time-first batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.episode import ROWS_NAME
from pwm.data.problems import BadData, Problem
from pwm.data.shared_tasks import shared_tasks
from pwm.data.splits import Split, episodes_in_split
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch, BufferPool, batch_bytes
from pwm.data.windows.episode_weights import SamplingConfig, episode_weights
from pwm.data.windows.in_memory import ResidentWindows, resident_bytes
from pwm.data.windows.index import WindowIndex
from pwm.data.windows.on_disk import StoredWindows
from pwm.data.windows.prefetch import on_gpu, pinned_memory

DEFAULT_MEMORY = 2**32

BALANCES = ("task", "rows")
DATA_DEVICES = ("auto", "cpu", "cuda")

_PREFETCHED = 4
_THREADS = 2  # of rows in memory; reading files takes turns in any number of threads
_SAME_TASK = 4  # times a bad window is replaced by another one of its task
_ATTEMPTS = 100


class WindowSampler:
    """Draws training windows from a store; what it draws depends on (seed, step) alone.

    A window is H+1 successive rows of one episode. Row 0's action and reward, which an episode
    does not have, are never part of a batch. Batches are grouped by task, in the order of ids.

    The sampler sees the episodes that were committed when the store was opened. Every batch is
    checked as it is read: a window that cannot be read, is of a file that has changed, or holds a
    value it may not hold, is an error, or is replaced by another one.

    Where the rows live, on the GPU, in memory or in their files, changes nothing but the speed.
    Beside them it keeps eight bytes per episode and horizon, and eight more per episode.

    Args:
        store: where the episodes are.
        horizon: H, the steps in a window.
        batch_size: B, the windows in a batch.
        seed: of all draws, not negative.
        split: ``"train"``, ``"held_out"`` (every 20th episode) or ``"all"``.
        suite: gives task ids and padded sizes, and limits the tasks to its own; it may also have
            tasks that the store lacks. The store's suite by default.
        tasks: draw from these tasks of the suite only; ids stay those of the suite.
        balance: ``"task"`` gives every task the same share of each batch (what does not divide goes
            to tasks drawn by chance), ``"rows"`` every window the same chance.
        device: where batches are put.
        data_device: where the rows live while windows are drawn: ``"auto"``, on a GPU if batches go
            there and the rows take no more than half of its free memory; ``"cpu"``; or ``"cuda"``.
        memory: bytes of padded rows that may live in the host's memory, 4 GiB by default. More stay
            in the store's files, and each window is read from there.
        bad: notes data problems; the episodes that it names already are left out. By default the
            first bad window is an error. A task without a window is a problem too.
        terminations: whether batches have ``terminated``.
        share: (i, n) reads of every batch the windows i, i + n, ... alone, B / n of them; the
            shares of all i < n make up the batch that (0, 1) reads.

    Attributes:
        task_shares: (tasks,) shares of ``tasks`` in batches to come, in place of equal ones with
            balance ``"task"``; not to be changed while :meth:`iterate` goes on.

    Raises:
        PwmError: for a horizon or batch size below 1, a batch size that its shares do not divide,
            or a task without a single window.
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
        data_device: str = "auto",
        memory: int = DEFAULT_MEMORY,
        bad: BadData | None = None,
        share: tuple[int, int] = (0, 1),
        terminations: bool = False,
    ) -> None:
        if horizon < 1 or batch_size < 1 or seed < 0:
            wrong = f"horizon {horizon}, batch size {batch_size}, seed {seed}"
            raise PwmError(f"{wrong}: the first two must be at least 1 and the seed at least 0.")
        if balance not in BALANCES:
            raise PwmError(f"unknown balance '{balance}'; it is {' or '.join(BALANCES)}.")
        if batch_size % share[1]:
            raise PwmError(
                f"batch_size={batch_size} must be a multiple of {share[1]}, the parts that every "
                "batch is divided into."
            )
        self.store, self.suite, self.split = store, suite or store.suite, split
        self.horizon, self.batch_size, self.seed = horizon, batch_size, seed
        self.balance, self._share = balance, share
        self.task_shares: np.ndarray | None = None
        self.device, self.bad = torch.device(device), bad or BadData()
        self.tasks = shared_tasks(store, self.suite, tasks)
        self._excluded = {task.name: self.bad.episodes(task.name) for task in self.tasks}
        self._indexes: dict[int, WindowIndex] = {}
        self._weights: np.ndarray | None = None
        self._index(horizon)
        self._starts = np.concatenate([store.episodes(task.name)["start"] for task in self.tasks])
        self._windows = self._open_windows(data_device, memory, terminations)

    def _open_windows(
        self, data_device: str, memory: int, terminations: bool
    ) -> ResidentWindows | StoredWindows:
        """The rows where they are to live."""
        require_data_device(data_device, self.device)
        source = self.store, self.tasks, self.suite
        size = resident_bytes(*source)
        if self.device.type == "cuda" and data_device != "cpu":
            free, _ = torch.cuda.mem_get_info(self.device)
            if size <= free // 2:
                return ResidentWindows(*source, self.device, self.bad, terminations)
            if data_device == "cuda":
                raise PwmError(
                    f"data_device=cuda was asked for, but the data take {size / 2**30:.1f} GiB and "
                    f"half of the GPU's free memory is {free / 2**31:.1f} GiB; use auto or cpu."
                )
        if size <= memory:
            return ResidentWindows(*source, torch.device("cpu"), self.bad, terminations)
        return StoredWindows(*source, terminations)

    def batch(self, step: int, horizon: int | None = None) -> Batch:
        """The batch of a step: always the same for the same seed, step and store.

        Args:
            step: the update's number, from 0.
            horizon: H of this batch, the sampler's own by default.

        Raises:
            PwmError: if a task has no window of this horizon.
            DataError: for data problems that are not to be skipped.
        """
        return self._gather(step, horizon or self.horizon).to(self.device)

    def iterate(self, start: int, stop: int, horizon: int | None = None) -> Iterator[Batch]:
        """Yields ``batch(step)`` for start <= step < stop, prepared ahead in threads.

        The threads end when the iterator is exhausted or closed, and their errors are raised
        here. They make no CUDA calls: the caller's thread issues the copies, on a stream that is
        there for them alone. Windows of rows on the GPU are drawn when they are needed.
        """
        horizon = horizon or self.horizon
        self._index(horizon)
        if isinstance(self._windows, ResidentWindows) and self._windows.device.type == "cuda":
            return (self._gather(step, horizon) for step in range(start, stop))
        if self.device.type != "cuda":
            return self._prepared(start, stop, horizon, self.device)
        size = batch_bytes(self.suite, horizon, self.batch_size // self._share[1])
        blocks = [pinned_memory(size) for _ in range(_PREFETCHED + _THREADS + 2)]
        self._windows.buffers = BufferPool(blocks)
        return on_gpu(self._prepared(start, stop, horizon, "cpu"), self.device)

    def _prepared(
        self, start: int, stop: int, horizon: int, device: torch.device | str
    ) -> Iterator[Batch]:
        threads = _THREADS if isinstance(self._windows, ResidentWindows) else 1
        with ThreadPoolExecutor(threads, "window-sampler") as pool:
            pending: deque[Future[Batch]] = deque()
            try:
                for step in range(start, stop):
                    pending.append(pool.submit(self._gather, step, horizon))
                    if len(pending) > _PREFETCHED:
                        yield pending.popleft().result().to(device)
                while pending:
                    yield pending.popleft().result().to(device)
            finally:
                for future in pending:
                    future.cancel()

    def windows(self, horizon: int | None = None) -> dict[str, int]:
        """How many different windows each task has."""
        totals = self._index(horizon or self.horizon).totals
        return {task.name: int(total) for task, total in zip(self.tasks, totals, strict=True)}

    def short_episodes(self) -> dict[str, np.ndarray]:
        """Numbers of the episodes that are too short for a window, by task, where there are any."""
        lengths = {task.name: self.store.episodes(task.name)["length"] for task in self.tasks}
        short = {
            task: np.flatnonzero(episodes_in_split(len(n), self.split) & (n <= self.horizon))
            for task, n in lengths.items()
        }
        return {task: episodes for task, episodes in short.items() if len(episodes)}

    def weigh(self, weights: np.ndarray | None) -> None:
        """Draw the windows of a task by its episodes' weights from the next batch on.

        Args:
            weights: (all episodes of the tasks,), see :meth:`WindowIndex.weighted`; None for all
                windows of a task alike.
        """
        self._weights = weights
        self._indexes.clear()

    def episode_weights(self, config: SamplingConfig, errors: np.ndarray | None) -> np.ndarray:
        """What :meth:`weigh` takes, (all episodes of the tasks,).

        Args:
            config: how often recent and surprising episodes are drawn.
            errors: (all episodes of the tasks,), for ``config.surprise``.
        """
        windows, firsts = self._windows_by_episode(), self._index(self.horizon).first_episode[1:]
        known = np.ones(len(windows)) if errors is None else errors
        parts = zip(np.split(windows, firsts), np.split(known, firsts), strict=True)
        return np.concatenate([episode_weights(config, *part) for part in parts])

    def episodes_with_windows(self) -> list[np.ndarray]:
        """By task, positions among all episodes of the tasks of those that have a window."""
        firsts = self._index(self.horizon).first_episode
        ends = np.append(firsts[1:], len(self._starts))
        found = np.flatnonzero(self._windows_by_episode())
        return [found[(found >= a) & (found < b)] for a, b in zip(firsts, ends, strict=True)]

    def of_episodes(
        self, episodes: np.ndarray, rng: np.random.Generator
    ) -> tuple[Batch, np.ndarray]:
        """A random window of each of some episodes.

        Args:
            episodes: (n,) ascending positions among all episodes of the tasks, each with a window.
            rng: where in the episodes.

        Returns:
            The batch on the device, and (n,) which windows hold bad values.
        """
        offsets = rng.integers(self._windows_by_episode()[episodes])
        firsts = self._index(self.horizon).first_episode
        which = np.searchsorted(firsts, episodes, side="right") - 1
        batch, bad = self._windows.read(which, self._starts[episodes] + offsets, self.horizon)
        return batch.to(self.device), bad

    def _windows_by_episode(self) -> np.ndarray:
        return np.diff(self._index(self.horizon).episode_ends, prepend=0)

    def _index(self, horizon: int) -> WindowIndex:
        if horizon not in self._indexes:
            index = WindowIndex.of(
                self.store, self.tasks, horizon, self.split, self._excluded, self.bad
            )
            weights = self._weights
            self._indexes[horizon] = index if weights is None else index.weighted(weights)
        return self._indexes[horizon]

    def _gather(self, step: int, horizon: int) -> Batch:
        index = self._index(horizon)
        rng = np.random.default_rng([self.seed, step])
        first, parts = self._share
        windows = self._draw(rng, index)[first::parts].copy()
        if parts > 1:
            rng = np.random.default_rng([self.seed, step, 1 + first])  # of its bad windows alone
        for attempt in range(_ATTEMPTS):
            which = index.tasks_of(windows)
            episodes, offsets = index.locate(windows)
            batch, bad = self._windows.read(which, self._starts[episodes] + offsets, horizon)
            if not bad.any():
                return batch
            self._note(index, which[bad], episodes[bad])
            if attempt < _SAME_TASK:
                windows[bad] = index.draw(rng, which[bad])
            else:  # of all tasks, where one task has too few good ones
                windows[bad] = rng.integers(index.ends[-1], size=np.count_nonzero(bad))
                windows = windows[np.argsort(index.tasks_of(windows), kind="stable")]
        raise PwmError(
            f"{_ATTEMPTS} times in a row a batch of {self.store.path} had bad windows; "
            f"{self.bad.summary()} Restore the store from a copy or make it anew."
        )

    def _draw(self, rng: np.random.Generator, index: WindowIndex) -> np.ndarray:
        """Numbers of windows, (B,), grouped by task."""
        if self.balance == "rows":
            windows = np.sort(rng.integers(index.ends[-1], size=self.batch_size))
            return windows if self._weights is None else index.draw(rng, index.tasks_of(windows))
        with_windows = np.flatnonzero(index.totals)
        if self.task_shares is not None:
            shares = _counts(rng, self.task_shares[with_windows], self.batch_size)
            return index.draw(rng, np.repeat(with_windows, shares))
        count = len(with_windows)
        shares = np.full(count, self.batch_size // count)
        shares[rng.permutation(count)[: self.batch_size % count]] += 1
        return index.draw(rng, np.repeat(with_windows, shares))

    def _note(self, index: WindowIndex, which: np.ndarray, episodes: np.ndarray) -> None:
        """Notes bad windows, by their tasks' positions and their episodes in the index."""
        found, windows = np.unique(np.stack([which, episodes]), axis=1, return_counts=True)
        for position, episode, count in zip(*found.tolist(), windows.tolist(), strict=True):
            task = self.tasks[position].name
            number = episode - int(index.first_episode[position])
            file = self.store.record_file(task, ROWS_NAME)
            fault = file.fault()
            why = fault or "a value that is not finite, or an action outside [-1, 1]"
            self.bad.note(Problem(str(file.path), task, None if fault else number, why), count)


def _counts(rng: np.random.Generator, shares: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers that sum to ``size``, each its share of it rounded down or more, by chance."""
    exact = size * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    rest = exact - counts
    left = size - int(counts.sum())
    return counts + rng.multinomial(left, rest / rest.sum()) if left else counts


def require_data_device(data_device: str, device: torch.device) -> None:
    """Raise PwmError unless data can live there for batches on ``device``."""
    if data_device not in DATA_DEVICES:
        raise PwmError(f"unknown data_device '{data_device}'; it is {' or '.join(DATA_DEVICES)}.")
    if data_device == "cuda" and device.type != "cuda":
        raise PwmError(f"data_device=cuda needs device=cuda, and device={device} was given.")
