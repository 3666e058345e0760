"""How fast training windows are drawn, beside torchrl's replay buffer on the same rows.

The rows are a million of the 80 tasks' sizes: unpadded in an episode store for us, padded in a
memory-mapped storage for torchrl, which is installed for this alone, since it asks for another
tensordict: ``pip install --no-deps torchrl==0.14.1``. A batch has 1,024 windows of 17 rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.rows import Row, interleaved

from pwm.core.suites import SUITES, Suite, Task
from pwm.data.episode import EPISODE_DTYPE, Episode, row_dtype
from pwm.data.manifest import Manifest, Segment, TaskRecord
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler

_SUITE = SUITES["mt80"]
_ROWS = 1_000_000
_EPISODES = 5_000_000
_HORIZON, _SIZE = 16, 1024
_BATCHES = 40  # timed together, so that prefetching shows
_FIRST_BATCH_MS = 10_000.0


def rows(device: str, repeats: int) -> Iterator[Row]:
    """Measure; ``device`` is where batches are put.

    Yields:
        A batch beside torchrl's and a bare indexed gather, by where the rows live, and the first
        batch of a store of five million episodes beside the ten seconds that it may take.
    """
    with tempfile.TemporaryDirectory(prefix="pwm-sampling-") as directory:
        yield from _batches(Path(directory), device, repeats)
        yield _first_batch(Path(directory) / "large", device)


def _batches(directory: Path, device: str, repeats: int) -> Iterator[Row]:
    store = _million_rows(directory / "store")
    padded = _padded(store)
    places = {"in memory": ("cpu", 2**30), "left in their files": ("cpu", 0)}
    if device != "cpu":
        places = {"on the GPU": ("cuda", 0), **places}
    samplers = [
        WindowSampler(store, _HORIZON, _SIZE, 0, device=device, data_device=where, memory=memory)
        for where, memory in places.values()
    ]
    candidates = [lambda: _gather(padded)]
    candidates += [lambda sampler=sampler: _draw(sampler) for sampler in samplers]
    threads = torch.get_num_threads()
    if buffer := _torchrl_buffer(padded, directory / "torchrl"):
        candidates += [lambda: _sample(buffer, device, 1), lambda: _sample(buffer, device, threads)]
    floor, *taken = (total / _BATCHES for total in interleaved(candidates, repeats))
    theirs = taken[len(places) :]
    for place, ours in zip(places, taken, strict=False):
        note = f"{1e3 / ours:,.0f} batches/s; floor: a bare gather of padded rows in one thread"
        yield Row(
            f"windows of {_ROWS:,} rows {place}, batch {_SIZE}, H {_HORIZON}, against torchrl",
            min(theirs) if theirs else None,
            ours,
            floor,
            required=None if place == "left in their files" else 1.5,
            note=note if theirs else "torchrl is not installed",
        )


def _draw(sampler: WindowSampler) -> None:
    for _ in sampler.iterate(0, _BATCHES):
        pass
    if sampler.device.type == "cuda":
        torch.cuda.synchronize(sampler.device)


def _gather(padded: dict[str, torch.Tensor]) -> None:
    """The same number of windows of one matrix, with NumPy."""
    matrix = padded["all"].numpy()
    rng = np.random.default_rng(0)
    for _ in range(_BATCHES):
        first = rng.integers(0, len(matrix) - _HORIZON, _SIZE)
        matrix[first[:, None] + np.arange(_HORIZON + 1)]


def _sample(buffer: Any, device: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for _ in range(_BATCHES):
        buffer.sample().to(device)
    torch.set_num_threads(before)


def _torchrl_buffer(padded: dict[str, torch.Tensor], directory: Path) -> Any:
    """A filled replay buffer that draws slices of 17 rows; None if torchrl is not installed."""
    try:
        from torchrl.data import LazyMemmapStorage, ReplayBuffer, SliceSampler
    except ImportError:
        return None
    from tensordict import TensorDict

    fields = {name: values for name, values in padded.items() if name != "all"}
    count = len(padded["all"])
    buffer = ReplayBuffer(
        storage=LazyMemmapStorage(count, scratch_dir=str(directory)),
        sampler=SliceSampler(slice_len=_HORIZON + 1, traj_key="episode", cache_values=True),
        batch_size=_SIZE * (_HORIZON + 1),
    )
    buffer.extend(TensorDict(fields, batch_size=[count]))
    return buffer


def _million_rows(path: Path) -> EpisodeStore:
    """A store with as many rows of each of the 80 tasks, of random numbers."""
    rng = np.random.default_rng(0)
    with EpisodeStore.create(path, _SUITE) as store:
        store.add_source("random", {})
        for task in _SUITE:
            count = round(_ROWS / len(_SUITE) / (task.episode_length + 1))
            store.append(task.name, [_episode(task, rng) for _ in range(count)], "random")
    return EpisodeStore.open(path)


def _episode(task: Task, rng: np.random.Generator) -> Episode:
    steps = task.episode_length
    false = np.zeros(steps, bool)
    return Episode(
        rng.standard_normal((steps + 1, task.obs_dim), np.float32),
        rng.uniform(-1, 1, (steps, task.action_dim)).astype(np.float32),
        rng.standard_normal(steps, np.float32),
        false,
        false,
    )


def _padded(store: EpisodeStore) -> dict[str, torch.Tensor]:
    """The store's rows padded to the largest sizes, by field, and all fields in one matrix."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("obs", "action", "reward", "task")}
    lengths = []
    for task_id, task in enumerate(store.suite):
        stored = store.rows(task.name)
        for name, width in (("obs", _SUITE.obs_dim), ("action", _SUITE.action_dim)):
            values = stored[name]
            parts[name].append(np.pad(values, ((0, 0), (0, width - values.shape[1]))))
        parts["reward"].append(stored["reward"])
        parts["task"].append(np.full(len(stored), task_id))
        lengths.append(store.episodes(task.name)["length"])
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    length = np.concatenate(lengths)
    arrays["episode"] = np.repeat(np.arange(len(length)), length)
    arrays["all"] = np.concatenate(
        [arrays["obs"], arrays["action"], arrays["reward"][:, None]], axis=1
    )
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _first_batch(path: Path, device: str) -> Row:
    _five_million_episodes(path, _SUITE)

    def first() -> None:
        WindowSampler(EpisodeStore.open(path), _HORIZON, _SIZE, 0, device=device).batch(0)

    (ours,) = interleaved([first], repeats=3, warmup=0)
    return Row(
        f"first batch of a store of {_EPISODES:,} episodes, against the time it may take",
        _FIRST_BATCH_MS,
        ours,
        required=1.0,
        note="from opening it; its rows are holes in sparse files",
    )


def _five_million_episodes(path: Path, suite: Suite) -> None:
    """A store as large as that of the 80 tasks' published data, whose rows take no room."""
    EpisodeStore.create(path, suite).close()
    each = _EPISODES // len(suite)
    records = {}
    for task in suite:
        table = np.zeros(each, EPISODE_DTYPE)
        table["length"] = task.episode_length + 1
        table["start"] = np.arange(each) * (task.episode_length + 1)
        count = each * (task.episode_length + 1)
        (path / task.name).mkdir()
        table.tofile(path / task.name / "episodes.bin")
        with open(path / task.name / "rows.bin", "wb") as file:
            file.truncate(count * row_dtype(task).itemsize)
        records[task.name] = TaskRecord(task, (Segment(each, count, "0" * 64, "0" * 64),))
    Manifest(suite, records, {"empty": {}}, ("none",)).write(path)
