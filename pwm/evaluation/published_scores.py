"""Published scores of PWM, TD-MPC2, SAC and DreamerV3, and how their settings differ.

The figures (``published_scores.csv`` beside this file) come from the authors' public result files.
They were measured on other models, data and simulator versions than a run of this project, so every
table that shows them also says what differs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES

METHODS: dict[str, str] = {  # with a short name for a table's head
    "pwm-48M": "PWM 48M",
    "pwm-48M-h3": "PWM 48M (H=3)",
    "tdmpc2-48M": "TD-MPC2 48M",
    "tdmpc2-single-task": "TD-MPC2 expert",
    "sac-single-task": "SAC expert",
    "dreamerv3-single-task": "DreamerV3 expert",
}
DEFAULT_COLUMNS: tuple[str, ...] = tuple(name for name in METHODS if name != "pwm-48M-h3")
MARKS = "mdvep"

_HOW = {
    "pwm-48M": "world model of 48M parameters trained with H=16, a policy per task, no planning",
    "pwm-48M-h3": "world model of 48M parameters trained with H=3, one policy per task, no "
    "planning",
    "tdmpc2-48M": "one multi-task agent of 48M parameters that plans at every step",
    "tdmpc2-single-task": "one TD-MPC2 agent per task, trained online",
    "sac-single-task": "one SAC agent per task, trained online",
    "dreamerv3-single-task": "one DreamerV3 agent per task, trained online",
}
_DATA = {
    "mt30": "offline data of 345,690,000 rows (the TD-MPC2 set for MT30)",
    "mt80": "offline data of 550,450,000 rows (the TD-MPC2 set for MT80)",
}
_MODEL = "48M"
_EPISODES = 10  # of both multi-task methods, by the configs that their authors publish


@dataclass(frozen=True)
class Figure:
    """One row of the published figures."""

    suite: str  # ``mt30`` or ``mt80`` for a multi-task model, ``single-task`` for an expert
    method: str  # the method's key in METHODS
    task: str
    seeds: int  # how many seeds the authors' file lists for it
    normalized_score: float  # 0..100
    env_steps: int | None  # environment steps of online training; None for offline methods


@dataclass(frozen=True)
class Published:
    """One method's published figures for the tasks of a run."""

    suite: str  # the published suite that they are taken from
    label: str  # a short name for a table's head
    differences: tuple[str, ...]  # in which settings they differ from a run of this project
    scores: dict[str, float]  # normalized scores by task; tasks without one are absent
    mean: float | None  # over the run's tasks; None unless every one of them has a score


@dataclass(frozen=True)
class RunSetting:
    """What a run was measured with, where published figures may differ."""

    world_model: str | None  # its size, such as ``48M``, or None if not known
    data_rows: Mapping[str, int]  # rows of offline data by task; a task that is absent is not known
    episodes: int  # evaluated per task
    protocols: Mapping[str, str] = field(default_factory=dict)
    """Of the tasks that were played under another protocol than the benchmark's, by task."""


def marks(run: RunSetting, task: str, suite: str) -> str:
    """Letters of MARKS for what a task's row differs in from the published multi-task figures.

    Args:
        run: the run.
        task: the row's task.
        suite: ``mt30`` or ``mt80``, the published figures' suite.

    Returns:
        ``m`` for another size of the world model, ``d`` for other offline data, ``v`` for
        Meta-World v3 instead of v2, ``e`` for another number of episodes, ``p`` for another
        protocol. What is not known counts as another, but for the protocol.
    """
    differs = {
        "m": run.world_model != _MODEL,
        "d": run.data_rows.get(task) != _published_rows(task, suite),
        "v": task.startswith("mw-"),
        "e": run.episodes != _EPISODES,
        "p": task in run.protocols,
    }
    return "".join(letter for letter in MARKS if differs[letter])


def describe_marks(run: RunSetting, used: str) -> str:
    """One sentence that says what the letters in ``used`` mean."""
    meaning = {
        "m": f"world model of {run.world_model or 'unknown'} parameters (published {_MODEL})",
        "d": "other offline data" if run.data_rows else "offline data not known (data=DIR tells)",
        "v": "Meta-World v3 (published v2)",
        "e": f"{run.episodes} episodes (published {_EPISODES})",
        "p": "another protocol than the benchmark's",
    }
    chosen = [f"{letter} = {meaning[letter]}" for letter in MARKS if letter in used]
    if not chosen:
        return "No row differs from the published multi-task figures in what is known."
    return (
        "Letters mark in what a row differs from the published multi-task figures: "
        f"{'; '.join(chosen)}."
    )


