"""The benchmark's methods as jobs: each learns policies in programs of its own."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from offline import commands, data, own
from offline.network_policy import NetworkPolicy
from offline.plan import CLONES, D3RLPY, Plan

from pwm.core.fingerprints import fingerprint
from pwm.evaluation.agents import Agent, SavedPolicies

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Learned:
    """A task's policy: as it was after some numbers of updates, the last one counts."""

    task: str
    policies: dict[int, Agent]
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)  # more of :class:`offline.records.Line`


@dataclass(frozen=True)
class Setting:
    """What all jobs share.

    Attributes:
        plan: the benchmark.
        store: its data.
        out: gets policies, world models and logs.
        baselines_python: the Python that has d3rlpy.
        tag: a word that tells results of ours apart when code has changed.
    """

    plan: Plan
    store: data.BenchmarkData
    out: Path
    baselines_python: str = ""
    tag: str = ""
    locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _digests: dict[tuple[str, str], str] = field(default_factory=dict)

    def digest(self, kind: str, task: str) -> str:
        """Of a kind of a task's data, which stay as they are from the first time on."""
        if (kind, task) not in self._digests:
            self._digests[kind, task] = data.digest(self.store.path(kind, task), task)
        return self._digests[kind, task]


@dataclass(frozen=True, eq=False)  # jobs are kept by themselves
class MethodJob(ABC):
    """One method and seed on one kind of data, for tasks whose policies it learns together."""

    setting: Setting
    kind: str
    tasks: tuple[str, ...]
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its directory and log."""
        tasks = self.tasks[0] if len(self.tasks) == 1 else f"{len(self.tasks)} tasks"
        return f"{self.kind} {tasks} {self.method} seed {self.seed}"

    @property
    def log(self) -> Path:
        """Gets what its programs say."""
        return self.setting.out / "logs" / f"{self.name.replace(' ', '-')}.log"

    @cached_property
    def made_of(self) -> str:
        """A fingerprint of all that its results depend on."""
        plan = self.setting.plan
        return fingerprint([self.facts(), plan.evaluation_seeds, self.seed])

    @property
    def directory(self) -> Path:
        """Gets its policies."""
        return self.setting.out / "policies" / f"{self.name.replace(' ', '-')}-{self.made_of[:8]}"

    @abstractmethod
    def facts(self) -> Any:
        """What the policies depend on, as JSON."""

    @abstractmethod
    def learn(self) -> list[Learned]:
        """Learn the policies; raises PwmError if a program fails."""

    def _run_worker(self, python: str, worker: str, job: dict[str, Any]) -> dict[str, Any]:
        """Have a program of this directory do a job; what it left in ``done.json``."""
        done = self.directory / "done.json"
        if not done.is_file():
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            (self.directory / "job.json").write_text(json.dumps(job, indent=1))
            commands.run([python, str(_HERE / worker), str(self.directory / "job.json")], self.log)
        found: dict[str, Any] = json.loads(done.read_text())
        return found


class CloneJob(MethodJob):
    """Behavior cloning of one task's data."""

    def facts(self) -> Any:
        """See :class:`MethodJob`."""
        (task,) = self.tasks
        plan = self.setting.plan
        best = CLONES[self.method]
        return [self.setting.digest(self.kind, task), asdict(plan.cloning), best, plan.points]

    def learn(self) -> list[Learned]:
        """See :class:`MethodJob`."""
        (task,) = self.tasks
        cloning = asdict(self.setting.plan.cloning)
        path = str(self.setting.store.path(self.kind, task))
        job = {
            "data": path, "out": str(self.directory), "task": task, "seed": self.seed,
            "best": CLONES[self.method], "cloning": cloning,
        }  # fmt: skip
        done = self._run_worker(sys.executable, "clone_worker.py", job)
        policies: dict[int, Agent] = {
            updates: SavedPolicies.at({task: self.directory / f"policy_{updates}"})
            for updates in done["updates"]
        }
        return [Learned(task, policies, done["seconds"])]


