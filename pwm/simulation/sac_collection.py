"""Agents that learn while they act, SAC and TQC, and every episode of their training recorded.

The published datasets are the replays of such agents. An agent's episodes follow from one another,
so a task's are made in order, a few per job: a job begins with the agent as the job before left
it, and gives the same bytes in whichever worker it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task
from pwm.core.worker_pool import Caller, Job, WorkerPool
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.simulation.sac_config import Training

_EPISODES_PER_JOB = 10  # at most a minute of work is done again after a kill


def record_training(
    store: EpisodeStore,
    training: Training,
    wanted: Mapping[str, int],
    made: Mapping[str, int],
    pool: WorkerPool,
    signals: StopSignals,
    show: Callable[..., None],
) -> None:
    """Trains agents side by side, and stores all their episodes, each task's in order.

    A worker stays with a task until that has all ``wanted`` episodes. ``signals`` end it after the
    episodes that are under way, of which none is lost. ``show`` is called with the ``completed``
    episodes and a ``note``. Raises PwmError if an agent has no checkpoint or a job fails too often.
    """
    jobs = _TrainingJobs(store.suite, training, wanted, made, signals, show)
    for job, episodes in pool.run(jobs.next_job, jobs.answer):
        store.append(jobs.end(job, episodes), episodes, training.source)


class _TrainingJobs:
    """Which worker trains which agent, and how far they are."""

    def __init__(
        self,
        suite: Suite,
        training: Training,
        wanted: Mapping[str, int],
        made: Mapping[str, int],
        signals: StopSignals,
        show: Callable[..., None],
    ) -> None:
        self._suite, self._training, self._wanted = suite, training, wanted
        self._made, self._signals, self._show = dict(made), signals, show
        self._waiting = [task for task in wanted if made[task] < wanted[task]]
        self._task_of: dict[int, str] = {}
        self._under_way: dict[Job, str] = {}
        self._of_job: dict[Job, int] = {}
        self._ended = 0

    def next_job(self, worker: int) -> Job | None:
        """The next job of the worker's task, or the first of another task."""
        task = self._task_of.get(worker)
        if self._signals.requested is not None or task in self._under_way.values():
            return None
        if task is None or self._made[task] >= self._wanted[task]:
            if not self._waiting:
                return None
            task = self._task_of[worker] = self._waiting.pop(0)
        first = self._made[task]
        end = min(first + _EPISODES_PER_JOB - first % _EPISODES_PER_JOB, self._wanted[task])
        part = f"episodes {first} to {end - 1} of {self._training.behaviour} on task '{task}'"
        job = Job(train_episodes, (self._training, self._suite[task], first, end), (part,))
        self._under_way[job] = task
        return job

    def answer(self, reports: Sequence[tuple[Job, tuple[int, float]]]) -> list[bool]:
        """Whether to go on, for workers that report how many episodes of a job they have made."""
        for job, (episodes, episode_return) in reports:
            self._of_job[job] = episodes
            note = f"{self._under_way[job]}: return {episode_return:z.0f}"
            self._show(completed=self._ended + sum(self._of_job.values()), note=note)
        return [self._signals.requested is None] * len(reports)

    def end(self, job: Job, episodes: Sequence[Episode]) -> str:
        """Count a job's episodes; returns their task."""
        task = self._under_way.pop(job)
        self._made[task] += len(episodes)
        self._ended += self._of_job.pop(job)
        return task


def train_episodes(
    caller: Caller, training: Training, task: Task, first: int, end: int
) -> list[Episode]:
    """A task's episodes ``first`` to ``end`` - 1, fewer if the caller asks to stop."""
    from pwm.simulation.sac_worker import agent_trainer  # here: the caller does without torch

    return agent_trainer(caller, training, task).train_episodes(first, end)
