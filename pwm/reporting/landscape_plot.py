"""A picture of a landscape study: returns along directions, variance and bias by horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from pwm.reporting.svg import COLOURS, inline, standalone, styled

_TRUTH = "finite differences"
_COLOURS = {"simulator": "bc_best", "world model": "extracted", _TRUTH: "muted"}
_PANEL = (300, 190)  # pixels


@styled
def landscape_picture(task: str, found: Mapping[str, Any]) -> str:
    """An SVG file's content of what ``pwm landscape`` found.

    Args:
        task: the environment.
        found: the content of ``landscape.json``.
    """
    slices = found["slices"]
    count = len(slices["along"]) + 2
    width, height = _PANEL[0] * count, _PANEL[1] + 40
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    panels = figure.subplots(1, count, squeeze=False)[0]
    figure.subplots_adjust(44 / width, 40 / height, 1 - 12 / width, 1 - 30 / height, 0.28)
    for ax, (name, entry) in zip(panels, slices["along"].items(), strict=False):
        for where, returns in entry["returns"].items():
            _line(ax, slices["distances"], returns, where)
        ax.axvline(0, color=COLOURS["rule"], linewidth=0.8)
        ax.set_title(f"return, {name}", fontsize=10)
        ax.set_xlabel("distance, in units of actions")
    panels[0].legend(frameon=False, fontsize=9)
    estimates = {_TRUTH: found["finite_differences"]} | found["gradients"]
    for ax, quantity in zip(panels[-2:], ("variance", "bias"), strict=True):
        for where, by_horizon in estimates.items():
            _line(ax, found["horizons"], by_horizon[quantity], where, marker="o")
        positive = [v for own in estimates.values() for v in own[quantity] if v > 0]
        ax.set_yscale("log" if positive else "linear")
        if max(positive, default=1) > 10 * min(positive, default=1):
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(found["horizons"]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([str(horizon) for horizon in found["horizons"]])
        ax.set_xlabel("horizon, steps")
    panels[-2].set_title("variance of a sample's derivative", fontsize=10)
    panels[-1].set_title("bias, share of the derivative", fontsize=10)
    panels[-1].legend(frameon=False, fontsize=9)
    return standalone(inline(figure, f"landscape of {task}"))


def _line(ax: Axes, x: list[float], y: list[float], where: str, marker: str = "") -> None:
    values = np.asarray(y, float)
    colour = COLOURS[_COLOURS[where]]
    width, alpha = (3.0, 0.5) if where == _TRUTH else (1.5, 1.0)
    ax.plot(
        x,
        values,
        color=colour,
        marker=marker,
        markersize=3,
        label=where,
        linewidth=width,
        alpha=alpha,
    )
