"""Evaluation's own episodes as data: of one method, into an episode store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm.core.fingerprints import fingerprint, in_words
from pwm.core.progress import console
from pwm.core.suites import Suite
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.evaluation.agents import AnyAgent
from pwm.evaluation.episode_log import Outcomes
from pwm.evaluation.scores import EXTRACTED
from pwm.simulation.opened_store import open_or_create
from pwm.simulation.remade import note_environments

if TYPE_CHECKING:
    from pwm.evaluation.episode_queue import EvalJob

_MADE_BY = "pwm evaluate"
_AGENTS = "agents"  # in a source's description: by task, a fingerprint of what acted

Finished = tuple["EvalJob", Outcomes, list[Episode]]
"""A job with what came of it."""


class Recording:
    """A store that gets the episodes of one method, those of a task in the order of its jobs.

    An episode is known by what acted and by its seed, and is in the store once. It is put there
    before its outcome is logged: what is logged is never lost to the store, and what a kill left
    between the two is played again, and not stored again.

    Args:
        store: open for appending.
        method: whose episodes.
        behaviour: what the store calls it.
        agents: by task name, a fingerprint of what acts.
    """

    def __init__(
        self, store: EpisodeStore, method: str, behaviour: str, agents: Mapping[str, str]
    ) -> None:
        self._store, self._method, self._behaviour = store, method, behaviour
        self._agents = dict(agents)
        self._waiting: dict[str, deque[EvalJob]] = {}
        self._finished: dict[str, Finished] = {}  # by the job's key
        description = {"made_by": _MADE_BY, "behaviour": behaviour, _AGENTS: self._agents}
        self._source = f"evaluate-{behaviour}-{fingerprint(description)[:8]}"
        store.add_source(self._source, description)

    def planned(self, eval_jobs: Sequence[EvalJob]) -> list[EvalJob]:
        """The jobs that are to be played, those whose episodes are wanted marked so."""
        marked = [replace(j, recorded=j.method == self._method) for j in eval_jobs]
        for eval_job in marked:
            if eval_job.recorded:
                self._waiting.setdefault(eval_job.task.name, deque()).append(eval_job)
        return marked

    def tell_unrecorded(self, eval_jobs: Sequence[EvalJob]) -> None:
        """Say which of the jobs that were played before are not in the store."""
        absent = [
            j.task.name
            for j in eval_jobs
            if j.method == self._method and set(j.seeds) - self._seeds(j.task.name)
        ]
        if absent:
            console.print(
                f"Episodes of {in_words(absent)} were played before, and are not recorded in "
                f"{self._store.path}; another out= plays them again.",
                soft_wrap=True,
            )

    def stored(
        self, eval_job: EvalJob, outcomes: Outcomes, episodes: list[Episode]
    ) -> Iterator[Finished]:
        """Take what came of a job; yields what may be logged, as soon as its turn has come."""
        if not eval_job.recorded:
            yield eval_job, outcomes, episodes
            return
        task = eval_job.task.name
        self._finished[eval_job.key] = eval_job, outcomes, episodes
        waiting = self._waiting[task]
        while waiting and waiting[0].key in self._finished:
            finished = self._finished.pop(waiting.popleft().key)
            self._append(task, finished[2])
            yield finished

    def _append(self, task: str, episodes: Sequence[Episode]) -> None:
        known = self._seeds(task)
        new = [replace(e, behaviour=self._behaviour) for e in episodes if e.seed not in known]
        self._store.append(task, new, self._source)

    def _seeds(self, task: str) -> set[int]:
        return recorded_seeds(self._store, task, self._agents[task])


@contextmanager
def recording_into(
    path: str | None, suite: Suite, method: str, agent: AnyAgent
) -> Iterator[Recording | None]:
    """What records a method's episodes while they are played; nothing without a path.

    Args:
        path: the store's directory.
        suite: the tasks as they are played.
        method: whose episodes.
        agent: what acts.

    Raises:
        PwmError: if the store was made for other tasks, or cannot be written.
    """
    if path is None:
        yield None
        return
    with open_or_create(Path(path), suite) as store:
        note_environments(store, suite.names)
        agents = {task.name: fingerprint(agent.identity(task)) for task in suite}
        behaviour = "policy" if method == EXTRACTED else method
        yield Recording(store, method, behaviour, agents)


def recorded_seeds(store: EpisodeStore, task: str, agent: str) -> set[int]:
    """Seeds of the episodes of a task that evaluations recorded of an agent, by its fingerprint."""
    sources = [
        i for i, source in enumerate(store.sources.values()) if _agents(source).get(task) == agent
    ]
    table = store.episodes(task)
    return set(table["seed"][np.isin(table["source"], sources)].tolist())


def add_recorded(to: EpisodeStore, recorded: EpisodeStore) -> None:
    """Put into a store what evaluations recorded in another one and it does not have.

    Raises:
        PwmError: if they are of other tasks or environments, or it cannot be written.
    """
    note_environments(to, recorded.suite.names, [recorded])
    for position, (key, description) in enumerate(recorded.sources.items()):
        to.add_source(key, description)
        for task, agent in _agents(description).items():
            known = recorded_seeds(to, task, agent)
            table = recorded.episodes(task)
            new = (table["source"] == position) & ~np.isin(table["seed"], list(known))
            episodes = [recorded.episode(task, int(i)) for i in np.flatnonzero(new)]
            if episodes:
                to.append(task, episodes, key)


def _agents(source: Mapping[str, Any]) -> Mapping[str, str]:
    return source[_AGENTS] if source.get("made_by") == _MADE_BY else {}
