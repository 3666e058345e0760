"""Scores of a run: normalized scores with intervals, results.json and results.csv.

A score lies in 0..100 (:meth:`pwm.core.suites.Task.normalized_score`). Its interval is over
evaluation episodes (:func:`pwm.evaluation.statistics.bootstrap_interval`); a suite's interval
resamples episodes within each task, so that differences between tasks do not widen it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.suites import Suite, Task
from pwm.evaluation.published_scores import RunSetting
from pwm.evaluation.statistics import bootstrap_interval

EXTRACTED = "extracted"
OWN_TASKS = "own_tasks"  # in the settings of results, the descriptions of user-defined tasks
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
SUCCESS_MEASURES = {
    "success_last": 2,
    "success_any": 2,
    "steps_to_success": 1,
    "episode_return": 1,
}
"""Attributes of :class:`TaskScore` that tables show of tasks with success, and their digits."""
DECISION_TIMES = "decision_times.json"
"""Milliseconds per decision by method. Beside results.json, which repeats bit for bit."""

S = TypeVar("S", bound=msgspec.Struct)
Finite = Annotated[float, msgspec.Meta(ge=-1e308, le=1e308)]
FiniteInterval = tuple[Finite, Finite]
_REMAKE = "`pwm evaluate` writes them again"


class TaskScore(msgspec.Struct, frozen=True):
    """One method on one task.

    Intervals are 95 % ones, None with fewer than two episodes or for data figures; successes are
    None where the task defines none (dm_control).
    """

    normalized_score: Finite  # mean over episodes, 0..100
    normalized_ci95: FiniteInterval | None
    episode_return: Finite = msgspec.field(name="return")  # mean, undiscounted
    return_ci95: FiniteInterval | None
    success_last: Finite | None  # share of episodes successful at the last step, 0..1
    success_any: Finite | None  # share of episodes successful at any step
    returns: tuple[Finite, ...] = ()  # (episodes,); empty for data figures
    successes: tuple[
        Finite, ...
    ] = ()  # (episodes,) at the last step, 0 or 1; empty without success
    steps_to_success: Finite | None = None  # mean of the first one over episodes that have one

    def samples(self, task: Task) -> np.ndarray:
        """Normalized scores (episodes,); of data figures, which have no episodes, the mean (1,)."""
        if not self.returns:
            return np.array([self.normalized_score])
        return _episode_scores(task, self.returns, self.successes)


def score_task(
    task: Task,
    returns: Sequence[float] | np.ndarray,
    success_last: Sequence[float] | np.ndarray | None = None,
    success_any: Sequence[float] | np.ndarray | None = None,
    steps_to_success: Sequence[float] | np.ndarray | None = None,
) -> TaskScore:
    """The score of a policy from its evaluation episodes.

    Args:
        task: the task; decides whether the score is a return or a success rate.
        returns: (episodes,) undiscounted returns.
        success_last: (episodes,) 0/1, success at the last step; needed where the task is scored by
            success, ignored otherwise.
        success_any: (episodes,) 0/1, success at any step; ditto, optional.
        steps_to_success: (episodes,) decision steps up to the first success, 0 without one and -1
            where they are not known; ditto, optional.

    Raises:
        PwmError: for no episodes, returns that are not finite, or successes that are missing or of
            another length than the returns.
    """
    score = _score(task, returns, success_last, success_any)
    return msgspec.structs.replace(
        score,
        normalized_ci95=bootstrap_interval([score.samples(task)]),
        return_ci95=bootstrap_interval([np.asarray(score.returns)]),
        steps_to_success=_mean_steps(steps_to_success) if task.scored_by_success else None,
    )


def score_data(
    task: Task,
    returns: Sequence[float] | np.ndarray,
    success_last: Sequence[float] | np.ndarray | None = None,
    success_any: Sequence[float] | np.ndarray | None = None,
) -> tuple[TaskScore, TaskScore]:
    """Scores of the offline data itself: its mean and its best episode, without intervals.

    The best episode is the one of the highest normalized score, by return among equals.
    Arguments and errors as in :func:`score_task`, over the episodes of the data.
    """
    every = _score(task, returns, success_last, success_any)
    best = np.lexsort((np.array(every.returns), every.samples(task)))[-1:]
    chosen = (None if v is None else np.asarray(v)[best] for v in (success_last, success_any))
    figures = every, _score(task, np.asarray(returns)[best], *chosen)
    mean, best_episode = (
        msgspec.structs.replace(score, returns=(), successes=()) for score in figures
    )
    return mean, best_episode


def _score(
    task: Task,
    returns: Sequence[float] | np.ndarray,
    success_last: Sequence[float] | np.ndarray | None,
    success_any: Sequence[float] | np.ndarray | None,
) -> TaskScore:
    """A score without intervals; see :func:`score_task`."""
    values = np.asarray(returns, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise PwmError(
            f"task '{task.name}' has no episodes to score (returns of shape {values.shape}); "
            "expected one return per episode."
        )
    if not np.isfinite(values).all():
        raise PwmError(
            f"task '{task.name}' has a return that is not finite; "
            "a score needs finite rewards, so look for NaN in the policy's actions."
        )
    last = any_ = None
    if task.scored_by_success:
        if success_last is None:
            raise PwmError(
                f"task '{task.name}' is scored by success, but no successes were given; "
                "expected one 0 or 1 per episode."
            )
        last = np.asarray(success_last, np.float64)
        any_ = None if success_any is None else np.asarray(success_any, np.float64)
    for successes in (last, any_):
        if successes is not None and successes.shape != values.shape:
            raise PwmError(
                f"task '{task.name}' has {len(values)} returns but successes of shape "
                f"{successes.shape}; expected one 0 or 1 per episode."
            )
    kept = () if last is None else tuple(last.tolist())
    return TaskScore(
        normalized_score=float(_episode_scores(task, values.tolist(), kept).mean()),
        normalized_ci95=None,
        episode_return=float(values.mean()),
        return_ci95=None,
        success_last=None if last is None else float(last.mean()),
        success_any=None if any_ is None else float(any_.mean()),
        returns=tuple(values.tolist()),
        successes=kept,
    )


def _mean_steps(steps: Sequence[float] | np.ndarray | None) -> float | None:
    """The mean over the episodes that succeed; None for none, or if one is not known."""
    values = np.asarray([] if steps is None else steps, np.float64)
    if (values < 0).any() or not (values > 0).any():
        return None
    return float(values[values > 0].mean())


def _episode_scores(task: Task, returns: Sequence[float], successes: Sequence[float]) -> np.ndarray:
    pairs = zip(returns, successes or [0.0] * len(returns), strict=True)
    return np.array([task.normalized_score(value, success) for value, success in pairs])


class MethodScore(msgspec.Struct, frozen=True):
    """One method over the tasks of a suite; a baseline may lack some of them."""

    mean_normalized_score: Finite  # over the tasks it was run on
    mean_ci95: FiniteInterval | None  # None where a task has fewer than two episodes
    tasks: dict[str, TaskScore]

    @classmethod
    def build(cls, suite: Suite, tasks: Mapping[str, TaskScore]) -> MethodScore:
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
        samples = [score.samples(suite[name]) for name, score in ordered.items()]
        mean = float(np.mean([score.normalized_score for score in ordered.values()]))
        return cls(mean, bootstrap_interval(samples), ordered)


@dataclass(frozen=True)
class Results:
    """The scores of an evaluation; the content of results.json."""

    suite: str
    episodes: int  # per task
    seeds: tuple[int, ...]  # of the environments in those episodes, the same for every method
    settings: dict[str, Any]  # how it was evaluated, for the reader; any JSON values
    policy: MethodScore  # the scores of what was evaluated
    baselines: dict[str, MethodScore]  # other methods on the same episodes (see METHOD_LABELS)
    method: str = EXTRACTED  # what was evaluated: extracted policies or a planner

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
    ) -> Results:
        """Results from scores by task; a baseline without any task is left out.

        Raises:
            PwmError: for tasks outside the suite, or no task.
        """
        return cls(
            suite=suite.name,
            episodes=episodes,
            seeds=tuple(seeds),
            settings=dict(settings or {}),
            policy=MethodScore.build(suite, policy),
            baselines={
                name: MethodScore.build(suite, tasks) for name, tasks in baselines.items() if tasks
            },
            method=method,
        )

    @property
    def methods(self) -> dict[str, MethodScore]:
        """What was evaluated, then the baselines: the known ones in METHOD_LABELS' order."""
        names = [*METHOD_LABELS, *(name for name in self.baselines if name not in METHOD_LABELS)]
        known = {name: self.baselines[name] for name in names if name in self.baselines}
        return {self.method: self.policy, **known}

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
            protocols if isinstance(protocols := self.settings.get("protocols"), dict) else {},
        )

    def to_json(self) -> dict[str, Any]:
        """The object of results.json."""
        plain = msgspec.to_builtins(self, enc_hook=float)  # of NumPy's numbers
        policy = plain.pop("policy")
        order = (
            "suite", "method", "episodes", "seeds", "mean_normalized_score", "mean_ci95",
            "settings", "tasks", "baselines",
        )  # fmt: skip
        return {key: (plain | policy)[key] for key in order}

    @classmethod
    def from_json(cls, data: Any) -> Results:
        """Inverse of :meth:`to_json`.

        Raises:
            PwmError: for an object of another shape.
        """
        head = _read(_Head, data)
        policy = _read_method(data)
        baselines = {
            name: _read_method(method, f"baselines.{name}.")
            for name, method in head.baselines.items()
        }
        settings = head.settings or {}
        return cls(head.suite, head.episodes, head.seeds, settings, policy, baselines, head.method)

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


