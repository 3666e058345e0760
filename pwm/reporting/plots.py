"""Small plots of learning curves, diagnostics, returns and scores by round, as inline SVG.

Every ``alt`` is what a screen reader says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from pwm.reporting.svg import COLOURS, FONT, axes, inline, styled

_GRID_COLUMNS = 6
_GRID_FONT = 7.5
_MAX_POINTS = 200
_LABEL_ALL = 8  # with more lines than this only the outliers get a label
_OUTLIERS = 3


@dataclass(frozen=True)
class Curve:
    """Values of a metric over steps: two arrays (n,)."""

    step: np.ndarray
    value: np.ndarray

    def thinned(self) -> Curve:
        """At most 200 points, each the mean of neighbouring ones; without non-finite values."""
        finite = np.isfinite(self.value)
        points = np.stack([self.step[finite], self.value[finite]])
        if points.shape[1] > _MAX_POINTS:
            groups = np.array_split(points, _MAX_POINTS, axis=1)
            points = np.stack([group.mean(1) for group in groups], 1)
        return Curve(*points)


@styled
def curves_plot(curves: Sequence[Curve], alt: str) -> str:
    """Learning curves, the last value written at the end: one, or each thin and the median bold.

    Args:
        curves: what to draw; the axis is logarithmic where values are positive and span over 30x.
        alt: a description.
    """
    thinned = [c for c in (curve.thinned() for curve in curves) if len(c.value)]
    ax = axes(right=0.86)
    if thinned:
        for curve in thinned if len(curves) > 1 else ():
            _thin_line(ax, curve.step, curve.value, 0.7, len(thinned))
        step = max((curve.step for curve in thinned), key=len)
        rows = [np.interp(step, c.step, c.value, left=np.nan, right=np.nan) for c in thinned]
        median = _median(np.array(rows))
        ax.plot(step, median, color=COLOURS["extracted"], linewidth=1.8 if len(curves) > 1 else 1.6)
        values = np.concatenate([curve.value for curve in thinned])
        if values.min() > 0 and values.max() > 30 * values.min():
            ax.set_yscale("log")
            ax.yaxis.set_minor_locator(NullLocator())
        _end_label(ax, step[-1], median[-1], "extracted")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("updates")
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4))
    return inline(ax.figure, alt)


@dataclass(frozen=True)
class Band:
    """A line and the interval around it, (n,) each, in a colour of `COLOURS`."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colour: str


