"""Several evaluations of one method as one: a seed each of what made the policies.

An interval here is a 95 % percentile bootstrap over seeds and, within each, over episodes: a
resample draws as many seeds as there are, the same for all tasks, since a seed's policies come from
one extraction, and then episodes of each task. With the two or three seeds that there usually are
it still says little about the spread between seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import get_task
from pwm.evaluation.scores import EXTRACTED, Interval, Results, TaskScore, episode_scores

_RESAMPLES = 4000


@dataclass(frozen=True)
class Pooled:
    """One method over several seeds.

    Attributes:
        by_task: by task, the score 0..100 of each episode: an array a seed. Data figures, which
            have no episodes, are as one episode.
    """

    by_task: Mapping[str, list[np.ndarray]]

    @classmethod
    def of(cls, seeds: Sequence[Mapping[str, TaskScore]]) -> Pooled:
        """A method's scores by task, from each seed; tasks that not all of them have are left out.

        Raises:
            PwmError: for an unknown task.
        """
        names = [name for name in seeds[0] if all(name in scores for scores in seeds)]
        return cls({name: [_samples(name, scores[name]) for scores in seeds] for name in names})

    def mean(self, tasks: Sequence[str]) -> float | None:
        """The mean over some tasks; None unless all have a score."""
        if not tasks or not set(tasks) <= set(self.by_task):
            return None
        return float(np.mean([np.mean([s.mean() for s in self.by_task[t]]) for t in tasks]))

    def interval(self, tasks: Sequence[str], seed: int = 0) -> Interval | None:
        """The 95 % interval of :meth:`mean`; None where there is only one episode of a task."""
        if self.mean(tasks) is None or min(len(s) for t in tasks for s in self.by_task[t]) < 2:
            return None
        rng = np.random.default_rng(seed)
        count = len(self.by_task[tasks[0]])
        drawn = rng.integers(count, size=(_RESAMPLES, count))
        total = np.zeros(_RESAMPLES)
        for task in tasks:
            for draw in drawn.T:
                total += _resampled(self.by_task[task], draw, rng)
        low, high = np.percentile(total / (count * len(tasks)), [2.5, 97.5])
        return float(low), float(high)


def _resampled(seeds: list[np.ndarray], draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(resamples,) means of episodes that are drawn from the seed that each resample drew."""
    means = np.empty(len(draw))
    for seed, samples in enumerate(seeds):
        of_seed = np.flatnonzero(draw == seed)
        rows = rng.integers(len(samples), size=(len(of_seed), len(samples)))
        means[of_seed] = samples[rows].mean(1)
    return means


def _samples(name: str, score: TaskScore) -> np.ndarray:
    if not score.returns:
        return np.array([score.normalized_score])
    successes = np.asarray(score.successes) if score.successes else None
    return episode_scores(get_task(name), np.asarray(score.returns), successes)


@dataclass(frozen=True)
class Seeds:
    """Evaluations of the same tasks, read and found to fit.

    Attributes:
        extracted: of extracted policies, one a seed.
        planned: of planners alone, which belong to any of the seeds.
    """

    extracted: tuple[Results, ...]
    planned: tuple[Results, ...]

    @classmethod
    def read(cls, runs: Sequence[Path]) -> Seeds:
        """Reads results.json of directories that ``pwm evaluate`` wrote.

        Raises:
            PwmError: if one lacks results, holds other tasks than the first, or the same episodes
                as another, as if one seed were two.
        """
        found = [Results.load(run / "results.json") for run in runs]
        for run, results in zip(runs, found, strict=True):
            if different := set(results.task_names) ^ set(found[0].task_names):
                raise PwmError(
                    f"{run} and {runs[0]} are not of the same tasks ({sorted(different)[0]} is in "
                    "one of them); give evaluations of one suite."
                )
        extracted = [(r, f) for r, f in zip(runs, found, strict=True) if f.method == EXTRACTED]
        if not extracted:
            raise PwmError("none of the runs is of extracted policies; give one a seed.")
        for i, (run, results) in enumerate(extracted):
            for other, earlier in extracted[:i]:
                if results.policy.tasks == earlier.policy.tasks:
                    raise PwmError(
                        f"{run} and {other} hold the same returns, so they are of the same "
                        "policies; give every seed once."
                    )
        planned = tuple(results for results in found if results.method != EXTRACTED)
        return cls(tuple(results for _, results in extracted), planned)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their tasks, in the suite's order."""
        return self.extracted[0].task_names

    def methods(self) -> dict[str, Pooled]:
        """Extracted policies and every other method, each pooled over the seeds that have it."""
        scores: dict[str, list[Mapping[str, TaskScore]]] = {}
        for results in (*self.extracted, *self.planned):
            for name, method in results.methods.items():
                known = scores.setdefault(name, [])
                if method.tasks not in known:  # a baseline of the simulator alone, say
                    known.append(method.tasks)
        return {name: Pooled.of(found) for name, found in scores.items()}
