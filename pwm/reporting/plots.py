"""Small plots as inline SVG that follow the page's light or dark colours.

Matplotlib draws in the light colours of PALETTE; each is then replaced by the CSS variable of that
name, so that one drawing serves both colour schemes. Text stays text.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

PALETTE: dict[str, tuple[str, str]] = {  # name: (light, dark)
    "ink": ("#1c2127", "#e6e9ed"),
    "muted": ("#5f6873", "#9aa4b0"),
    "rule": ("#dfe3e8", "#30363e"),
    "extracted": ("#0b63b0", "#5aaaf2"),
    "planner": ("#0d8f8f", "#45c4c0"),
    "planner_actor": ("#4a55c4", "#8f98f5"),
    "random": ("#8b939e", "#7d8793"),
    "bc": ("#e3a24a", "#d9a559"),
    "bc_best": ("#c2621b", "#ee8f4d"),
    "data_mean": ("#93b8a4", "#6f9c85"),
    "data_best": ("#3d8361", "#62b88e"),
    "published_a": ("#7b53a6", "#b795e0"),
    "published_b": ("#b04a80", "#e08bb5"),
}

_SIZE = (330, 190)  # SVG units, which are CSS pixels at scale 1
_FONT = 10.5
_GRID_COLUMNS = 6
_GRID_FONT = 7.5
_MAX_POINTS = 200
_LABEL_ALL = 8  # with more lines than this only the outliers get a label
_OUTLIERS = 3
_XLINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Curve:
    """Values of a metric over steps: two arrays (n,)."""

    step: np.ndarray
    value: np.ndarray

    def thinned(self) -> Curve:
        """At most 200 points, each the mean of neighbouring ones; without non-finite values."""
        finite = np.isfinite(self.value)
        step, value = self.step[finite], self.value[finite]
        if len(step) <= _MAX_POINTS:
            return Curve(step, value)
        groups = zip(
            np.array_split(step, _MAX_POINTS), np.array_split(value, _MAX_POINTS), strict=True
        )
        means = np.array([(s.mean(), v.mean()) for s, v in groups])
        return Curve(means[:, 0], means[:, 1])


def curve_plot(curve: Curve, colour: str, alt: str) -> str:
    """One learning curve with its last value written at its end, as SVG.

    Args:
        curve: what to draw; the axis is logarithmic where values are positive and span over 30x.
        colour: a name in PALETTE.
        alt: what a screen reader says.
    """
    curve = curve.thinned()
    with _axes(alt, right=0.86) as (ax, svg):
        if len(curve.value):
            ax.plot(curve.step, curve.value, color=_hex(colour), linewidth=1.6)
            _log_if_wide(ax, curve.value)
            _end_label(ax, curve.step[-1], curve.value[-1], _number(curve.value[-1]), colour)
        _step_axis(ax)
    return svg()


def overlay_plot(curves: Sequence[Curve], alt: str) -> str:
    """Learning curves of many tasks: each thin and grey, their median bold, as SVG."""
    thinned = [c for c in (curve.thinned() for curve in curves) if len(c.value)]
    alpha = _thin_alpha(len(thinned))
    with _axes(alt, right=0.86) as (ax, svg):
        for curve in thinned:
            ax.plot(curve.step, curve.value, color=_hex("muted"), linewidth=0.7, alpha=alpha)
        if thinned:
            grid = max((curve.step for curve in thinned), key=len)
            rows = [np.interp(grid, c.step, c.value, left=np.nan, right=np.nan) for c in thinned]
            median = _median(np.array(rows))
            ax.plot(grid, median, color=_hex("extracted"), linewidth=1.8)
            _log_if_wide(ax, np.concatenate([curve.value for curve in thinned]))
            _end_label(ax, grid[-1], median[-1], _number(median[-1]), "extracted")
        _step_axis(ax)
    return svg()


def horizon_plot(
    steps: Sequence[int], lines: dict[str, list[float]], low_is_good: bool, alt: str
) -> str:
    """A diagnostic at several prediction horizons, a line a task, the median bold, as SVG.

    Up to eight tasks are all labelled at the line's end; of more, the three worst.

    Args:
        steps: the horizons, ascending.
        lines: by task, a value a horizon; NaN where it is not known.
        low_is_good: which end counts as worst.
        alt: what a screen reader says.
    """
    with _axes(alt, right=0.56, size=(440, 240)) as (ax, svg):
        x = np.arange(len(steps))
        for values in lines.values():
            ax.plot(x, values, color=_hex("muted"), linewidth=0.9, alpha=_thin_alpha(len(lines)))
        known = np.array(list(lines.values()), dtype=float).reshape(len(lines), len(steps))
        ends = {name: values[-1] for name, values in lines.items() if np.isfinite(values[-1])}
        worst = sorted(ends, key=lambda name: ends[name], reverse=low_is_good)
        labelled = worst if len(worst) <= _LABEL_ALL else worst[:_OUTLIERS]
        labels = {name: (ends[name], "muted") for name in labelled}
        if len(lines) > 2:
            median = _median(known)
            ax.plot(x, median, color=_hex("extracted"), linewidth=2)
            if np.isfinite(median[-1]):
                labels["median"] = (float(median[-1]), "extracted")
        if low_is_good:
            ax.set_ylim(bottom=0)
        _spread_labels(ax, x[-1], labels)
        ax.xaxis.set_major_locator(FixedLocator(x.tolist()))
        ax.set_xticklabels([str(step) for step in steps])
        ax.set_xlabel("steps ahead", color=_hex("muted"))
    return svg()


def rounds_plot(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    marks: dict[str, float],
    alt: str,
) -> str:
    """A score by round with its interval, and others' scores as dashed lines, as SVG.

    Args:
        values: (rounds,) scores 0..100.
        low: (rounds,) lower ends of their intervals.
        high: (rounds,) upper ends.
        marks: others' scores by label.
        alt: what a screen reader says.
    """
    with _axes(alt, right=0.88) as (ax, svg):
        x = np.arange(len(values))
        ax.fill_between(x, low, high, color=_hex("extracted"), alpha=0.15, linewidth=0)
        ax.plot(x, values, color=_hex("extracted"), linewidth=1.6, marker="o", markersize=3)
        _end_label(ax, x[-1], values[-1], _number(values[-1]), "extracted")
        for i, (label, value) in enumerate(marks.items()):
            ax.axhline(value, color=_hex("published_a"), linewidth=1, linestyle="--")
            ax.annotate(
                f"-- {label} {_number(value)}",
                (0.98, 0.05 + 0.1 * i),  # scores that grow leave this corner empty
                xycoords="axes fraction",
                ha="right",
                color=_hex("published_a"),
            )
        ax.set_ylim(min(0.0, float(low.min())), max(105.0, float(high.max())))
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("round", color=_hex("muted"))
    return svg()


def rounds_grid(
    panels: Mapping[str, Sequence[np.ndarray]], marks: Mapping[str, float | None], alt: str
) -> str:
    """Scores by round of many tasks, a panel each and in it a line a seed, as SVG.

    Args:
        panels: by title, (rounds,) scores 0..100 of each seed.
        marks: by title, another's score, a dashed line.
        alt: what a screen reader says.
    """
    columns = min(_GRID_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context({**_STYLE, "font.size": _GRID_FONT}):
        figure = Figure(figsize=(columns * 150 / 72, rows * 100 / 72), dpi=72)
        canvas = _Canvas(figure, alt)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        width, height = 150 * columns, 100 * rows
        figure.subplots_adjust(28 / width, 18 / height, 0.99, 1 - 16 / height, 0.12, 0.35)
        for ax, (title, lines) in zip(axes, panels.items(), strict=False):
            mark = marks.get(title)
            if mark is not None:
                ax.axhline(mark, color=_hex("published_a"), linewidth=0.8, linestyle="--")
            for values in lines:
                x = np.arange(len(values))
                ax.plot(x, values, color=_hex("extracted"), linewidth=1.1, marker="o", markersize=2)
            ax.set_title(title, fontsize=_GRID_FONT, color=_hex("ink"))
            ax.set_ylim(-4, 104)
            ax.set_yticks([0, 50, 100])
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for ax in axes[len(panels) - columns : len(panels)]:  # also above a gap in the last row
            ax.tick_params(labelbottom=True)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        canvas.finish()
    return canvas()


def standalone(drawing: str) -> str:
    """An inline drawing as a file of its own, in light colours, for any viewer."""
    for name, (light, _) in PALETTE.items():
        drawing = drawing.replace(f"var(--{name.replace('_', '-')})", light)
    root, rest = drawing.split(">", 1)
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'{root} font-family="sans-serif" xmlns="http://www.w3.org/2000/svg">{paper}{rest}'


def histogram_plot(values: np.ndarray, marker: float | None, alt: str) -> str:
    """A histogram of episode returns, with the policy's mean return marked, as SVG.

    Args:
        values: (episodes,) returns.
        marker: the policy's mean return, or None.
        alt: what a screen reader says.
    """
    with _axes(alt, size=(330, 150)) as (ax, svg):
        counts, edges = np.histogram(values, bins=24)
        ax.stairs(counts, edges, fill=True, color=_hex("data_mean"))
        if marker is not None:
            ax.axvline(marker, color=_hex("extracted"), linewidth=1.8)
            left, right = ax.get_xlim()
            rightmost = marker > (left + right) / 2
            ax.annotate(
                f"policy {_number(marker)}",
                (marker, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if rightmost else 4, 0),
                textcoords="offset points",
                ha="right" if rightmost else "left",
                va="top",
                color=_hex("extracted"),
            )
        ax.set_xlabel("episode return", color=_hex("muted"))
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return svg()


class _Canvas:
    """Turns a finished figure into inline SVG once the drawing block is left."""

    def __init__(self, figure: Figure, alt: str) -> None:
        self._figure = figure
        self._alt = alt
        self.text = ""

    def __call__(self) -> str:
        return self.text

    def finish(self) -> None:
        buffer = io.BytesIO()
        self._figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
        self.text = _inline(buffer.getvalue(), self._alt)


_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pwm",
    "font.size": _FONT,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": PALETTE["rule"][0],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALETTE["rule"][0],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["rule"][0],
    "ytick.color": PALETTE["rule"][0],
    "xtick.labelcolor": PALETTE["muted"][0],
    "ytick.labelcolor": PALETTE["muted"][0],
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "axes.xmargin": 0.02,
    "text.color": PALETTE["ink"][0],
    "path.simplify": True,
}


@contextmanager
def _axes(
    alt: str, right: float = 0.97, size: tuple[int, int] = _SIZE
) -> Iterator[tuple[Axes, _Canvas]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
        ax = figure.add_axes((0.13, 38 / size[1], right - 0.13, 1 - 50 / size[1]))
        canvas = _Canvas(figure, alt)
        yield ax, canvas
        canvas.finish()


def _step_axis(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("updates", color=_hex("muted"))
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4))


def _log_if_wide(ax: Axes, values: np.ndarray) -> None:
    if values.min() > 0 and values.max() > 30 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())


def _end_label(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    ax.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=_hex(colour),
        annotation_clip=False,
    )


def _spread_labels(ax: Axes, x: float, labels: dict[str, tuple[float, str]]) -> None:
    """Labels at the right of their values, moved apart where they would overlap."""
    if not labels:
        return
    low, high = ax.get_ylim()
    gap = (high - low) * (_FONT + 2) / ax.get_window_extent().height
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
            color=_hex(colour),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _hex("rule"), "linewidth": 0.7, "shrinkA": 0},
        )
    ax.set_ylim(low, high)


def _thin_alpha(lines: int) -> float:
    return 0.55 if lines <= 12 else 0.25


def _median(rows: np.ndarray) -> np.ndarray:
    """Over rows (n, points), of what is finite; NaN where nothing is."""
    finite = (column[np.isfinite(column)] for column in rows.T)
    return np.array([np.median(column) if len(column) else np.nan for column in finite])


def _hex(colour: str) -> str:
    return PALETTE[colour][0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _inline(svg: bytes, alt: str) -> str:
    """The drawing without namespaces, document-wide styles and unused ids, in CSS variables."""
    root = ElementTree.fromstring(svg)
    used = set(re.findall(rb'url\(#([^)]+)\)|href="#([^"]+)"', svg))
    used_ids = {name.decode() for pair in used for name in pair if name}
    prefix = f"p{zlib.crc32(svg + alt.encode()):x}-"
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        name = element.attrib.pop("id", None)
        if name in used_ids:
            element.set("id", prefix + str(name))
        target = element.attrib.pop(_XLINK, None)
        if target is not None:
            element.set("href", "#" + prefix + target[1:])
        for key, value in element.attrib.items():
            element.set(key, value.replace("url(#", f"url(#{prefix}"))
    _, _, width, height = root.get("viewBox", "0 0 1 1").split()
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": alt,
        "class": "plot",
    }
    text = ElementTree.tostring(root, encoding="unicode")
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{name.replace('_', '-')})")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's own
    return re.sub(r">\s+<", "><", text)


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
