"""Published reference figures of PWM, TD-MPC2, SAC and DreamerV3, and how their settings differ.

The figures (``published_scores.csv`` beside this file) come from the authors' public result files.
They were measured on other models, data and simulator versions than a run of this project, so a
column of them never stands without its differences.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES


@dataclass(frozen=True)
class Figure:
    """One row of the published figures.

    Attributes:
        suite: ``mt30`` or ``mt80`` for a multi-task model, ``single-task`` for an expert.
        method: the method's key, such as ``pwm-48M``.
        task: the task's name.
        seeds: how many seeds the authors' file lists for it.
        episode_return: mean return, where published.
        success: success rate 0..1, where published.
        normalized_score: 0..100.
        env_steps: environment steps of online training; None for offline methods.
    """

    suite: str
    method: str
    task: str
    seeds: int
    episode_return: float | None
    success: float | None
    normalized_score: float
    env_steps: int | None


@dataclass(frozen=True)
class Published:
    """A column of published figures for the tasks of a run.

    Attributes:
        method: the method's key, such as ``pwm-48M``.
        suite: the published suite it is taken from.
        label: a short name for a table's head.
        differences: in which settings it differs from a run of this project.
        figures: the figures by task; tasks without one are absent.
        tasks: how many tasks the run has.
    """

    method: str
    suite: str
    label: str
    differences: tuple[str, ...]
    figures: dict[str, Figure]
    tasks: int

    def score(self, task: str) -> float | None:
        """The published normalized score of a task, or None."""
        figure = self.figures.get(task)
        return None if figure is None else figure.normalized_score

    @property
    def mean(self) -> float | None:
        """Mean over the run's tasks; None unless every one of them has a figure."""
        if not self.figures or len(self.figures) < self.tasks:
            return None
        return sum(f.normalized_score for f in self.figures.values()) / len(self.figures)


_LABELS = {
    "pwm-48M": "PWM 48M",
    "pwm-48M-h3": "PWM 48M (H=3)",
    "tdmpc2-48M": "TD-MPC2 48M",
    "tdmpc2-single-task": "TD-MPC2 expert",
    "sac-single-task": "SAC expert",
    "dreamerv3-single-task": "DreamerV3 expert",
}
METHODS: tuple[str, ...] = tuple(_LABELS)
MULTI_TASK: tuple[str, ...] = ("pwm-48M", "tdmpc2-48M")
DEFAULT_COLUMNS: tuple[str, ...] = (
    *MULTI_TASK,
    "tdmpc2-single-task",
    "sac-single-task",
    "dreamerv3-single-task",
)


def method_label(method: str) -> str:
    """A short name of a published method for a table's head."""
    return _LABELS[method]


