"""The benchmark's data: agents' episodes, of which each kind takes some."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from offline import commands
from offline.plan import Plan, TaskData

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.fingerprints import fingerprint
from pwm.core.layout import MANIFEST_NAME
from pwm.core.suites import Suite
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import score_data

FULL, MEDIUM = "full", "medium"
"""Two trainings of an agent: to the end and beyond, and to a middling policy and beyond."""


def selection(kind: str, data: TaskData) -> dict[str, range]:
    """Which episodes of the trainings a kind of data has."""
    half = data.fixed // 2
    return {
        "replay": {FULL: range(data.replay)},
        "medium": {MEDIUM: range(data.medium, data.medium + data.fixed)},
        "mixed": {
            MEDIUM: range(data.medium, data.medium + data.fixed - half),
            FULL: range(data.replay, data.replay + half),
        },
    }[kind]


def trainings(data: TaskData) -> dict[str, tuple[int, int]]:
    """Of each training the episodes that the agent learns from, and all."""
    return {
        FULL: (data.replay, data.replay + data.fixed // 2),
        MEDIUM: (data.medium, data.medium + data.fixed),
    }


@dataclass(frozen=True)
class BenchmarkData:
    """Where a benchmark's data are, and how they are made.

    Attributes:
        plan: says how much.
        directory: holds ``collected/`` and ``data/``.
    """

    plan: Plan
    directory: Path

    def path(self, kind: str, task: str) -> Path:
        """The store of a kind of one task's data."""
        return self.directory / "data" / kind / task

    def _collected(self, task: str, training: str) -> Path:
        return self.directory / "collected" / f"{task}-{training}"

    def needed(self, kind: str, task: str) -> list[str]:
        """The trainings that a kind needs and that have not all of its episodes."""
        chosen = selection(kind, self.plan.tasks[task])
        return [
            training
            for training, episodes in chosen.items()
            if _episodes_in(self._collected(task, training), task) < episodes.stop
        ]

    def collect(self, task: str, training: str) -> None:
        """Train an agent and go on with its policy; goes on where it stopped."""
        learning, total = trainings(self.plan.tasks[task])[training]
        words = [
            "collect", *shlex.split(self.plan.collect), f"suite=[{task}]", f"episodes={total}",
            f"sac.learning_episodes={learning}", "workers=1",
            f"out={self._collected(task, training)}",
        ]  # fmt: skip
        commands.pwm(words, self.directory / "logs" / f"collect-{task}-{training}.log")

    def take(self, kind: str, task: str) -> Path:
        """Make the store of a kind of a task's data from what was collected, if it is not there."""
        chosen = selection(kind, self.plan.tasks[task])
        path, count = self.path(kind, task), sum(map(len, chosen.values()))
        if _episodes_in(path, task) != count:
            shutil.rmtree(path, ignore_errors=True)
            sources = {training: self._collected(task, training) for training in chosen}
            opened = {name: EpisodeStore.open(source) for name, source in sources.items()}
            suite = next(iter(opened.values())).suite
            parts = [(opened[name], list(episodes)) for name, episodes in chosen.items()]
            with EpisodeStore.create(path, suite) as store:
                copy_episodes(store, task, parts, kind)
        return path

    def joined(self, kind: str) -> Path:
        """The store of a kind of all tasks' data, made from those of single tasks."""
        stores = {task: EpisodeStore.open(self.path(kind, task)) for task in self.plan.tasks}
        digest = fingerprint({task: store.digest for task, store in stores.items()})
        path = self.directory / "data" / kind / f"all-{digest[:8]}"
        if not all(_episodes_in(path, task) for task in stores):
            shutil.rmtree(path, ignore_errors=True)
            tasks = tuple(store.suite[task] for task, store in stores.items())
            with EpisodeStore.create(path, Suite("offline", tasks)) as joined:
                for task, store in stores.items():
                    copy_episodes(joined, task, [(store, range(store.count(task)))], kind)
        return path


