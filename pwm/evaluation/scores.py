"""Scores of a run: normalized scores, bootstrap intervals, results.json, results.csv and a table.

A score lies in 0..100 (:meth:`pwm.core.suites.Task.normalized_score`). Intervals are 95 %
percentile bootstrap intervals over evaluation episodes; a suite's interval resamples episodes
within each task, so that differences between tasks do not widen it. They say how well the policies
at hand were measured, not how much the outcome would vary over training seeds.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.suites import Suite, Task
from pwm.evaluation.published_scores import (
    RunSetting,
)

Interval = tuple[float, float]

EXTRACTED = "extracted"
METHOD_LABELS: dict[str, str] = {
    EXTRACTED: "extracted",
    "planner+actor": "planner, actor and critic",
    "planner": "planner, prior and Q",
    "random": "random",
    "bc": "BC, all data",
    "bc_best": "BC, best 10 %",
    "data_mean": "data mean",
    "data_best": "data best",
}

_RESAMPLES = 9999
_RESAMPLES_AT_ONCE = 1000  # bounds memory: 80 tasks x 100 episodes x 9999 would need 640 MB
DECISION_TIMES = "decision_times.json"
"""Milliseconds of a decision by method. Beside results.json, which repeats bit for bit."""

_CSV_HEADER = (
    "suite",
    "method",
    "task",
    "episodes",
    "normalized_score",
    "normalized_low",
    "normalized_high",
    "return",
    "return_low",
    "return_high",
    "success_last",
    "success_any",
)


def bootstrap_interval(samples: Sequence[np.ndarray], seed: int = 0) -> Interval | None:
    """The 95 % percentile bootstrap interval of the mean over samples of each sample's mean.

    Args:
        samples: one array (n_i,) a stratum (task); values are resampled within each.
        seed: seeds the resampling; the same samples and seed give the same interval.

    Returns:
        (low, high), or None where any sample has fewer than two values: one episode says nothing
        about the spread.
    """
    if not samples or min(len(sample) for sample in samples) < 2:
        return None
    from scipy.stats import bootstrap  # slow to import

    result = bootstrap(
        samples,
        _mean_of_means,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        vectorized=True,
        paired=False,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)


@dataclass(frozen=True)
class TaskScore:
    """One method on one task.

    Attributes:
        normalized_score: mean over episodes, 0..100.
        normalized_ci95: its 95 % interval; None with fewer than two episodes, or for data figures.
        episode_return: mean undiscounted return of an episode (``return`` in JSON).
        return_ci95: its 95 % interval, or None.
        success_last: share of episodes successful at the last step, 0..1; None where the task
            defines no success (dm_control).
        success_any: share of episodes successful at any step, or None.
        returns: (episodes,) per-episode returns; empty for data figures.
        successes: (episodes,) per-episode success at the last step, 0 or 1; empty without success.
    """

    normalized_score: float
    normalized_ci95: Interval | None
    episode_return: float
    return_ci95: Interval | None
    success_last: float | None
    success_any: float | None
    returns: tuple[float, ...] = ()
    successes: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """This score as an R entry of results.json."""
        return {
            "normalized_score": self.normalized_score,
            "normalized_ci95": _pair_to_json(self.normalized_ci95),
            "return": self.episode_return,
            "return_ci95": _pair_to_json(self.return_ci95),
            "success_last": self.success_last,
            "success_any": self.success_any,
            "returns": list(self.returns),
            "successes": list(self.successes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskScore:
        """Inverse of :meth:`to_json`; KeyError, TypeError or ValueError for another shape."""
        return cls(
            normalized_score=float(data["normalized_score"]),
            normalized_ci95=_pair_from_json(data["normalized_ci95"]),
            episode_return=float(data["return"]),
            return_ci95=_pair_from_json(data["return_ci95"]),
            success_last=_optional_float(data["success_last"]),
            success_any=_optional_float(data["success_any"]),
            returns=tuple(float(value) for value in data["returns"]),
            successes=tuple(float(value) for value in data["successes"]),
        )


def score_task(
    task: Task,
    returns: Sequence[float] | np.ndarray,
    success_last: Sequence[float] | np.ndarray | None = None,
    success_any: Sequence[float] | np.ndarray | None = None,
    seed: int = 0,
) -> TaskScore:
    """The score of a policy from its evaluation episodes.

    Args:
        task: the task; decides whether the score is a return or a success rate.
        returns: (episodes,) undiscounted returns.
        success_last: (episodes,) 0/1, success at the last step; needed where the task is scored by
            success, ignored otherwise.
        success_any: (episodes,) 0/1, success at any step; ditto, optional.
        seed: seeds the bootstrap.

    Raises:
        PwmError: for no episodes, returns that are not finite, or successes that are missing or of
            another length than the returns.
    """
    episode_returns = np.asarray(returns, dtype=np.float64)
    last, any_ = _checked_successes(task, episode_returns, success_last, success_any)
    scores = episode_scores(task, episode_returns, last)
    return TaskScore(
        normalized_score=float(scores.mean()),
        normalized_ci95=bootstrap_interval([scores], seed),
        episode_return=float(episode_returns.mean()),
        return_ci95=bootstrap_interval([episode_returns], seed),
        success_last=None if last is None else float(last.mean()),
        success_any=None if any_ is None else float(any_.mean()),
        returns=tuple(episode_returns.tolist()),
        successes=() if last is None else tuple(last.tolist()),
    )


def score_data(
    task: Task,
    returns: Sequence[float] | np.ndarray,
    success_last: Sequence[float] | np.ndarray | None = None,
    success_any: Sequence[float] | np.ndarray | None = None,
) -> tuple[TaskScore, TaskScore]:
    """What the offline data itself scores: its mean and its best episode, without intervals.

    The best episode is the one of the highest normalized score, by return among equals.
    Arguments and errors as in :func:`score_task`, over the episodes of the data.
    """
    episode_returns = np.asarray(returns, dtype=np.float64)
    last, any_ = _checked_successes(task, episode_returns, success_last, success_any)
    scores = episode_scores(task, episode_returns, last)
    best = np.lexsort((episode_returns, scores))[-1:]

    def figure(chosen: Any) -> TaskScore:
        return TaskScore(
            normalized_score=float(scores[chosen].mean()),
            normalized_ci95=None,
            episode_return=float(episode_returns[chosen].mean()),
            return_ci95=None,
            success_last=None if last is None else float(last[chosen].mean()),
            success_any=None if any_ is None else float(any_[chosen].mean()),
        )

    return figure(slice(None)), figure(best)


@dataclass(frozen=True)
class MethodScore:
    """One method over the tasks of a suite.

    Attributes:
        mean_normalized_score: mean over the tasks it was run on.
        mean_ci95: its 95 % interval, or None (see :func:`bootstrap_interval`).
        tasks: a score a task; a baseline may lack some of the suite's tasks.
    """

    mean_normalized_score: float
    mean_ci95: Interval | None
    tasks: dict[str, TaskScore]

    @classmethod
    def build(cls, suite: Suite, tasks: Mapping[str, TaskScore], seed: int = 0) -> MethodScore:
        """The mean over tasks, in the suite's order, with an interval stratified over tasks.

        Raises:
            PwmError: for a task outside the suite, or no task at all.
        """
        for name in tasks:
            suite.id(name)
        if not tasks:
            raise PwmError(
                f"no task of suite '{suite.name}' was scored; "
                "a suite's mean needs at least one evaluated task."
            )
        ordered = {name: tasks[name] for name in suite.names if name in tasks}
        samples = [
            episode_scores(
                suite[name],
                np.asarray(score.returns),
                np.asarray(score.successes) if suite[name].scored_by_success else None,
            )
            for name, score in ordered.items()
        ]
        mean = float(np.mean([score.normalized_score for score in ordered.values()]))
        return cls(mean, bootstrap_interval(samples, seed), ordered)

    def to_json(self) -> dict[str, Any]:
        """This method as an entry of ``baselines`` in results.json."""
        return {
            "mean_normalized_score": self.mean_normalized_score,
            "mean_ci95": _pair_to_json(self.mean_ci95),
            "tasks": {name: score.to_json() for name, score in self.tasks.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MethodScore:
        """Inverse of :meth:`to_json`; KeyError, TypeError or ValueError for another shape."""
        return cls(
            mean_normalized_score=float(data["mean_normalized_score"]),
            mean_ci95=_pair_from_json(data.get("mean_ci95")),
            tasks={str(k): TaskScore.from_json(v) for k, v in data["tasks"].items()},
        )


@dataclass(frozen=True)
class Results:
    """What an evaluation found; the content of results.json.

    Attributes:
        suite: the suite's name.
        episodes: evaluation episodes a task.
        seeds: the environment seeds of those episodes, the same for every method.
        settings: how it was evaluated, for the reader; any JSON values.
        policy: the scores of what was evaluated.
        baselines: other methods on the same episodes, by name (see METHOD_LABELS).
        method: what was evaluated: extracted policies or a planner.
    """

    suite: str
    episodes: int
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    policy: MethodScore
    baselines: dict[str, MethodScore]
    method: str = EXTRACTED

    @classmethod
    def build(
        cls,
        suite: Suite,
        policy: Mapping[str, TaskScore],
        baselines: Mapping[str, Mapping[str, TaskScore]],
        *,
        method: str = EXTRACTED,
        episodes: int,
        seeds: Sequence[int],
        settings: Mapping[str, Any] | None = None,
        bootstrap_seed: int = 0,
    ) -> Results:
        """Results from scores a task; a baseline without any task is left out.

        Raises:
            PwmError: for tasks outside the suite, or no task.
        """
        return cls(
            suite=suite.name,
            episodes=episodes,
            seeds=tuple(int(seed) for seed in seeds),
            settings=dict(settings or {}),
            policy=MethodScore.build(suite, policy, bootstrap_seed),
            method=method,
            baselines={
                name: MethodScore.build(suite, tasks, bootstrap_seed)
                for name, tasks in baselines.items()
                if tasks
            },
        )

    @property
    def methods(self) -> dict[str, MethodScore]:
        """What was evaluated, then the baselines: the known ones in METHOD_LABELS' order."""
        known = [name for name in METHOD_LABELS if name in self.baselines]
        others = [name for name in self.baselines if name not in METHOD_LABELS]
        return {self.method: self.policy, **{n: self.baselines[n] for n in [*known, *others]}}

    @property
    def task_names(self) -> tuple[str, ...]:
        """The evaluated tasks, in the suite's order."""
        return tuple(self.policy.tasks)

    @property
    def setting(self) -> RunSetting:
        """What published figures may differ in, as far as the settings tell."""
        rows = self.settings.get("data_rows")
        model = self.settings.get("world_model")
        return RunSetting(
            model if isinstance(model, str) else None,
            rows if isinstance(rows, dict) else {},
            self.episodes,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of results.json."""
        policy = self.policy.to_json()
        return {
            "suite": self.suite,
            "method": self.method,
            "episodes": self.episodes,
            "seeds": list(self.seeds),
            "mean_normalized_score": policy["mean_normalized_score"],
            "mean_ci95": policy["mean_ci95"],
            "settings": self.settings,
            "tasks": policy["tasks"],
            "baselines": {name: score.to_json() for name, score in self.baselines.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """Inverse of :meth:`to_json`.

        Raises:
            PwmError: for an object of another shape.
        """
        try:
            return cls(
                suite=str(data["suite"]),
                episodes=int(data["episodes"]),
                seeds=tuple(int(seed) for seed in data["seeds"]),
                settings=dict(data.get("settings") or {}),
                policy=MethodScore.from_json(data),
                method=str(data.get("method", EXTRACTED)),
                baselines={
                    str(name): MethodScore.from_json(score)
                    for name, score in data["baselines"].items()
                },
            )
        except KeyError as error:
            raise PwmError(f"the results lack {error}; {_REMAKE}.") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise PwmError(f"the results hold a wrong value ({error}); {_REMAKE}.") from error

    def save(self, path: str | Path) -> None:
        """Write results.json atomically.

        Raises:
            PwmError: if a number is not finite or a setting is no JSON value.
        """
        try:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PwmError(
                f"the results cannot be written to {path} ({error}); "
                "expected finite numbers and plain JSON values in the settings."
            ) from error
        write_atomically(Path(path), (text + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a results.json.

        Raises:
            PwmError: if it is absent, not JSON, or of another shape.
        """
        data = read_json(path, _REMAKE)
        try:
            return cls.from_json(data)
        except PwmError as error:
            raise PwmError(f"{path}: {error}") from error


_REMAKE = "`pwm evaluate` writes them again"


def read_json(path: str | Path, remedy: str) -> Any:
    """The object in a JSON file.

    Raises:
        PwmError: if it is absent or malformed; the sentence ends with ``remedy``.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PwmError(f"there is no {path}; {remedy}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PwmError(f"{path} is not valid JSON ({error}); {remedy}.") from error
    except OSError as error:
        raise PwmError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error


def write_csv(results: Results, path: str | Path) -> None:
    """Write results.csv atomically: one row per method and task; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for method, scores in results.methods.items():
        for task, score in scores.tasks.items():
            writer.writerow(
                [
                    results.suite,
                    method,
                    task,
                    len(score.returns) or "",
                    score.normalized_score,
                    *(score.normalized_ci95 or ("", "")),
                    score.episode_return,
                    *(score.return_ci95 or ("", "")),
                    "" if score.success_last is None else score.success_last,
                    "" if score.success_any is None else score.success_any,
                ]
            )
    write_atomically(Path(path), text.getvalue().encode())


def episode_scores(task: Task, returns: np.ndarray, successes: np.ndarray | None) -> np.ndarray:
    """Normalized scores (episodes,) of one task's episodes, from returns and successes at the end.

    ``successes`` is None where the task defines none.
    """
    if successes is None:
        return np.array([task.normalized_score(value, 0.0) for value in returns.tolist()])
    pairs = zip(returns.tolist(), successes.tolist(), strict=True)
    return np.array([task.normalized_score(value, success) for value, success in pairs])


def _checked_successes(
    task: Task,
    returns: np.ndarray,
    success_last: Sequence[float] | np.ndarray | None,
    success_any: Sequence[float] | np.ndarray | None,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if returns.ndim != 1 or len(returns) == 0:
        raise PwmError(
            f"task '{task.name}' has no episodes to score (returns of shape {returns.shape}); "
            "expected one return an episode."
        )
    if not np.isfinite(returns).all():
        raise PwmError(
            f"task '{task.name}' has a return that is not finite; "
            "a score needs finite rewards, so look for NaN in the policy's actions."
        )
    if not task.scored_by_success:
        return None, None
    if success_last is None:
        raise PwmError(
            f"task '{task.name}' is scored by success, but no successes were given; "
            "expected one 0 or 1 an episode."
        )
    last = np.asarray(success_last, dtype=np.float64)
    any_ = None if success_any is None else np.asarray(success_any, dtype=np.float64)
    for successes in (last, any_):
        if successes is not None and successes.shape != returns.shape:
            raise PwmError(
                f"task '{task.name}' has {len(returns)} returns but successes of shape "
                f"{successes.shape}; expected one 0 or 1 an episode."
            )
    return last, any_


def _pair_to_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval[0], interval[1]]


def _pair_from_json(value: Any) -> Interval | None:
    if value is None:
        return None
    low, high = (float(bound) for bound in value)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"interval {value} is not finite")
    return low, high


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
