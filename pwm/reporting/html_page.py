"""A run as one self-contained HTML page: what was run, how it scored, how it learned.

Everything is embedded, so the page works offline and can be mailed; only videos beyond a size cap
are linked instead. The page holds no clock: the same run gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.published_scores import (
    METHODS,
    Published,
    describe_differences,
    describe_marks,
    marks,
    published_columns,
)
from pwm.evaluation.scores import (
    DECISION_TIMES,
    METHOD_LABELS,
    Interval,
    Results,
    TaskScore,
    read_json,
)
from pwm.reporting import plots

EMBED_LIMIT = 12 * 2**20
"""Bytes of videos and images put into the page; what does not fit is linked."""

_CARDS_UP_TO = 12  # tasks; more are drawn as compact rows
_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_STAGES = {"data": "Data", "world_model": "World model", "policies": "Policies", ".": "Evaluation"}
_PUBLISHED_COLOURS = {"pwm-48M": "published_a", "tdmpc2-48M": "published_b"}  # those with bars
_OWN_COLOURS = {"planner+actor": "planner_actor"}
_SUBJECTS = {
    "extracted": "the extracted policies",
    "planner": "planning with the policy prior and Q ensemble",
    "planner+actor": "planning with the extracted actors and critics",
}
_PRIMARY_CURVES = ("imagined_return", "return", "actor_loss")


@dataclass(frozen=True)
class Agent:
    """A row or column of the page: a method of the run, or a published one."""

    label: str
    colour: str
    scores: Mapping[str, TaskScore | float | None]
    mean: float | None
    interval: Interval | None
    published: bool = False

    def score(self, task: str) -> float | None:
        """The normalized score of a task, or None."""
        entry = self.scores.get(task)
        return entry.normalized_score if isinstance(entry, TaskScore) else entry

    def group_mean(self, tasks: Sequence[str]) -> float | None:
        """The mean over some tasks; None unless all have a score."""
        scores = [score for task in tasks if (score := self.score(task)) is not None]
        return float(np.mean(scores)) if tasks and len(scores) == len(tasks) else None


def report(run_dir: str | Path) -> Path:
    """Write RUN/report.html from what a run directory holds.

    Only ``results.json`` is needed. Each other part (metrics, diagnostics, data, videos) is shown
    where its files exist; otherwise the page says which command makes them.

    Args:
        run_dir: the run directory.

    Returns:
        The path of the page.

    Raises:
        PwmError: if the directory or its results are absent, or a file in it is malformed.
    """
    run = Path(run_dir)
    if not run.is_dir():
        raise PwmError(
            f"there is no run directory {run}; give the directory that `pwm evaluate` wrote into."
        )
    results = Results.load(run / "results.json")
    everything = published_columns(results.suite, results.task_names, METHODS)
    times = _optional_object(run / DECISION_TIMES) or {}
    context = {
        "results": results,
        "subject": _SUBJECTS.get(results.method, results.method),
        "methods": _methods(results, everything),
        "decision_ms": {METHOD_LABELS.get(m, m): _number(ms) for m, ms in times.items()},
        **_marks(results, everything),
        "groups": _groups(results.task_names),
        "cards": len(results.task_names) <= _CARDS_UP_TO,
        "differences": describe_differences(everything),
        "published": everything,
        "stages": _stages(run),
        "settings": _flat(results.settings),
        "pretraining": _pretraining(run),
        "extraction": _extraction(run, results.task_names),
        "diagnostics": _diagnostics(run, results.task_names),
        "data": _data(run, results),
        "media": _media(run, results.task_names),
        "embed_limit_mib": EMBED_LIMIT // 2**20,
        "palette": plots.PALETTE,
    }
    page = _environment().get_template("report.html.j2").render(context)
    path = run / "report.html"
    write_atomically(path, page.encode("utf-8"))
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pwm.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        fixed=_fixed, span=_span, percent=_percent, duration=_duration, css=_css_name
    )
    return environment


# Scores


def _methods(results: Results, columns: Sequence[Published]) -> list[Agent]:
    own = [
        Agent(
            METHOD_LABELS.get(name, name),
            colour if (colour := _OWN_COLOURS.get(name, name)) in plots.PALETTE else "muted",
            score.tasks,
            score.mean_normalized_score,
            score.mean_ci95,
        )
        for name, score in results.methods.items()
    ]
    theirs = [
        Agent(
            column.label,
            _PUBLISHED_COLOURS[column.method],
            {task: column.score(task) for task in results.task_names},
            column.mean,
            None,
            published=True,
        )
        for column in columns
        if column.method in _PUBLISHED_COLOURS
    ]
    return [*own, *theirs]


def _marks(results: Results, columns: Sequence[Published]) -> dict[str, Any]:
    """In what each row differs from the published multi-task figures, and what the letters mean."""
    if not columns:
        return {"marks": {}, "legend": None}
    found = {task: marks(results.setting, task, columns[0].suite) for task in results.task_names}
    legend = describe_marks(results.setting, "".join(found.values()))
    return {"marks": found, "legend": legend}


def _groups(tasks: Iterable[str]) -> dict[str, list[str]]:
    """The tasks by simulator family; empty where all are of one."""
    groups: dict[str, list[str]] = {"dm_control": [], "Meta-World": []}
    for task in tasks:
        groups["Meta-World" if task.startswith("mw-") else "dm_control"].append(task)
    return groups if all(groups.values()) else {}


# What was run


def _stages(run: Path) -> list[dict[str, Any]]:
    stages = []
    for folder, label in _STAGES.items():
        facts = _optional_object(run / folder / "run.json")
        config = run / folder / "config.yaml"
        text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
        if facts is not None or text is not None:
            facts = facts or {}
            stages.append(
                {
                    "label": label,
                    "folder": folder,
                    "facts": _flat(facts),
                    "config": text,
                    "revision": facts.get("git"),
                    "seconds": _number(facts.get("seconds")),
                }
            )
    return stages


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys and readable values."""
    if not isinstance(value, Mapping):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return {prefix: text}
    flat: dict[str, str] = {}
    for key, entry in value.items():
        flat.update(_flat(entry, f"{prefix}.{key}" if prefix else str(key)))
    return flat