def copy_episodes(
    store: EpisodeStore, task: str, parts: Sequence[tuple[EpisodeStore, Sequence[int]]], kind: str
) -> None:
    """Append episodes of other stores, all in one commit."""
    sources = [described for other, _ in parts for described in other.sources.values()]
    key = f"offline-{kind}-{task}"
    store.add_source(key, {"made_by": "scripts/offline_benchmark.py", "from": sources})
    episodes = [other.episode(task, i) for other, chosen in parts for i in chosen]
    store.append(task, episodes, key)


def _episodes_in(path: Path, task: str) -> int:
    if not (path / MANIFEST_NAME).is_file():
        return 0
    store = EpisodeStore.open(path)
    return store.count(task) if task in store.suite else 0


def digest(path: Path, task: str) -> str:
    """SHA-256 of all rows of a task: observations, actions, rewards, ends and successes."""
    return hashlib.sha256(EpisodeStore.open(path).rows(task).tobytes()).hexdigest()


def scores(path: Path, task: str) -> dict[str, float]:
    """Normalized scores of a task's data: the mean, and the best episode's."""
    store = EpisodeStore.open(path)
    table = store.episodes(task)
    columns = (table[name] for name in ("return", "success_last", "success_any"))
    mean, best = score_data(store.suite[task], *columns)
    return {"data_mean": mean.normalized_score, "data_best": best.normalized_score}


def transitions(path: Path, task: str) -> dict[str, np.ndarray]:
    """All transitions of a task for learners that see no episodes.

    The last of an episode that its time limit ended is left out: no action follows it.

    Returns:
        ``obs`` and ``next_obs`` (n, obs_dim), ``action`` and ``next_action`` (n, action_dim),
        ``reward`` and ``terminal`` (n,), all float32, and ``return_range``, () float32, the
        best return less the worst.
    """
    store = EpisodeStore.open(path)
    parts = [_of_episode(store, task, i) for i in range(store.count(task))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    returns = store.episodes(task)["return"]
    return {**columns, "return_range": np.float32(np.ptp(returns))}


def _of_episode(store: EpisodeStore, task: str, index: int) -> dict[str, np.ndarray]:
    episode = store.episode(task, index)
    steps = len(episode.action)
    kept = steps if episode.terminated[-1] else steps - 1
    following = np.concatenate([episode.action[1:], np.zeros_like(episode.action[:1])])
    return {
        "obs": episode.obs[:kept],
        "next_obs": episode.obs[1 : kept + 1],
        "action": episode.action[:kept],
        "next_action": following[:kept],
        "reward": episode.reward[:kept],
        "terminal": episode.terminated[:kept].astype(np.float32),
    }


def digest_key(kind: str, task: str, plan: Plan) -> str:
    """What a digest is of: the task, the kind, the episodes and how they were collected."""
    counts = trainings(plan.tasks[task])
    used = [
        f"{training} {episodes.start}-{episodes.stop - 1} of {counts[training][0]} learned from"
        for training, episodes in selection(kind, plan.tasks[task]).items()
    ]
    return f"{task} {kind}: {', '.join(used)}; {plan.collect}"


def tell_other(kind: str, task: str, plan: Plan, found: str, file: Path) -> str | None:
    """A sentence if data differ from those whose digest is on record; a new digest is put there.

    Raises:
        PwmError: if the record is no such file.
    """
    key = digest_key(kind, task, plan)
    try:
        known = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise PwmError(f"digests={file} is no JSON ({error}); put the file back.") from error
    if key not in known:
        text = json.dumps(known | {key: found}, indent=1, sort_keys=True) + "\n"
        write_atomically(file, text.encode())
    elif known[key] != found:
        return (
            f"The {kind} data of {task} differ from those on record, as they do where another "
            "machine or library rounds otherwise: compare results only with others of these data."
        )
    return None