@styled
def bands_plot(bands: Mapping[str, Band], xlabel: str, alt: str, logarithmic: bool = False) -> str:
    """Lines with intervals, each with its name and last value at its end.

    Args:
        bands: by name; what is not finite is left out of a line.
        xlabel: what the lines are over.
        alt: a description.
        logarithmic: whether values are drawn by their order of magnitude.
    """
    ax = axes(right=0.74, size=(400, 220))
    if logarithmic:
        ax.set_yscale("log")
    for band in bands.values():
        colour = COLOURS[band.colour]
        ax.fill_between(band.x, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(band.x, band.value, color=colour, linewidth=1.6)
    ends = {name: float(band.value[-1]) for name, band in bands.items() if len(band.value)}
    labels = {n: (v, bands[n].colour) for n, v in ends.items() if np.isfinite(v)}
    if logarithmic:
        for name, (value, colour) in labels.items():
            _end_label(ax, bands[name].x[-1], value, colour, f"{name} ")
    else:
        _spread_labels(ax, max(band.x[-1] for band in bands.values()), labels)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel(xlabel)
    return inline(ax.figure, alt)


@styled
def horizon_plot(
    steps: Sequence[int], lines: dict[str, list[float]], low_is_good: bool, alt: str
) -> str:
    """A diagnostic at several prediction horizons, a line per task, the median bold.

    Up to eight tasks are all labelled at the line's end; of more, the three worst.

    Args:
        steps: the horizons, ascending.
        lines: by task, a value per horizon; NaN where it is not known.
        low_is_good: which end counts as worst.
        alt: a description.
    """
    ax = axes(right=0.56, size=(440, 240))
    x = np.arange(len(steps))
    for values in lines.values():
        _thin_line(ax, x, values, 0.9, len(lines))
    ends = {name: values[-1] for name, values in lines.items() if np.isfinite(values[-1])}
    worst = sorted(ends, key=lambda name: ends[name], reverse=low_is_good)
    labelled = worst if len(worst) <= _LABEL_ALL else worst[:_OUTLIERS]
    labels = {name: (ends[name], "muted") for name in labelled}
    if len(lines) > 2:
        median = _median(np.array(list(lines.values()), float))
        ax.plot(x, median, color=COLOURS["extracted"], linewidth=2)
        if np.isfinite(median[-1]):
            labels["median"] = (float(median[-1]), "extracted")
    if low_is_good:
        ax.set_ylim(bottom=0)
    _spread_labels(ax, x[-1], labels)
    ax.xaxis.set_major_locator(FixedLocator(x.tolist()))
    ax.set_xticklabels([str(step) for step in steps])
    ax.set_xlabel("steps ahead")
    return inline(ax.figure, alt)


@styled
def rounds_plot(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, mark: float | None, alt: str
) -> str:
    """A score by round with its interval, and PWM's published score as a dashed line.

    Args:
        values: (rounds,) scores 0..100.
        low: (rounds,) lower ends of their intervals.
        high: (rounds,) upper ends.
        mark: the published score, or None.
        alt: a description.
    """
    ax = axes(right=0.88)
    x = np.arange(len(values))
    ax.fill_between(x, low, high, color=COLOURS["extracted"], alpha=0.15, linewidth=0)
    ax.plot(x, values, color=COLOURS["extracted"], linewidth=1.6, marker="o", markersize=3)
    _end_label(ax, x[-1], values[-1], "extracted")
    if mark is not None:
        ax.axhline(mark, color=COLOURS["published_a"], linewidth=1, linestyle="--")
        ax.annotate(
            f"-- PWM 48M, published {_number(mark)}",
            (0.98, 0.05),  # scores that grow leave this corner empty
            xycoords="axes fraction",
            ha="right",
            color=COLOURS["published_a"],
        )
    ax.set_ylim(min(0.0, float(low.min())), max(105.0, float(high.max())))
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlabel("round")
    return inline(ax.figure, alt)


@styled
def rounds_grid(
    panels: Mapping[str, Sequence[np.ndarray]], marks: Mapping[str, float | None], alt: str
) -> str:
    """Scores by round of many tasks, one panel each and in it a line per seed.

    Args:
        panels: by title, (rounds,) scores 0..100 of each seed.
        marks: by title, a published score, drawn as a dashed line.
        alt: a description.
    """
    columns = min(_GRID_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = 150 * columns, 100 * rows
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    last = max(len(values) for lines in panels.values() for values in lines) - 1
    margin = 0.02 * last or 0.057
    figure.subplots_adjust(28 / width, 18 / height, 0.99, 1 - 16 / height, 0.12, 0.35)
    for number, (ax, (title, lines)) in enumerate(zip(grid, panels.items(), strict=False)):
        mark = marks.get(title)
        if mark is not None:
            ax.axhline(mark, color=COLOURS["published_a"], linewidth=0.8, linestyle="--")
        for values in lines:
            x = np.arange(len(values))
            ax.plot(x, values, color=COLOURS["extracted"], linewidth=1.1, marker="o", markersize=2)
        ax.set_title(title, fontsize=_GRID_FONT)
        ax.set_xlim(-margin, last + margin)  # matplotlib's shared axes take quadratically long
        ax.set_ylim(-4, 104)
        ax.set_yticks([0, 50, 100])
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        lowest = number >= len(panels) - columns  # also above a gap in the last row
        leftmost = number % columns == 0
        ax.tick_params(labelsize=_GRID_FONT, labelbottom=lowest, labelleft=leftmost)
    for ax in grid[len(panels) :]:
        ax.set_axis_off()
    return inline(figure, alt)


@styled
def histogram_plot(values: np.ndarray, marker: float | None, alt: str) -> str:
    """A histogram of episode returns, with the policy's mean return marked.

    Args:
        values: (episodes,) returns.
        marker: the policy's mean return, or None.
        alt: a description.
    """
    ax = axes(size=(330, 150))
    ax.stairs(*np.histogram(values, bins=24), fill=True, color=COLOURS["data_mean"])
    if marker is not None:
        ax.axvline(marker, color=COLOURS["extracted"], linewidth=1.8)
        rightmost = marker > sum(ax.get_xlim()) / 2
        ax.annotate(
            f"policy {_number(marker)}",
            (marker, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if rightmost else 4, 0),
            textcoords="offset points",
            ha="right" if rightmost else "left",
            va="top",
            color=COLOURS["extracted"],
        )
    ax.set_xlabel("episode return")
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return inline(ax.figure, alt)


def _thin_line(
    ax: Axes, x: np.ndarray, y: np.ndarray | list[float], width: float, lines: int
) -> None:
    """One of many lines in grey."""
    ax.plot(x, y, color=COLOURS["muted"], linewidth=width, alpha=0.55 if lines <= 12 else 0.25)


def _end_label(ax: Axes, x: float, y: float, colour: str, name: str = "") -> None:
    """The value of a line's last point, beside it, behind the line's name."""
    ax.annotate(
        name + _number(y),
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=COLOURS[colour],
        annotation_clip=False,
    )


def _spread_labels(ax: Axes, x: float, labels: dict[str, tuple[float, str]]) -> None:
    """Labels at the right of their values, moved apart where they would overlap."""
    if not labels:
        return
    low, high = ax.get_ylim()
    gap = (high - low) * (FONT + 2) / ax.get_window_extent().height
    names = sorted(labels, key=lambda name: labels[name][0])
    places: list[float] = []
    for name in names:
        places.append(max(labels[name][0], places[-1] + gap if places else low))
    limit = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    for name, place in zip(names, places, strict=True):
        value, colour = labels[name]
        ax.annotate(
            f"{name}  {_number(value)}".replace("$", r"\$"),  # no mathematics in names
            (x, value),
            xytext=(1.03, place),
            textcoords=("axes fraction", "data"),
            va="center",
            color=COLOURS[colour],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS["rule"],
                "linewidth": 0.7,
                "shrinkA": 0,
            },
        )
    ax.set_ylim(low, high)


def _median(rows: np.ndarray) -> np.ndarray:
    """Over rows (n, points), of what is finite; NaN where nothing is."""
    finite = (column[np.isfinite(column)] for column in rows.T)
    return np.array([np.median(column) if len(column) else np.nan for column in finite])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