class _Head(msgspec.Struct):
    """What results.json says beside the policy's scores."""

    suite: str
    episodes: int
    seeds: tuple[int, ...]
    baselines: dict[str, Any]
    settings: dict[str, Any] | None = None
    method: str = EXTRACTED


class _Mean(msgspec.Struct):
    mean_normalized_score: Finite
    tasks: dict[str, Any]
    mean_ci95: FiniteInterval | None = None


def _read_method(data: Any, place: str = "") -> MethodScore:
    mean = _read(_Mean, data, place)
    tasks = {
        name: _read(TaskScore, task, f"{place}tasks.{name}.") for name, task in mean.tasks.items()
    }
    return MethodScore(mean.mean_normalized_score, mean.mean_ci95, tasks)


def _read(kind: type[S], data: Any, place: str = "") -> S:
    """A record of results.json; ``place`` leads to it, with a dot at its end."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, inner = str(error).partition(" - at `$")
        inner = place + inner.strip("`.")
        if lacking := re.fullmatch(r"Object missing required field `(\w+)`", message):
            fault = f"lack '{inner}{lacking[1]}'"
        else:
            fault = f"hold a wrong value ({inner.rstrip('.') or 'all'}: {message})"
        raise PwmError(f"the results {fault}; {_REMAKE}.") from error


def read_json(path: str | Path, remedy: str) -> Any:
    """The object in a JSON file.

    Raises:
        PwmError: if it is absent or malformed; the sentence ends with ``remedy``.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PwmError(f"there is no {path}; {remedy}.") from error
    except OSError as error:
        raise PwmError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except ValueError as error:
        raise PwmError(f"{path} is not valid JSON ({error}); {remedy}.") from error