# Learning curves


def _pretraining(run: Path) -> list[dict[str, Any]]:
    curves = _curves(run / "world_model" / "metrics.jsonl")
    losses_first = sorted(curves, key=lambda key: "loss" not in key)
    return [
        {
            "title": key,
            "main": "loss" in key,
            "svg": Markup(plots.curve_plot(curves[key], "extracted", f"{key} while pretraining")),
        }
        for key in losses_first
    ]


def _extraction(run: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    by_metric: dict[str, dict[str, plots.Curve]] = {}
    for path in sorted((run / "policies").rglob("metrics.jsonl")):  # tasks may be in groups
        for key, curve in _curves(path).items():
            task, slash, metric = key.partition("/")
            if slash and task in tasks:
                by_metric.setdefault(metric, {})[task] = curve
    if not by_metric:
        return None
    primary = next((name for name in _PRIMARY_CURVES if name in by_metric), next(iter(by_metric)))
    per_task = [
        {
            "title": task,
            "svg": Markup(
                plots.curve_plot(
                    by_metric[primary][task], "extracted", f"{primary} on {task} by updates"
                )
            ),
        }
        for task in tasks
        if task in by_metric[primary]
    ]
    overlays = [
        {
            "title": metric,
            "svg": Markup(
                plots.overlay_plot(list(curves.values()), f"{metric} of every task, and the median")
            ),
        }
        for metric, curves in by_metric.items()
        if metric != primary
    ]
    return {"primary": primary, "tasks": per_task, "overlays": overlays}


def _curves(path: Path) -> dict[str, plots.Curve]:
    """The numeric series of a metrics.jsonl by key; an unfinished last line is left out."""
    if not path.is_file():
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step = float(row.pop("step"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if number == len(lines):
                break
            raise PwmError(
                f"{path} line {number} is malformed ({error}); expected one JSON object a line "
                "with a 'step'. Remove the line, or the file, and write the report again."
            ) from error
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(key, []).append((step, float(value)))
    return {key: _curve(points) for key, points in series.items()}


def _curve(points: list[tuple[float, float]]) -> plots.Curve:
    array = np.array(points)
    array = array[np.argsort(array[:, 0], kind="stable")]
    return plots.Curve(array[:, 0], array[:, 1])


# World-model diagnostics


def _diagnostics(run: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    path = run / "world_model" / "diagnostics.json"
    data = _optional_object(path)
    if data is None:
        return None
    try:
        steps = [int(step) for step in data["steps"]]
        known: Mapping[str, Any] = data["tasks"]
        names = [*(t for t in tasks if t in known), *(t for t in known if t not in tasks)]
        error = {name: _at(known[name]["latent_error"], steps) for name in names}
        r2 = {name: _at(known[name]["reward_r2"], steps) for name in names}
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise PwmError(
            f"{path} is malformed ({problem}); expected 'steps' and, by task, 'latent_error' and "
            "'reward_r2' by step. Remove it, or pretrain again."
        ) from problem
    if not names or not steps:
        return None
    error_alt = "Latent error on held-out episodes by steps ahead, a line a task"
    r2_alt = "Reward R2 on held-out episodes by steps ahead, a line a task"
    return {
        "steps": steps,
        "latent_error": error,
        "reward_r2": r2,
        "error_svg": Markup(plots.horizon_plot(steps, error, low_is_good=True, alt=error_alt)),
        "r2_svg": Markup(plots.horizon_plot(steps, r2, low_is_good=False, alt=r2_alt)),
    }


def _at(values: Mapping[str, Any], steps: Sequence[int]) -> list[float]:
    """The value a step; NaN where it is absent or not finite."""
    found = (values.get(str(step)) for step in steps)
    numbers = (float("nan") if value is None else float(value) for value in found)
    return [value if np.isfinite(value) else float("nan") for value in numbers]


# Data


def _data(run: Path, results: Results) -> dict[str, Any] | None:
    if not (run / "data" / "manifest.json").is_file():
        return None
    from pwm.data.store import EpisodeStore

    try:
        store = EpisodeStore.open(run / "data")
        returns = {task: np.asarray(store.episodes(task)["return"]) for task in store.suite.names}
    except PwmError as error:
        return {"error": str(error), "tasks": []}
    tasks = []
    for task, values in returns.items():
        values = values[np.isfinite(values)]
        score = results.policy.tasks.get(task)
        if len(values):
            alt = f"Histogram of {len(values)} episode returns in the data of {task}"
            marker = None if score is None else score.episode_return
            svg = Markup(plots.histogram_plot(values, marker, alt))
            tasks.append({"title": task, "episodes": len(values), "svg": svg})
    return {"error": None, "tasks": tasks}


# Videos


def _media(run: Path, tasks: Sequence[str]) -> dict[str, Any]:
    folder = run / "videos"
    order = {task: i for i, task in enumerate(tasks)}
    files = [p for p in folder.glob("*") if p.suffix.lower() in _MEDIA_TYPES and p.is_file()]
    files.sort(key=lambda p: (order.get(_task_of(p), len(order)), p.name))
    items, used = [], 0
    for path in files:
        kind = _MEDIA_TYPES[path.suffix.lower()]
        size = path.stat().st_size
        embedded = used + size <= EMBED_LIMIT
        used += size if embedded else 0
        items.append(
            {
                "title": path.stem,
                "task": _task_of(path),
                "video": kind.startswith("video"),
                "embedded": embedded,
                "source": _data_uri(path, kind) if embedded else f"videos/{quote(path.name)}",
            }
        )
    return {"items": items, "linked": sum(not item["embedded"] for item in items)}


def _task_of(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0]


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


# Shared


def _optional_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path, "remove it, or run that stage again")
    if not isinstance(value, dict):
        raise PwmError(f"{path} does not hold a JSON object; remove it, or run that stage again.")
    return value


def _fixed(value: float | None, digits: int = 1) -> str:
    return "\N{EN DASH}" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def _span(interval: Interval | None) -> str:
    return "\N{EN DASH}" if interval is None else f"{interval[0]:,.1f} to {interval[1]:,.1f}"


def _percent(value: float | None) -> str:
    """A score as a place on the 0..100 axis."""
    return f"{min(max(value or 0.0, 0.0), 100.0):.2f}%"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _css_name(colour: str) -> str:
    return colour.replace("_", "-")