class D3rlpyJob(MethodJob):
    """One of d3rlpy's methods on one task's data."""

    @property
    def settings(self) -> dict[str, Any]:
        """Of the method, in the plan."""
        found: dict[str, Any] = self.setting.plan.baselines[self.method]
        return found

    def facts(self) -> Any:
        """See :class:`MethodJob`."""
        (task,) = self.tasks
        return [self.setting.digest(self.kind, task), self.settings, self.setting.plan.points]

    def learn(self) -> list[Learned]:
        """See :class:`MethodJob`."""
        (task,) = self.tasks
        plan, updates = self.setting.plan, int(self.settings["updates"])
        path = self.setting.store.path(self.kind, task)
        file = path.parent / f"{task}-{self.setting.digest(self.kind, task)[:8]}.npz"
        with self.setting.locks[str(file)]:
            if not file.is_file():
                np.savez(file, **data.transitions(path, task))
        job = {
            "data": str(file.resolve()), "out": str(self.directory.resolve()), "seed": self.seed,
            "method": self.method, "updates": updates, "points": plan.points,
            "settings": self.settings,
        }  # fmt: skip
        done = self._run_worker(self.setting.baselines_python, "d3rlpy_worker.py", job)
        found = {int(p.stem.partition("_")[2]): p for p in self.directory.glob("policy_*.npz")}
        policies: dict[int, Agent] = {n: NetworkPolicy.at(found[n]) for n in sorted(found)}
        return [Learned(task, policies, done["seconds"])]


class OwnJob(MethodJob):
    """Extraction from the world model of a kind's data, all tasks together."""

    @cached_property
    def world_model(self) -> own.WorldModelRun:
        """What it extracts from."""
        plan = self.setting.plan
        digests = {task: self.setting.digest(self.kind, task) for task in plan.tasks}
        return own.WorldModelRun(
            plan.pretrain, self.setting.out, self.kind, self.seed, fingerprint(digests)
        )

    def facts(self) -> Any:
        """See :class:`MethodJob`."""
        words = self.setting.plan.own_words(self.method)
        settings = own.settings_of("extract", words)
        return [self.world_model.made_of, settings, self.setting.tag]

    @property
    def directory(self) -> Path:
        """Gets its policies, whichever tasks there are so far."""
        name = f"{self.kind}-{self.method}-seed-{self.seed}-{self.made_of[:8]}"
        return self.setting.out / "policies" / name

    def learn(self) -> list[Learned]:
        """See :class:`MethodJob`."""
        setting, store = self.setting, self.setting.store
        with setting.locks[f"joined {self.kind}"]:
            joined = store.joined(self.kind)
        model = self.world_model
        with setting.locks[str(model.directory)]:
            model.make(joined)
        words = setting.plan.own_words(self.method)
        run = own.Extraction(model, self.directory, joined, self.tasks, words, self.seed)
        with setting.locks[str(self.directory)]:
            run.make(self.log)
        share = model.seconds / len(setting.plan.tasks)
        agents = {t: SavedPolicies.at({t: self.directory / t}) for t in self.tasks}
        return [
            Learned(
                task, {run.updates: agents[task]}, run.seconds / len(self.tasks),
                {"model_seconds": share, **run.recorded(task)},
            )
            for task in self.tasks
        ]  # fmt: skip


def jobs_of(
    setting: Setting, kind: str, tasks: Sequence[str], method: str, seed: int
) -> Iterator[MethodJob]:
    """The jobs of a method and seed: one per task, or one of ours for all."""
    single = {**dict.fromkeys(CLONES, CloneJob), **dict.fromkeys(D3RLPY, D3rlpyJob)}.get(method)
    if single is None:
        yield OwnJob(setting, kind, tuple(tasks), method, seed)
        return
    for task in tasks:
        yield single(setting, kind, (task,), method, seed)
