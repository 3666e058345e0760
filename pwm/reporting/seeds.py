"""Several evaluations of one method as one: each is of policies from another training seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task, get_suite, task_from_table
from pwm.evaluation.scores import EXTRACTED, OWN_TASKS, Results, TaskScore
from pwm.evaluation.statistics import Interval, iqm, iqm_interval, pooled_interval


@dataclass(frozen=True)
class Pooled:
    """One method over several seeds. Data figures, which have no episodes, count as one."""

    by_task: Mapping[str, list[np.ndarray]]  # scores 0..100: an array (episodes,) per seed

    @classmethod
    def of(cls, seeds: Sequence[Mapping[str, TaskScore]], own: Iterable[Task] = ()) -> Pooled:
        """A method's scores by task, from each seed; tasks that not all of them have are left out.

        Args:
            seeds: the scores.
            own: the user-defined tasks among them.

        Raises:
            PwmError: for an unknown task.
        """
        names = [name for name in seeds[0] if all(name in scores for scores in seeds)]
        tasks = get_suite(names, own) if names else ()
        return cls({t.name: [scores[t.name].samples(t) for scores in seeds] for t in tasks})

    def mean(self, tasks: Sequence[str]) -> float | None:
        """The mean over some tasks; None unless all have a score."""
        if not tasks or not set(tasks) <= set(self.by_task):
            return None
        return float(np.mean([np.mean([s.mean() for s in self.by_task[t]]) for t in tasks]))

    def interval(self, tasks: Sequence[str], seed: int = 0) -> Interval | None:
        """The 95 % interval of :meth:`mean`; None where there is only one episode of a task.

        See :func:`pwm.evaluation.statistics.pooled_interval`.
        """
        if self.mean(tasks) is None:
            return None
        return pooled_interval([self.by_task[task] for task in tasks], seed)

    def iqm(self, tasks: Sequence[str]) -> tuple[float, Interval | None]:
        """The interquartile mean over seeds and tasks, all with a score, and its 95 % interval.

        See :func:`pwm.evaluation.statistics.iqm_interval`.
        """
        scores = np.array([[s.mean() for s in self.by_task[task]] for task in tasks]).T
        return iqm(scores), iqm_interval(scores)


def own_tasks(results: Results) -> list[Task]:
    """The user-defined tasks of an evaluation; none where it did not note them yet."""
    return [task_from_table(table) for table in results.settings.get(OWN_TASKS, ())]


@dataclass(frozen=True)
class Seeds:
    """Evaluations of the same tasks, read and found to fit."""

    extracted: tuple[Results, ...]  # of extracted policies, one per seed
    planned: tuple[Results, ...]  # of planners alone, which belong to any of the seeds

    @classmethod
    def read(cls, runs: Sequence[Path]) -> Seeds:
        """Read results.json of directories that ``pwm evaluate`` wrote.

        Raises:
            PwmError: if one lacks results, holds other tasks or another protocol than the first,
                or the same episodes as another, as if one seed were two.
        """
        found = {run: Results.load(run / "results.json") for run in runs}
        for run, results in found.items():
            if different := set(results.task_names) ^ set(found[runs[0]].task_names):
                raise PwmError(
                    f"{run} and {runs[0]} are not of the same tasks ({sorted(different)[0]} is in "
                    "one of them); give evaluations of one suite."
                )
            if results.setting.protocols != found[runs[0]].setting.protocols:
                raise PwmError(
                    f"{run} and {runs[0]} were played under different protocols; give evaluations "
                    "with the same metaworld=."
                )
            if own_tasks(results) != own_tasks(found[runs[0]]):
                raise PwmError(
                    f"{run} and {runs[0]} describe a task otherwise, so their scores are not "
                    "comparable; evaluate both by one task file."
                )
        extracted = {run: r for run, r in found.items() if r.method == EXTRACTED}
        if not extracted:
            raise PwmError("none of the runs is of extracted policies; give one per seed.")
        for run, results in extracted.items():
            twin = next(r for r, r_ in extracted.items() if r_.policy.tasks == results.policy.tasks)
            if twin != run:
                raise PwmError(
                    f"{run} and {twin} hold the same returns, so they are of the same policies; "
                    "give every seed once."
                )
        planned = (results for results in found.values() if results.method != EXTRACTED)
        return cls(tuple(extracted.values()), tuple(planned))

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
        own = own_tasks(self.extracted[0])
        return {name: Pooled.of(found, own) for name, found in scores.items()}
