"""Small made-up episodes for tests of the store and of what reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.suites import Suite, Task
from pwm.data.episode import EPISODE_DTYPE, Episode, row_dtype
from pwm.data.manifest import checksum
from pwm.data.store import EpisodeStore

SMALL = Task("small", "dmcontrol", 3, 1, 20)
LARGE = Task("large", "metaworld", 5, 2, 20)
SUITE = Suite("pair", (SMALL, LARGE))


def make_episode(task: Task, steps: int, seed: int = 0, behaviour: str = "random") -> Episode:
    """Random numbers in an episode's shapes."""
    rng = np.random.default_rng(seed)
    return Episode(
        obs=rng.standard_normal((steps + 1, task.obs_dim)).astype(np.float32),
        action=rng.uniform(-1, 1, (steps, task.action_dim)).astype(np.float32),
        reward=rng.standard_normal(steps).astype(np.float32),
        terminated=(np.arange(steps) == steps - 1) & (rng.random(steps) < 0.1),
        success=rng.random(steps) < 0.5,
        behaviour=behaviour,
        seed=seed,
    )


def coded_episode(task: Task, steps: int, index: int, task_id: int) -> Episode:
    """An episode in which every number says where it is from: task, episode and row."""
    row = np.arange(steps + 1, dtype=np.float32)
    obs = np.zeros((steps + 1, task.obs_dim), np.float32)
    obs[:, 0], obs[:, 1], obs[:, 2] = row, index, task_id
    action = np.zeros((steps, task.action_dim), np.float32)
    action[:, 0] = row[1:] / 1000
    false = np.zeros(steps, bool)
    return Episode(obs, action, row[1:] + 1000 * index, false, false, "coded", index)


def coded_store(path: Path, lengths: dict[str, list[int]], suite: Suite = SUITE) -> EpisodeStore:
    """A store of coded episodes with the given steps, closed and opened for reading."""
    with EpisodeStore.create(path, suite) as store:
        store.add_source("test", {})
        for name, steps in lengths.items():
            task, task_id = suite[name], suite.id(name)
            episodes = [coded_episode(task, n, i, task_id) for i, n in enumerate(steps)]
            store.append(name, episodes, "test")
    return EpisodeStore.open(path)


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and makes its checksum right again, as a forger would."""
    document = json.loads((path / "manifest.json").read_text())
    del document["checksum"]
    change(document)
    document["checksum"] = checksum(document)
    (path / "manifest.json").write_text(json.dumps(document))


def sparse_store(path: Path, task: Task, episodes: int) -> Path:
    """A store of many whole episodes of zeros, whose rows are holes that take no room on disk."""
    steps = task.episode_length
    with EpisodeStore.create(path, Suite("sparse", (task,))) as store:
        store.add_source("test", {})
        store.append(task.name, [make_episode(task, steps)], "test")
    table = np.zeros(episodes, EPISODE_DTYPE)
    table["length"] = steps + 1
    table["start"] = (steps + 1) * np.arange(episodes)
    table.tofile(path / task.name / "episodes.bin")
    first = np.zeros(1, row_dtype(task))
    first["action"] = first["reward"] = np.nan
    with open(path / task.name / "rows.bin", "wb") as file:
        for start in table["start"].tolist():
            file.seek(start * first.itemsize + 4 * task.obs_dim)
            file.write(first.tobytes()[4 * task.obs_dim :])
        file.truncate((steps + 1) * episodes * first.itemsize)

    def change(document: dict[str, Any]) -> None:
        counts = {"episodes": episodes, "rows": (steps + 1) * episodes}
        segment = {**document["tasks"][0]["segments"][0], **counts}
        document["tasks"][0].update(segments=[segment], **counts)

    rewrite_manifest(path, change)
    return path


def digests(directory: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of all files below a directory, or of those that fit a pattern, by their paths."""
    found = {path for pattern in patterns or ("*",) for path in directory.rglob(pattern)}
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(found)
        if path.is_file()
    }
