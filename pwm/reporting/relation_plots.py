"""Pictures of how tasks relate: matrices, maps and hierarchies, as inline SVG.

Every ``alt`` is what a screen reader says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from scipy.cluster.hierarchy import dendrogram

from pwm.reporting.svg import COLOURS, inline, styled

GROUP_COLOURS = (
    "extracted", "bc_best", "data_best", "published_a", "planner", "published_b", "bc", "random",
)  # fmt: skip
_SMALLEST_FONT, _LARGEST_FONT = 5.0, 9.0
_FAINTEST = 0.02  # of the limit; less is left white
_FULLEST = 0.7  # opacity, so that numbers can be read on it
_NUMBERS_UP_TO = 12  # tasks, in whose matrices every number is written


def colour_of(group: int) -> str:
    """A group's colour; from the ninth group on they repeat."""
    return COLOURS[GROUP_COLOURS[group % len(GROUP_COLOURS)]]


@styled
def matrix_plot(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, limit: float, alt: str
) -> str:
    """A matrix in squares, blue above zero and orange below, the more the fuller.

    Args:
        rows: names.
        columns: names.
        values: (rows, columns).
        limit: what has the full colour.
        alt: a description.
    """
    side = 34 if len(rows) <= _NUMBERS_UP_TO else max(9, 560 // len(rows))
    font = float(np.clip(0.6 * side, _SMALLEST_FONT, _LARGEST_FONT))
    margin = 8 + 0.56 * font * max(map(len, [*rows, *columns]))
    width, height = margin + side * len(columns) + 6, margin + side * len(rows) + 6
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    ax = figure.add_axes(
        (margin / width, 6 / height, side * len(columns) / width, side * len(rows) / height)
    )
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value) and abs(value) > _FAINTEST * limit:
            colour = COLOURS["extracted" if value > 0 else "bc_best"]
            alpha = round(_FULLEST * min(abs(float(value)) / limit, 1.0), 2)
            ax.add_patch(Rectangle((j, i), 1, 1, color=colour, alpha=alpha, linewidth=0))
        if len(rows) <= _NUMBERS_UP_TO and np.isfinite(value):
            ax.text(
                j + 0.5,
                i + 0.5,
                f"{value:z.2f}",
                ha="center",
                va="center",
                fontsize=8,
            )
    ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90, fontsize=font)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=font)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    return inline(figure, alt)


@styled
def places_plot(
    names: Sequence[str],
    places: np.ndarray,
    groups: Sequence[int],
    labels: tuple[str, str],
    alt: str,
    samples: np.ndarray | None = None,
) -> str:
    """Tasks as named dots in the colours of their groups.

    Args:
        names: of the tasks.
        places: (tasks, 2).
        groups: of the tasks.
        labels: of the two axes.
        alt: a description.
        samples: (tasks, n, 2), drawn as faint dots on logarithmic axes.
    """
    figure = Figure(figsize=(620 / 72, 380 / 72), dpi=72)
    ax = figure.add_axes((0.1, 0.12, 0.74, 0.85))
    if samples is not None:
        ax.set(xscale="log", yscale="log")
        for rows, group in zip(samples, groups, strict=True):
            ax.scatter(rows[:, 0], rows[:, 1], s=3, color=colour_of(group), alpha=0.2, linewidths=0)
    font = _LARGEST_FONT if len(names) <= 30 else 6.5
    for name, place, group in zip(names, places, groups, strict=True):
        ax.scatter(place[0], place[1], s=22, color=colour_of(group), linewidths=0)
        ax.annotate(
            name.replace("$", r"\$"), place, xytext=(4, 2), textcoords="offset points",
            fontsize=font, annotation_clip=False,
        )  # fmt: skip
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return inline(figure, alt)


@styled
def tree_plot(names: Sequence[str], merges: np.ndarray, groups: Sequence[int], alt: str) -> str:
    """A hierarchy of tasks, their names in the colours of their groups.

    Args:
        names: of at least two tasks.
        merges: (tasks - 1, 4), as `scipy.cluster.hierarchy.linkage` gives it.
        groups: of the tasks.
        alt: a description.
    """
    drawn = dendrogram(merges, no_plot=True)
    pitch = 15 if len(names) <= 40 else 10
    font = min(_LARGEST_FONT, 0.7 * pitch)
    margin = 8 + 0.56 * font * max(map(len, names))
    width, height = 300 + margin, pitch * len(names) + 34
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    ax: Axes = figure.add_axes((10 / width, 30 / height, 290 / width, 1 - 34 / height))
    for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        ax.plot(heights, places, color=COLOURS["muted"], linewidth=1)
    leaves = drawn["leaves"]
    ax.set(ylim=(0, 10 * len(names)), xlim=(1.02 * max(float(merges[:, 2].max()), 1e-9), 0))
    ax.set_yticks(10 * np.arange(len(names)) + 5, [names[leaf] for leaf in leaves], fontsize=font)
    ax.yaxis.tick_right()  # which makes the labels anew
    for label, leaf in zip(ax.get_yticklabels(), leaves, strict=True):
        label.set_color(colour_of(groups[leaf]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    ax.set_xlabel("distance")
    return inline(figure, alt)


def leaf_order(merges: np.ndarray) -> list[int]:
    """The order of tasks along a hierarchy, for matrices; of a single task itself."""
    if not len(merges):
        return [0]
    return [int(leaf) for leaf in dendrogram(merges, no_plot=True)["leaves"]]
