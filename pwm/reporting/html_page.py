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

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.protocols import describe_protocols
from pwm.evaluation.published_scores import (
    METHODS,
    Published,
    describe_differences,
    mark_rows,
    published_columns,
)
from pwm.evaluation.scores import DECISION_TIMES, METHOD_LABELS, Results
from pwm.evaluation.statistics import Interval
from pwm.reporting.run_figures import (
    data_figures,
    diagnostics_figures,
    extraction_figures,
    optional_object,
    pretraining_figures,
)
from pwm.reporting.svg import PALETTE
from pwm.reporting.templating import render

EMBED_LIMIT = 12 * 2**20
"""Bytes of videos and images put into the page; what does not fit is linked."""

PICTURE = "policies.png"
"""Of what the policies do, in a run's directory."""

_CARDS_UP_TO = 12  # tasks; more are drawn as compact rows
_MEDIA = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_STAGES = {"data": "Data", "world_model": "World model", "policies": "Policies", ".": "Evaluation"}
_COLOURS = {
    "planner+actor": "planner_actor",
    "pwm-48M": "published_a",
    "tdmpc2-48M": "published_b",
}
_SUBJECTS = {
    "extracted": "the extracted policies",
    "planner": "planning with the policy prior and Q ensemble",
    "planner+actor": "planning with the extracted actors and critics",
}


@dataclass(frozen=True)
class Method:
    """A row or column of the page: a method of the run, or a published one."""

    label: str  # for a reader
    colour: str  # a name in PALETTE
    scores: Mapping[str, float]  # normalized scores by task
    mean: float | None  # of the tasks that have one, or None
    interval: Interval | None = None  # of the mean, or None
    published: bool = False  # whether the scores are published ones

    def group_mean(self, tasks: Sequence[str]) -> float | None:
        """The mean over some tasks; None unless all have a score."""
        scores = [self.scores[task] for task in tasks if task in self.scores]
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
    tasks = results.task_names
    published = published_columns(results.suite, tasks, METHODS)
    marks, legend = mark_rows(results.setting, tasks, published) if published else ({}, None)
    times = optional_object(run / DECISION_TIMES) or {}
    context = {
        "results": results,
        "subject": _SUBJECTS.get(results.method, results.method),
        "methods": _methods(results, published),
        "decision_ms": {METHOD_LABELS.get(m, m): _number(ms) for m, ms in times.items()},
        "marks": marks,
        "legend": legend,
        "groups": _groups(tasks),
        "cards": len(tasks) <= _CARDS_UP_TO,
        "differences": describe_differences(published.values()),
        "published": list(published.values()),
        "stages": _stages(run),
        "settings": _flat(results.settings),
        "protocols": describe_protocols(results.setting.protocols),
        "pretraining": pretraining_figures(run),
        "extraction": extraction_figures(run, tasks),
        "diagnostics": diagnostics_figures(run, tasks),
        "data": data_figures(run, results),
        "picture": _picture(run / PICTURE),
        "media": _media(run, tasks),
        "embed_limit_mib": EMBED_LIMIT // 2**20,
        "palette": PALETTE,
    }
    path = run / "report.html"
    write_atomically(path, render("report.html.j2", context))
    return path


def _methods(results: Results, published: Mapping[str, Published]) -> list[Method]:
    own = [
        Method(
            METHOD_LABELS.get(name, name),
            colour if (colour := _COLOURS.get(name, name)) in PALETTE else "muted",
            {task: found.normalized_score for task, found in score.tasks.items()},
            score.mean_normalized_score,
            score.mean_ci95,
        )
        for name, score in results.methods.items()
    ]
    beside = [
        Method(column.label, _COLOURS[name], column.scores, column.mean, published=True)
        for name, column in published.items()
        if name in _COLOURS
    ]
    return own + beside


def _groups(tasks: Iterable[str]) -> dict[str, list[str]]:
    """The tasks by simulator family; empty where all are of one."""
    groups: dict[str, list[str]] = {"dm_control": [], "Meta-World": []}
    for task in tasks:
        groups["Meta-World" if task.startswith("mw-") else "dm_control"].append(task)
    return groups if all(groups.values()) else {}


def _stages(run: Path) -> list[dict[str, Any]]:
    """Facts, settings and times that the run's stages recorded."""
    stages = []
    for folder, label in _STAGES.items():
        facts = optional_object(run / folder / "run.json")
        config = run / folder / "config.yaml"
        text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
        if facts is not None or text is not None:
            facts = facts or {}
            seconds, revision = _number(facts.get("seconds")), facts.get("git")
            stage = {"label": label, "facts": _flat(facts), "config": text}
            stages.append({**stage, "revision": revision, "seconds": seconds})
    return stages


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys and readable values."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
    flat: dict[str, str] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _picture(path: Path) -> str | None:
    return _address(path) if path.is_file() else None


def _address(path: Path) -> str:
    """A media file's content as the source of an image or a video."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{_MEDIA[path.suffix.lower()]};base64,{content}"


def _media(run: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Videos and pictures of evaluation episodes, in the order of the tasks."""
    order = {task: i for i, task in enumerate(tasks)}
    files = [p for p in (run / "videos").glob("*") if p.suffix.lower() in _MEDIA and p.is_file()]
    files.sort(key=lambda p: (order.get(_task_of(p), len(order)), p.name))
    items, used = [], 0
    for path in files:
        kind = _MEDIA[path.suffix.lower()]
        size = path.stat().st_size
        source = f"videos/{quote(path.name)}"
        embedded = used + size <= EMBED_LIMIT
        if embedded:
            used += size
            source = _address(path)
        item = {"title": path.stem, "task": _task_of(path), "source": source, "embedded": embedded}
        items.append({**item, "video": kind.startswith("video")})
    return {"items": items, "linked": sum(not item["embedded"] for item in items)}


def _task_of(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0]
