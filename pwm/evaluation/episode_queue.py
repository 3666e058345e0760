"""All methods, tasks and episodes of an evaluation in one queue over worker processes.

A job, some episodes of one task by one agent, does not depend on the number of workers;
a policy acts on a job's episodes as one batch. So results are the same for any number of
workers, bit for bit, though the last bits of a matrix product follow from the size of the batch.
Policies act inside the workers, for at the sizes of published models one process that acts for all
would be slower than two that simulate.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pwm.core.fingerprints import MadeOf, changed, fingerprint, in_words
from pwm.core.progress import console, progress_bar
from pwm.core.suites import Task
from pwm.core.versions import versions
from pwm.core.worker_pool import Job, WorkerPool
from pwm.data.episode import Episode
from pwm.envs import environment_sources
from pwm.evaluation.agents import AnyAgent, BatchedAgent
from pwm.evaluation.episode_log import EpisodeLog, Outcomes, outcome_key
from pwm.evaluation.play import play, play_and_record
from pwm.evaluation.recording import Recording
from pwm.evaluation.scores import TaskScore, score_task


@dataclass(frozen=True)
class EvalJob:
    """Episodes of one task by one method, that are played side by side."""

    method: str  # the name of the agent's method
    task: Task
    seeds: tuple[int, ...]  # one per episode
    key: str  # see :func:`pwm.evaluation.episode_log.outcome_key`
    made_of: MadeOf  # fingerprints of what the key stands for
    old_key: str  # the key of episodes that were played when environments had no fingerprints
    recorded: bool = False  # whether its episodes go into a store

    @property
    def notes(self) -> dict[str, Any]:
        """What the log says of it beside the outcomes."""
        return {
            "method": self.method,
            "task": self.task.name,
            "seeds": self.seeds,
            "made_of": self.made_of,
        }

    def job(self, agent: AnyAgent) -> Job:
        """These episodes as a job for a worker."""
        acting = None if isinstance(agent, BatchedAgent) else agent
        parts = (f"task '{self.task.name}' with seed {seed}" for seed in self.seeds)
        function = play_and_record if self.recorded else play
        return Job(function, (acting, self.task, self.seeds), tuple(parts))


@dataclass
class EvalRun:
    """Outcomes of all episodes of an evaluation, and how fast they were played."""

    outcomes: dict[str, dict[str, Outcomes]]  # by method and task name
    steps: int  # decision steps that were played now rather than found in the log
    seconds: float  # wall-clock time of those steps
    simulating_seconds: float  # time in the simulators, summed over workers

    def scores(self, tasks: Iterable[Task]) -> dict[str, dict[str, TaskScore]]:
        """The scores by method and task name."""

        def score(task: Task, found: Outcomes) -> TaskScore:
            success = found.success_last, found.success_any, found.steps_to_success
            return score_task(task, found.returns, *success)

        return {
            method: {task.name: score(task, by_task[task.name]) for task in tasks}
            for method, by_task in self.outcomes.items()
        }

    def decision_ms(self) -> dict[str, float]:
        """Mean milliseconds per decision, by method; episodes side by side share the time."""
        return {
            method: Outcomes.concatenate(list(by_task.values())).decision_ms
            for method, by_task in self.outcomes.items()
        }

    def speed(self, workers: int) -> str:
        """A sentence on how fast what was played now was played."""
        rates = self.throughput(workers)
        return (
            f"{self.steps:,} decision steps in {self.seconds:.1f} s on {workers} workers: "
            f"{rates['steps_per_second']:,.0f} a second; the simulators alone "
            f"{rates['simulator_steps_per_second']:,.0f}."
        )

    def throughput(self, workers: int) -> dict[str, float]:
        """Decision steps per second, and those that the simulators alone would have made."""
        return {
            "workers": workers,
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps / self.seconds,
            "simulator_steps_per_second": workers * self.steps / self.simulating_seconds,
        }


def run_episodes(
    agents: Mapping[str, AnyAgent],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    batch: int,
    pool: WorkerPool,
    log: EpisodeLog,
    recording: Recording | None = None,
) -> EvalRun:
    """Play every agent's episodes of every task that the log does not have.

    Args:
        agents: by the name of the method.
        tasks: what to play.
        seeds: environment seeds of a task's episodes, the same for all tasks and agents.
        batch: episodes of a task that are played side by side.
        pool: the worker processes.
        log: has what was played before, and gets the rest job by job.
        recording: gets the episodes of one of the agents that are played now.

    Raises:
        PwmError: as the pool does.
    """
    eval_jobs = list(_eval_jobs(agents, tasks, seeds, batch))
    _adopt(eval_jobs, log)
    lacking = [eval_job for eval_job in eval_jobs if eval_job.key not in log]
    if recording is not None:
        lacking = recording.planned(lacking)
        recording.tell_unrecorded([eval_job for eval_job in eval_jobs if eval_job.key in log])
    queue = _Queue(agents, lacking)
    total = len(agents) * len(seeds) * len(tasks)
    done = total - sum(len(eval_job.seeds) for eval_job in lacking)
    _tell(lacking, log)
    if done:
        console.print(f"{done} of {total} episodes were played before; they are kept.")
    started = time.perf_counter()
    with progress_bar() as progress:
        bar = progress.add_task("evaluate", total=total, completed=done, note="")
        for job, result in pool.run(queue.next_job, queue.answer):
            finished = [queue.finished(job, result)]
            if recording is not None:
                finished = list(recording.stored(*finished[0]))
            for eval_job, outcomes, _ in finished:
                log.add(eval_job.key, outcomes, eval_job.notes)
                progress.update(bar, advance=len(eval_job.seeds), note=eval_job.task.name)
    return EvalRun(
        _by_method_and_task(eval_jobs, log),
        sum(log[eval_job.key].steps for eval_job in lacking),
        time.perf_counter() - started,
        sum(log[eval_job.key].simulating_seconds for eval_job in lacking),
    )


def _eval_jobs(
    agents: Mapping[str, AnyAgent], tasks: Sequence[Task], seeds: Sequence[int], batch: int
) -> Iterator[EvalJob]:
    """All jobs, tasks of long episodes first, so that workers end at about the same time."""
    made_with = versions()
    for task in sorted(tasks, key=lambda task: -task.episode_length):
        sources = environment_sources(task)
        for name, agent in agents.items():
            identity = agent.identity(task)
            made_of = {
                f"the agent '{name}'": fingerprint(identity),
                f"the description of {task.name}": fingerprint(task.facts()),
                "the version of a library": fingerprint(made_with),
                **sources,
            }
            for first in range(0, len(seeds), batch):
                some = tuple(seeds[first : first + batch])
                facts = identity, task.facts(), some, made_with
                old_key = outcome_key(*facts)
                key = outcome_key(*facts, sources) if sources else old_key
                yield EvalJob(name, task, some, key, made_of, old_key)


def _adopt(eval_jobs: Sequence[EvalJob], log: EpisodeLog) -> None:
    """Keep episodes that were played when the source of environments was not on record."""
    old = [
        eval_job
        for eval_job in eval_jobs
        if eval_job.key not in log
        and eval_job.old_key in log
        and log.made_of(eval_job.method, eval_job.task.name) is None
    ]
    for eval_job in old:
        log.add(eval_job.key, log[eval_job.old_key], eval_job.notes)
    if old:
        names = in_words(eval_job.task.name for eval_job in old)
        console.print(
            f"Which source the environment of {names} had when its episodes were played is not on "
            "record; they count as played in that of now.",
            soft_wrap=True,
        )


def _tell(lacking: Sequence[EvalJob], log: EpisodeLog) -> None:
    """Say which episodes are played again since what they were made from has changed."""
    remade: dict[str, list[str]] = defaultdict(list)
    for eval_job in lacking:
        before = log.made_of(eval_job.method, eval_job.task.name)
        if before is not None and (names := changed(before, eval_job.made_of)):
            remade[in_words(names)].append(eval_job.task.name)
    for what, tasks in remade.items():
        console.print(
            f"{what[0].upper()}{what[1:]} changed since episodes of {in_words(tasks)} were played; "
            "they are played again.",
            soft_wrap=True,
        )


def _by_method_and_task(
    eval_jobs: Sequence[EvalJob], log: EpisodeLog
) -> dict[str, dict[str, Outcomes]]:
    parts: dict[str, dict[str, list[Outcomes]]] = defaultdict(lambda: defaultdict(list))
    for eval_job in eval_jobs:
        parts[eval_job.method][eval_job.task.name].append(log[eval_job.key])
    return {
        method: {task: Outcomes.concatenate(found) for task, found in by_task.items()}
        for method, by_task in parts.items()
    }


class _Queue:
    """The jobs that remain, and the states of batched agents in the jobs that are under way.

    A worker stays with a task, whose environments it has made, while it has jobs; then
    it turns to a task that no other is at, and last helps where most is left.
    """

    def __init__(self, agents: Mapping[str, AnyAgent], eval_jobs: Sequence[EvalJob]) -> None:
        self._agents = agents
        self._waiting: dict[str, deque[EvalJob]] = {}
        for eval_job in eval_jobs:
            self._waiting.setdefault(eval_job.task.name, deque()).append(eval_job)
        self._task_of: dict[int, str] = {}
        self._eval_job_of: dict[Job, EvalJob] = {}
        self._states: dict[Job, Any] = {}
        self._seconds: dict[Job, float] = {}

    def next_job(self, worker: int) -> Job | None:
        """A job for a worker, of its last task if there is one."""
        if not self._waiting:
            return None
        task = self._task_of.get(worker)
        if task not in self._waiting:
            untouched = [name for name in self._waiting if name not in self._task_of.values()]
            most = max(self._waiting, key=lambda name: len(self._waiting[name]))
            task = self._task_of[worker] = untouched[0] if untouched else most
        eval_job = self._waiting[task].popleft()
        if not self._waiting[task]:
            del self._waiting[task]
        job = eval_job.job(self._agents[eval_job.method])
        self._eval_job_of[job] = eval_job
        return job

    def answer(self, questions: Sequence[tuple[Job, tuple[bool, np.ndarray]]]) -> list[np.ndarray]:
        """Actions for the episodes that ask, by the batched agents of this process."""
        actions: dict[Job, np.ndarray] = {}
        for name, agent in self._agents.items():
            asking = [(j, q) for j, q in questions if self._eval_job_of[j].method == name]
            if not asking or not isinstance(agent, BatchedAgent):
                continue
            started = time.perf_counter()
            for job, (first, _) in asking:
                if first:  # also where a replaced worker begins again
                    eval_job = self._eval_job_of[job]
                    self._states[job] = agent.begin(eval_job.task, eval_job.seeds)
                    self._seconds[job] = 0.0
            acted = agent.act([(self._states[job], obs) for job, (_, obs) in asking])
            share = (time.perf_counter() - started) / sum(map(len, acted))
            for (job, _), rows in zip(asking, acted, strict=True):
                actions[job] = rows
                self._seconds[job] += share * len(rows)
        return [actions[job] for job, _ in questions]

    def finished(self, job: Job, result: Any) -> tuple[EvalJob, Outcomes, list[Episode]]:
        """The evaluation job of a worker's job, its outcomes, and the episodes if it is recorded.

        A batched agent's acting time is filled in.
        """
        self._states.pop(job, None)
        eval_job = self._eval_job_of.pop(job)
        outcomes, episodes = result if eval_job.recorded else (result, [])
        outcomes.acting_seconds = self._seconds.pop(job, outcomes.acting_seconds)
        return eval_job, outcomes, episodes
