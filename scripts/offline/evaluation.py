"""Scores of policies on the same episodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pwm.core.suites import Task
from pwm.core.worker_pool import Job, WorkerPool
from pwm.evaluation.agents import Agent
from pwm.evaluation.episode_log import Outcomes
from pwm.evaluation.play import play
from pwm.evaluation.scores import TaskScore, score_task

_SIDE_BY_SIDE = 5  # episodes; part of what the last bits of a score depend on


def evaluated(agent: Agent, task: Task, seeds: Sequence[int], pool: WorkerPool) -> TaskScore:
    """The score of a policy over one episode per seed, whatever the number of workers."""
    parts = [tuple(seeds[i : i + _SIDE_BY_SIDE]) for i in range(0, len(seeds), _SIDE_BY_SIDE)]
    name = (f"task '{task.name}'",)
    jobs = [Job(play, (agent, task, part), name * len(part)) for part in parts]
    waiting, found = deque(jobs), {}
    for job, outcomes in pool.run(lambda worker: waiting.popleft() if waiting else None):
        found[job] = outcomes
    every = Outcomes.concatenate([found[job] for job in jobs])
    return score_task(task, every.returns, every.success_last, every.success_any)
