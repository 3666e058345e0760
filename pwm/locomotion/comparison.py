"""What runs of several methods come to: tables, curves, and a page of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pwm.core.files import write_atomically
from pwm.evaluation.statistics import Interval, iqm, iqm_interval
from pwm.locomotion.methods import LABELS
from pwm.locomotion.published import Published, published_curves
from pwm.locomotion.training import Curve
from pwm.reporting.plots import Band, bands_plot
from pwm.reporting.svg import PALETTE, standalone
from pwm.reporting.templating import markdown_table, render

COLOURS = {"pwm": "extracted", "shac": "bc_best", "ppo": "planner", "sac": "published_a"}
_TIMES = 40  # points of a curve over seconds


@dataclass(frozen=True)
class Comparison:
    """Runs of methods on tasks.

    Attributes:
        curves: by task and method, one per seed.
        left_out: by task, the methods that it does not allow, and why.
        steps: that the runs were to have.
    """

    curves: Mapping[str, Mapping[str, Sequence[Curve]]]
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    steps: int = 0


@dataclass(frozen=True)
class Line:
    """A method's returns over steps or seconds: interquartile means over seeds, (n,) each."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, returns: np.ndarray) -> Line:
        """Of returns (seeds, n); with one seed there is no interval, and it is the line itself."""
        value = np.array([iqm(column) for column in returns.T])
        spans = [_interval(column) for column in returns.T]
        low = np.array([v if s is None else s[0] for v, s in zip(value, spans, strict=True)])
        high = np.array([v if s is None else s[1] for v, s in zip(value, spans, strict=True)])
        return cls(x, value, low, high)


def by_steps(curves: Sequence[Curve]) -> Line:
    """A method's line over steps, at the evaluations that all seeds have."""
    count = min(len(curve.steps) for curve in curves)
    returns = np.stack([curve.means[:count] for curve in curves])
    return Line.of(np.array(curves[0].steps[:count], float), returns)


def by_seconds(curves: Sequence[Curve], until: float) -> Line:
    """A method's line over seconds of learning, each time with the last evaluation before it."""
    times = np.linspace(0.0, until, _TIMES)
    return Line.of(times, np.stack([_at(curve, times) for curve in curves]))


def common_time(methods: Mapping[str, Sequence[Curve]]) -> float:
    """Seconds that every run of a task has learned."""
    return min(curve.seconds[-1] for curves in methods.values() for curve in curves)


def _at(curve: Curve, times: np.ndarray) -> np.ndarray:
    last = np.searchsorted(curve.seconds, times, side="right") - 1
    return curve.means[last.clip(0)]


def _interval(column: np.ndarray) -> Interval | None:
    if np.ptp(column) == 0:
        return float(column[0]), float(column[0])
    return iqm_interval(column[:, np.newaxis])


def summary(comparison: Comparison) -> dict[str, Any]:
    """All figures as plain data: by task and method, at equal steps and at equal time."""
    found: dict[str, Any] = {}
    for task, methods in comparison.curves.items():
        until = common_time(methods)
        rows = {}
        for method, curves in methods.items():
            last = [curve.means[-1] for curve in curves]
            steps = by_steps(curves)
            times = by_seconds(curves, until)
            rows[method] = {
                "seeds": len(curves),
                "final_returns": last,
                "steps": curves[0].steps[-1],
                "at_equal_steps": _end(steps),
                "at_equal_seconds": _end(times),
                "seconds": float(np.mean([curve.seconds[-1] for curve in curves])),
                "cpu_seconds": float(np.mean([curve.cpu_seconds[-1] for curve in curves])),
                "over_steps": _plain(steps),
                "over_seconds": _plain(times),
            }
        found[task] = {
            "equal_seconds": until,
            "methods": rows,
            "left_out": dict(comparison.left_out.get(task, {})),
        }
    return found


def _end(line: Line) -> dict[str, float]:
    return {"iqm": float(line.value[-1]), "low": float(line.low[-1]), "high": float(line.high[-1])}


def _plain(line: Line) -> dict[str, list[float]]:
    return {
        "x": line.x.tolist(),
        "iqm": line.value.tolist(),
        "low": line.low.tolist(),
        "high": line.high.tolist(),
    }


def tables(found: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """By task, a table of its methods, the head first."""
    made = {}
    for task, entry in found.items():
        until = entry["equal_seconds"]
        head = ["method", "seeds", "steps", "return, equal steps"]
        head += [f"return, equal time ({until:,.0f} s)", "learning, s", "processor, s"]
        rows = [
            [
                LABELS[method],
                str(row["seeds"]),
                f"{row['steps']:,}",
                _span(row["at_equal_steps"]),
                _span(row["at_equal_seconds"]),
                f"{row['seconds']:,.0f}",
                f"{row['cpu_seconds']:,.0f}",
            ]
            for method, row in entry["methods"].items()
        ]
        made[task] = [head, *rows]
    return made


def printed(found: Mapping[str, Any]) -> Iterator[Table]:
    """Of a :func:`summary` the table of each task, for a terminal."""
    for task, (head, *rows) in tables(found).items():
        table = Table(*head, title=task, box=SIMPLE_HEAD)
        for row in rows:
            table.add_row(*row)
        yield table


def _span(end: Mapping[str, float]) -> str:
    return f"{end['iqm']:z,.1f} ({end['low']:z,.1f} to {end['high']:z,.1f})"


def pictures(comparison: Comparison) -> dict[str, dict[str, str]]:
    """By task, the curves over steps and over seconds, as inline drawings."""
    made = {}
    for task, methods in comparison.curves.items():
        until = common_time(methods)
        steps = {LABELS[m]: _band(by_steps(curves), m) for m, curves in methods.items()}
        times = {LABELS[m]: _band(by_seconds(curves, until), m) for m, curves in methods.items()}
        made[task] = {
            "steps": bands_plot(steps, "steps", f"returns on {task} by steps"),
            "seconds": bands_plot(times, "seconds of learning", f"returns on {task} by time"),
        }
    return made


def _band(line: Line, method: str) -> Band:
    return Band(line.x, line.value, line.low, line.high, COLOURS[method])


def write_comparison(comparison: Comparison, found: Mapping[str, Any], out: Path) -> Path:
    """Write ``comparison.json``, ``comparison.md``, pictures and the page; the page's path.

    Args:
        comparison: the runs.
        found: their :func:`summary`.
        out: where to.
    """
    made, drawn = tables(found), pictures(comparison)
    write_atomically(out / "comparison.json", json.dumps(found, indent=1).encode())
    parts = []
    for task, table in made.items():
        left = "".join(f"\n{m} is left out: {why}.\n" for m, why in found[task]["left_out"].items())
        parts.append(f"## {task}\n\n{markdown_table(table)}\n{left}")
    write_atomically(out / "comparison.md", "\n".join(parts).encode())
    for task, own in drawn.items():
        for kind, drawing in own.items():
            write_atomically(out / f"{task}-{kind}.svg", standalone(drawing).encode())
    published: dict[str, list[Published]] = {task: published_curves(task) for task in made}
    page = out / "comparison.html"
    context = {
        "tables": made,
        "pictures": {
            task: {kind: Markup(drawing) for kind, drawing in own.items()}
            for task, own in drawn.items()
        },
        "left_out": {task: entry["left_out"] for task, entry in found.items()},
        "published": published,
        "palette": PALETTE,
    }
    write_atomically(page, render("comparison.html.j2", context))
    return page