_HOW = {
    "pwm-48M": "world model of 48M parameters trained with H=16, a policy per task, no planning",
    "pwm-48M-h3": "world model of 48M parameters trained with H=3, a policy per task, no planning",
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
class RunSetting:
    """What a run was measured with, where published figures may differ.

    Attributes:
        world_model: its size, such as ``48M``, or None if not known.
        data_rows: rows of offline data by task; a task without is not known.
        episodes: evaluated a task.
    """

    world_model: str | None
    data_rows: Mapping[str, int]
    episodes: int


MARKS = "mdve"


def marks(run: RunSetting, task: str, suite: str) -> str:
    """In what a task's row differs from the published multi-task figures, a letter each of MARKS.

    Args:
        run: the run.
        task: the row's task.
        suite: ``mt30`` or ``mt80``, the published figures' suite.

    Returns:
        ``m`` for another size of the world model, ``d`` for other offline data, ``v`` for
        Meta-World v3 instead of v2, ``e`` for another number of episodes. What is not known counts
        as another.
    """
    differs = {
        "m": run.world_model != _MODEL,
        "d": run.data_rows.get(task) != _published_rows(task, suite),
        "v": task.startswith("mw-"),
        "e": run.episodes != _EPISODES,
    }
    return "".join(letter for letter in MARKS if differs[letter])


def describe_marks(run: RunSetting, used: str) -> str:
    """One sentence that says what the letters in ``used`` mean."""
    model = "unknown" if run.world_model is None else run.world_model
    data = "other offline data" if run.data_rows else "offline data not known (data=DIR tells)"
    meaning = {
        "m": f"world model of {model} parameters (published {_MODEL})",
        "d": data,
        "v": "Meta-World v3 (published v2)",
        "e": f"{run.episodes} episodes (published {_EPISODES})",
    }
    chosen = [f"{letter} {meaning[letter]}" for letter in MARKS if letter in used]
    if not chosen:
        return "No row differs from the published multi-task figures in what is known."
    return f"Rows differ from the published multi-task figures in: {'; '.join(chosen)}."


def _published_rows(task: str, suite: str) -> int:
    """Rows of a task in the TD-MPC2 set for a suite: episodes x rows an episode."""
    if suite == "mt30":
        return 23_000 * 501
    return (40_000 if task.startswith("mw-") else 115_000) * 101


@cache
def figures() -> dict[tuple[str, str, str], Figure]:
    """All published figures, by (suite, method, task)."""
    source = resources.files("pwm.evaluation") / "published_scores.csv"
    with source.open(encoding="utf-8") as file:
        rows = [_figure(row) for row in csv.DictReader(file)]
    return {(row.suite, row.method, row.task): row for row in rows}


def figure(suite: str, method: str, task: str) -> Figure | None:
    """One published figure, or None where there is none."""
    return figures().get((suite, method, task))


def published_columns(
    suite: str, tasks: Sequence[str], methods: Sequence[str] = DEFAULT_COLUMNS
) -> list[Published]:
    """The published figures to set beside a run, a column a method.

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
    multi_task = "mt30" if in_mt30 else "mt80"
    columns = []
    for method in methods:
        if method not in _LABELS:
            raise PwmError(
                f"there are no published figures of method '{method}'; known are "
                f"{', '.join(METHODS)}."
            )
        source = "single-task" if method.endswith("single-task") else multi_task
        found = {task: row for task in tasks if (row := figure(source, method, task)) is not None}
        if found:
            differences = _differences(method, source, list(found.values()))
            columns.append(
                Published(method, source, _LABELS[method], differences, found, len(tasks))
            )
    return columns


def describe_differences(columns: Sequence[Published]) -> list[str]:
    """Sentences on how the columns differ from a run of this project; what they share comes first.

    Returns:
        ``"All: ..."`` if they share any, and then one a column; empty for no columns.
    """
    if not columns:
        return []
    shared = [
        text for text in columns[0].differences if all(text in c.differences for c in columns)
    ]
    sentences = []
    if len(columns) > 1 and shared:
        sentences.append(f"All: {'; '.join(shared)}.")
    else:
        shared = []
    for column in columns:
        own = [text for text in column.differences if text not in shared]
        if own:
            sentences.append(f"{column.label}: {'; '.join(own)}.")
    return sentences


def _differences(method: str, source: str, rows: Sequence[Figure]) -> tuple[str, ...]:
    seeds = "/".join(str(n) for n in sorted({row.seeds for row in rows}))
    steps = [row.env_steps for row in rows if row.env_steps is not None]
    differences = [_HOW[method]]
    if source in _DATA:
        differences.append(_DATA[source])
    if steps:
        span = f"{max(steps) / 1e6:g}"
        if min(steps) < max(steps):
            span = f"{min(steps) / 1e6:g} to {span}"
        differences.append(f"{span} million environment steps per task")
    if any(row.task.startswith("mw-") for row in rows):
        differences.append("Meta-World v2 where this project runs v3")
    differences.append(f"{seeds} seed{'' if seeds == '1' else 's'} by the authors' files")
    return tuple(differences)


def _figure(row: dict[str, str]) -> Figure:
    def number(key: str) -> float | None:
        return float(row[key]) if row[key] else None

    scored_by_success = row["task"].startswith("mw-")
    return Figure(
        suite=row["suite"],
        method=row["method"],
        task=row["task"],
        seeds=int(row["seeds"]),
        episode_return=number("episode_reward"),
        # The files say 0 for dm_control, where success is not defined.
        success=number("episode_success") if scored_by_success else None,
        normalized_score=float(row["normalized_score"]),
        env_steps=int(row["env_steps"]) if row["env_steps"] else None,
    )