def mark_rows(
    run: RunSetting, tasks: Sequence[str], columns: Mapping[str, Published]
) -> tuple[dict[str, str], str]:
    """The :func:`marks` by task, and what the letters mean.

    Args:
        run: the run.
        tasks: its tasks.
        columns: what :func:`published_columns` gave for them, at least one.
    """
    suite = next(iter(columns.values())).suite
    found = {task: marks(run, task, suite) for task in tasks}
    return found, describe_marks(run, "".join(found.values()))


def _published_rows(task: str, suite: str) -> int:
    """Rows of a task in the TD-MPC2 set for a suite: episodes x rows per episode."""
    if suite == "mt30":
        return 23_000 * 501
    return (40_000 if task.startswith("mw-") else 115_000) * 101


@cache
def figures() -> dict[tuple[str, str, str], Figure]:
    """All published figures, by (suite, method, task)."""
    source = resources.files("pwm.evaluation") / "published_scores.csv"
    with source.open(encoding="utf-8") as file:
        rows = [
            Figure(
                *(row["suite"], row["method"], row["task"], int(row["seeds"])),
                float(row["normalized_score"]),
                int(row["env_steps"]) if row["env_steps"] else None,
            )
            for row in csv.DictReader(file)
        ]
    return {(row.suite, row.method, row.task): row for row in rows}


def figure(suite: str, method: str, task: str) -> Figure | None:
    """One published figure, or None where there is none."""
    return figures().get((suite, method, task))


def published_columns(
    suite: str, tasks: Sequence[str], methods: Iterable[str] = DEFAULT_COLUMNS
) -> dict[str, Published]:
    """The published figures to set beside a run, by method.

    Figures of multi-task models are those of MT30 for a run whose tasks are all of MT30, except
    in suite mt80, and those of MT80 otherwise.

    Args:
        suite: the name of the run's suite.
        tasks: the run's tasks.
        methods: which methods, from METHODS; one without a figure for any of the tasks is left out.

    Raises:
        PwmError: for an unknown method.
    """
    in_mt30 = suite != "mt80" and all(task in SUITES["mt30"] for task in tasks)
    columns = {}
    for method in methods:
        if method not in METHODS:
            raise PwmError(
                f"there are no published figures of method '{method}'; known are "
                f"{', '.join(METHODS)}."
            )
        source = "mt30" if in_mt30 else "mt80"
        if method.endswith("single-task"):
            source = "single-task"
        found = [row for task in tasks if (row := figure(source, method, task)) is not None]
        if found:
            scores = {row.task: row.normalized_score for row in found}
            mean = sum(scores.values()) / len(scores) if len(scores) == len(tasks) else None
            differences = _differences(method, source, found)
            columns[method] = Published(source, METHODS[method], differences, scores, mean)
    return columns


def describe_differences(columns: Iterable[Published]) -> list[str]:
    """Sentences on how the columns differ from a run of this project; what they share comes first.

    Returns:
        ``"All: ..."`` if they share any, and then one per column; empty for no columns.
    """
    columns = list(columns)
    shared: list[str] = []
    if len(columns) > 1:
        everywhere = set.intersection(*(set(column.differences) for column in columns))
        shared = [text for text in columns[0].differences if text in everywhere]
    listed = [("All", shared)]
    for column in columns:
        listed.append((column.label, [text for text in column.differences if text not in shared]))
    return [f"{label}: {'; '.join(texts)}." for label, texts in listed if texts]


def _differences(method: str, source: str, rows: Sequence[Figure]) -> tuple[str, ...]:
    seeds = "/".join(str(n) for n in sorted({row.seeds for row in rows}))
    steps = sorted({row.env_steps for row in rows if row.env_steps is not None})
    differences = [_HOW[method]]
    if source in _DATA:
        differences.append(_DATA[source])
    if steps:
        span = " to ".join(f"{count / 1e6:g}" for count in dict.fromkeys((steps[0], steps[-1])))
        differences.append(f"{span} million environment steps per task")
    if any(row.task.startswith("mw-") for row in rows):
        differences.append("Meta-World v2 where this project runs v3")
    differences.append(f"{seeds} seed{'' if seeds == '1' else 's'} by the authors' files")
    return tuple(differences)
