"""All methods, tasks and episodes of an evaluation in one queue over worker processes.

A job, some episodes of one task by one agent, does not depend on the number of workers;
a policy acts on a job's episodes as one batch. So results are the same for any number of
workers, bit for bit, though the last bits of a matrix product follow from the size of the batch.
Policies act inside the workers, for at the sizes of published models one process that acts for all
would be slower than two that simulate.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pwm.core.progress import progress_bar
from pwm.core.suites import Task
from pwm.core.worker_pool import Job, WorkerPool
from pwm.evaluation.agents import Agent, BatchedAgent
from pwm.evaluation.episode_log import EpisodeLog, Outcomes, outcome_key
from pwm.evaluation.play import play
from pwm.evaluation.scores import TaskScore, score_task
from pwm.runtime.run_dir import versions


@dataclass(frozen=True)
class EvalJob:
    """Episodes of one task by one method, that are played side by side.

    Attributes:
        method: its name.
        task: what is played.
        seeds: an episode each.
        key: names what the outcomes follow from.
    """

    method: str
    task: Task
    seeds: tuple[int, ...]
    key: str

    def job(self, method: Agent | BatchedAgent) -> Job:
        """These episodes as a job for a worker."""
        acting = None if isinstance(method, BatchedAgent) else method
        parts = (f"task '{self.task.name}' with seed {seed}" for seed in self.seeds)
        return Job(play, (acting, self.task, self.seeds), tuple(parts))


@dataclass
class EvalRun:
    """What all episodes gave, and how fast they were played.

    Attributes:
        outcomes: by method and task name.
        steps: decision steps that were played now rather than found in the log.
        seconds: that took.
        simulating_seconds: of it that the simulators took, summed over workers.
    """

    outcomes: dict[str, dict[str, Outcomes]]
    steps: int
    seconds: float
    simulating_seconds: float

    def scores(self, tasks: Iterable[Task]) -> dict[str, dict[str, TaskScore]]:
        """By method and task name."""

        def score(task: Task, found: Outcomes) -> TaskScore:
            return score_task(task, found.returns, found.success_last, found.success_any)

        return {
            method: {task.name: score(task, by_task[task.name]) for task in tasks}
            for method, by_task in self.outcomes.items()
        }

    def decision_ms(self) -> dict[str, float]:
        """Milliseconds a decision by method, mean; episodes side by side share the time."""
        return {
            method: Outcomes.concatenate(list(by_task.values())).decision_ms
            for method, by_task in self.outcomes.items()
        }

    def throughput(self, workers: int) -> dict[str, float]:
        """Decision steps a second, and those that the simulators alone would have made."""
        return {
            "workers": workers,
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps / self.seconds,
            "simulator_steps_per_second": workers * self.steps / self.simulating_seconds,
        }


def run_episodes(
    methods: Mapping[str, Agent | BatchedAgent],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    batch: int,
    pool: WorkerPool,
    log: EpisodeLog,
) -> EvalRun:
    """Plays every method's episodes of every task that the log does not have.

    Args:
        methods: by name.
        tasks: what to play.
        seeds: environment seeds of a task's episodes, the same for all tasks and methods.
        batch: episodes of a task that are played side by side.
        pool: where.
        log: has what was played before, and gets the rest job by job.

    Raises:
        PwmError: as the pool does.
    """
    eval_jobs = list(_eval_jobs(methods, tasks, seeds, batch))
    lacking = [eval_job for eval_job in eval_jobs if eval_job.key not in log]
    queue = _Queue(methods, lacking)
    started = time.perf_counter()
    with progress_bar() as progress:
        total = len(methods) * len(seeds) * len(tasks)
        done = total - sum(len(eval_job.seeds) for eval_job in lacking)
        bar = progress.add_task("evaluate", total=total, completed=done, note="")
        for job, outcomes in pool.run(queue.next_job, queue.answer):
            eval_job = queue.finished(job, outcomes)
            notes = {"method": eval_job.method, "task": eval_job.task.name, "seeds": eval_job.seeds}
            log.add(eval_job.key, outcomes, notes)
            progress.update(bar, advance=len(eval_job.seeds), note=eval_job.task.name)
    return EvalRun(
        _by_method_and_task(eval_jobs, log),
        sum(log[eval_job.key].steps for eval_job in lacking),
        time.perf_counter() - started,
        sum(log[eval_job.key].simulating_seconds for eval_job in lacking),
    )


def _eval_jobs(
    methods: Mapping[str, Agent | BatchedAgent],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    batch: int,
) -> Iterator[EvalJob]:
    """Tasks of long episodes first, so that workers end at about the same time."""
    made_with = versions()
    for task in sorted(tasks, key=lambda task: -task.episode_length):
        for name, method in methods.items():
            identity = method.identity(task)
            for first in range(0, len(seeds), batch):
                some = tuple(seeds[first : first + batch])
                yield EvalJob(
                    name, task, some, outcome_key(identity, asdict(task), some, made_with)
                )


def _by_method_and_task(
    eval_jobs: Sequence[EvalJob], log: EpisodeLog
) -> dict[str, dict[str, Outcomes]]:
    parts: dict[str, dict[str, list[Outcomes]]] = {}
    for eval_job in eval_jobs:
        by_task = parts.setdefault(eval_job.method, {})
        by_task.setdefault(eval_job.task.name, []).append(log[eval_job.key])
    return {
        method: {task: Outcomes.concatenate(found) for task, found in by_task.items()}
        for method, by_task in parts.items()
    }


class _Queue:
    """What remains to be played, and the state of what is served meanwhile.

    A worker stays with a task, whose environments it has made, while it has jobs; then
    it turns to a task that no other is at, and last helps where most is left.
    """

    def __init__(
        self, methods: Mapping[str, Agent | BatchedAgent], eval_jobs: Sequence[EvalJob]
    ) -> None:
        self._methods = methods
        self._waiting: dict[str, deque[EvalJob]] = {}
        for eval_job in eval_jobs:
            self._waiting.setdefault(eval_job.task.name, deque()).append(eval_job)
        self._task_of: dict[int, str] = {}
        self._eval_job_of: dict[Job, EvalJob] = {}
        self._states: dict[Job, Any] = {}
        self._seconds: dict[Job, float] = {}

    def next_job(self, worker: int) -> Job | None:
        """A job for a worker, of its last task if there is one."""
        task = self._task_of.get(worker)
        if task not in self._waiting:
            if not self._waiting:
                return None
            untouched = [name for name in self._waiting if name not in self._task_of.values()]
            task = next(iter(untouched), None) or max(
                self._waiting, key=lambda name: len(self._waiting[name])
            )
            self._task_of[worker] = task
        eval_job = self._waiting[task].popleft()
        if not self._waiting[task]:
            del self._waiting[task]
        job = eval_job.job(self._methods[eval_job.method])
        self._eval_job_of[job] = eval_job
        return job

    def answer(self, questions: Sequence[tuple[Job, tuple[bool, np.ndarray]]]) -> list[np.ndarray]:
        """Actions for the episodes that ask, by the methods that are served here."""
        actions: dict[Job, np.ndarray] = {}
        for name, method in self._methods.items():
            asking = [(j, q) for j, q in questions if self._eval_job_of[j].method == name]
            if not asking or not isinstance(method, BatchedAgent):
                continue
            started = time.perf_counter()
            for job, (first, _) in asking:
                if first:  # also where a replaced worker begins again
                    eval_job = self._eval_job_of[job]
                    self._states[job] = method.begin(eval_job.task, eval_job.seeds)
                    self._seconds[job] = 0.0
            acted = method.act([(self._states[job], obs) for job, (_, obs) in asking])
            actions |= {job: rows for (job, _), rows in zip(asking, acted, strict=True)}
            share = (time.perf_counter() - started) / sum(map(len, acted))
            for (job, _), rows in zip(asking, acted, strict=True):
                self._seconds[job] += share * len(rows)
        return [actions[job] for job, _ in questions]

    def finished(self, job: Job, outcomes: Outcomes) -> EvalJob:
        """What a worker's job was; of what was served, the time is that of the serving."""
        self._states.pop(job, None)
        outcomes.acting_seconds = self._seconds.pop(job, outcomes.acting_seconds)
        return self._eval_job_of.pop(job)
