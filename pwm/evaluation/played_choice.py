"""Extraction whose policies are chosen by playing them on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pwm.core.processes import available_cores
from pwm.core.progress import console
from pwm.core.suites import Task
from pwm.core.worker_pool import WorkerPool
from pwm.envs import make_env
from pwm.evaluation.agents import SavedPolicies
from pwm.evaluation.episode_log import EpisodeLog
from pwm.evaluation.episode_queue import run_episodes
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.evaluation.scores import EXTRACTED, TaskScore
from pwm.extraction import extract as extraction
from pwm.extraction.config import ExtractConfig
from pwm.models.policy import Policy
from pwm.simulation.watched_env import require_environments

FIRST_SEED = 500_000  # far from those of collecting and of evaluation


@dataclass(frozen=True)
class PlayedScore:
    """What a policy scored.

    Attributes:
        score: the mean over episodes, 0..100.
        low, high: its 95 % interval; the score itself where there was one episode.
    """

    score: float
    low: float
    high: float

    @classmethod
    def of(cls, played: TaskScore) -> PlayedScore:
        """From a task's episodes."""
        score = played.normalized_score
        return cls(score, *(played.normalized_ci95 or (score, score)))


@dataclass(frozen=True)
class PlayedJudge:
    """Plays policies, always the same episodes of a task.

    Attributes:
        episodes: of each task.
    """

    episodes: int

    def require(self, tasks: Sequence[Task]) -> None:
        """Raise PwmError for simulators that are not there, trying one task of each."""
        for task in {task.domain: task for task in tasks}.values():
            make_env(task).close()

    def __call__(self, policies: Sequence[Policy]) -> list[PlayedScore]:
        """The scores of policies of different tasks.

        Raises:
            PwmError: for a simulator that is not there, or fails.
        """
        tasks = require_environments(policy.task for policy in policies)
        usual = EvaluateConfig
        seeds = range(FIRST_SEED, FIRST_SEED + self.episodes)
        with TemporaryDirectory() as directory:
            paths = {policy.task.name: Path(directory) / policy.task.name for policy in policies}
            for policy in policies:
                policy.save(paths[policy.task.name])
            agents = {EXTRACTED: SavedPolicies.at(paths)}
            with WorkerPool(
                available_cores(), usual.worker_timeout, usual.max_faults, notify=console.print
            ) as pool:
                played = run_episodes(agents, tasks, seeds, usual.batch, pool, EpisodeLog())
        scores = played.scores(tasks)[EXTRACTED]
        return [PlayedScore.of(scores[policy.task.name]) for policy in policies]


def extract(config: ExtractConfig) -> Path:
    """As :func:`pwm.extraction.extract.extract`, with simulators for ``select=simulator``."""
    plays = config.select == "simulator"
    return extraction.extract(config, PlayedJudge(config.select_episodes) if plays else None)
