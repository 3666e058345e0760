"""Figures of a run's training, world model and data, for its page.

Each function gives None, or nothing, where the run does not have the files that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pwm.core.errors import PwmError
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import Results, read_json
from pwm.reporting import plots
from pwm.runtime.grouped import is_grouped, read_members

_PRIMARY_CURVES = ("imagined_return", "return", "actor_loss")


def pretraining_figures(run: Path) -> list[dict[str, Any]]:
    """Every metric of pretraining, losses first; those of every task in one figure."""
    whole: dict[str, list[plots.Curve]] = {}
    by_metric: dict[str, list[plots.Curve]] = {}
    for directory in _world_models(run / "world_model"):
        for key, curve in _curves(directory / "metrics.jsonl").items():
            _, slash, metric = key.partition("/")
            if slash:
                by_metric.setdefault(f"{metric} of every task", []).append(curve)
            else:
                whole.setdefault(key, []).append(curve)
    figures = {key: (whole[key], key) for key in sorted(whole, key=lambda k: "loss" not in k)}
    figures |= {title: (curves, f"{title}, and the median") for title, curves in by_metric.items()}
    return [
        {
            "title": title,
            "main": "loss" in title and title in whole,
            "svg": Markup(plots.curves_plot(curves, f"{name} while pretraining")),
        }
        for title, (curves, name) in figures.items()
    ]


def _world_models(path: Path) -> list[Path]:
    """Where the metrics of pretraining are: one place, or one per world model of a group."""
    return [member.path for member in read_members(path)] if is_grouped(path) else [path]


def extraction_figures(run: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    """The primary metric of extraction per task, and of each other one all tasks in a figure."""
    by_metric: dict[str, dict[str, plots.Curve]] = {}
    for path in sorted((run / "policies").rglob("metrics.jsonl")):  # tasks may be in groups
        for key, curve in _curves(path).items():
            task, slash, metric = key.partition("/")
            if slash and task in tasks:
                by_metric.setdefault(metric, {})[task] = curve
    if not by_metric:
        return None
    primary = next((name for name in _PRIMARY_CURVES if name in by_metric), next(iter(by_metric)))
    shown = by_metric.pop(primary)
    drawn = {
        task: plots.curves_plot([shown[task]], f"{primary} on {task} by updates")
        for task in tasks
        if task in shown
    }
    overlays = {
        metric: plots.curves_plot(list(curves.values()), f"{metric} of every task, and the median")
        for metric, curves in by_metric.items()
    }
    return {"primary": primary, "tasks": _panels(drawn), "overlays": _panels(overlays)}


def _panels(drawings: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"title": title, "svg": Markup(svg)} for title, svg in drawings.items()]


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
                f"{path} line {number} is malformed ({error}); expected one JSON object per line "
                "with a 'step'. Remove the line, or the file, and write the report again."
            ) from error
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(key, []).append((step, float(value)))
    ordered = {key: sorted(points, key=lambda point: point[0]) for key, points in series.items()}
    return {key: plots.Curve(*np.array(points).T) for key, points in ordered.items()}


def diagnostics_figures(run: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    """The world model's open-loop errors by steps ahead: values per task and two figures.

    Raises:
        PwmError: if the diagnostics are malformed.
    """
    path = run / "world_model" / "diagnostics.json"
    data = optional_object(path)
    if data is None:
        return None
    try:
        steps = [int(step) for step in data["steps"]]
        known: Mapping[str, Any] = data["tasks"]
        names = [*(t for t in tasks if t in known), *(t for t in known if t not in tasks)]
        steps = [k for k in steps if any(str(k) in known[n]["latent_error"] for n in names)]
        error = {name: _at(known[name]["latent_error"], steps) for name in names}
        r2 = {name: _at(known[name]["reward_r2"], steps) for name in names}
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise PwmError(
            f"{path} is malformed ({problem}); expected 'steps' and, by task, 'latent_error' and "
            "'reward_r2' by step. Remove it, or pretrain again."
        ) from problem
    if not names or not steps:
        return None
    where = "on held-out episodes by steps ahead, a line per task"
    error_svg = plots.horizon_plot(steps, error, low_is_good=True, alt=f"Latent error {where}")
    r2_svg = plots.horizon_plot(steps, r2, low_is_good=False, alt=f"Reward R2 {where}")
    return {
        "steps": steps,
        "latent_error": error,
        "reward_r2": r2,
        "error_svg": Markup(error_svg),
        "r2_svg": Markup(r2_svg),
    }


def _at(values: Mapping[str, Any], steps: Sequence[int]) -> list[float]:
    """The value per step; NaN where it is absent or not finite."""
    found = (values.get(str(step)) for step in steps)
    numbers = (float("nan") if value is None else float(value) for value in found)
    return [value if np.isfinite(value) else float("nan") for value in numbers]


def data_figures(run: Path, results: Results) -> dict[str, Any] | None:
    """Histograms of the returns in a run's episode store, per task; or why it cannot be read."""
    if not (run / "data" / "manifest.json").is_file():
        return None
    try:
        store = EpisodeStore.open(run / "data")
        returns = {task: np.asarray(store.episodes(task)["return"]) for task in store.suite.names}
    except PwmError as error:
        return {"error": str(error), "tasks": []}
    tasks = []
    for task, values in returns.items():
        values = values[np.isfinite(values)]
        if len(values):
            score = results.policy.tasks.get(task)
            alt = f"Histogram of {len(values)} episode returns in the data of {task}"
            svg = plots.histogram_plot(values, score.episode_return if score else None, alt)
            tasks.append({"title": task, "episodes": len(values), "svg": Markup(svg)})
    return {"error": None, "tasks": tasks}


def optional_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file.

    Raises:
        PwmError: if the file is malformed.
    """
    if not path.is_file():
        return None
    value = read_json(path, "remove it, or run that stage again")
    if not isinstance(value, dict):
        raise PwmError(f"{path} does not hold a JSON object; remove it, or run that stage again.")
    return value
