"""The simulator's frame above what was received so far and what the world model imagines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pwm.core.counted import counted
from pwm.evaluation.predictions import Prediction

_DPI = 100
_WIDTH, _TITLE, _FRAME, _LEGEND, _FOOT = 640, 32, 480, 28, 40  # pixels
_PLOT, _GAP, _LEFT, _RIGHT = 108, 10, 76, 16
_BLOCK = 16  # pixels, of which an MP4's height is a multiple
_REAL, _IMAGINED, _BEFORE = "#222222", "#d1495b", "#e09f3e"


@dataclass
class Moment:
    """What is shown before a decision step, and after the last.

    Attributes:
        frame: (height, width, 3) uint8.
        rewards: received so far, one per decision step.
        predictions: from each observation so far, the present one's last.
        over: whether the episode has ended, so that nothing comes of the last prediction.
    """

    frame: np.ndarray
    rewards: Sequence[float]
    predictions: Sequence[Prediction]
    over: bool


class Picture:
    """A figure that shows one moment of an episode after another.

    Args:
        figure: is drawn on, and gets its size here.
        heading: what is played.
        steps: of the episode at most.
        horizon: of predictions.
        values: the units of the critic's values; None without a critic.
    """

    def __init__(
        self, figure: Figure, heading: str, steps: int, horizon: int, values: str | None
    ) -> None:
        names = ["reward", "return", *(["value"] if values else [])]
        height = _TITLE + _FRAME + _LEGEND + len(names) * (_PLOT + _GAP) + _FOOT
        height += -height % _BLOCK
        figure.set_dpi(_DPI)
        figure.set_size_inches(_WIDTH / _DPI, height / _DPI)

        def box(left: int, top: int, width: int, tall: int) -> tuple[float, float, float, float]:
            return left / _WIDTH, 1 - (top + tall) / height, width / _WIDTH, tall / height

        self._heading, self._steps, self._horizon = heading, steps, horizon
        self._title = figure.text(0.5, 1 - _TITLE / 2 / height, "", ha="center", va="center")
        scene = figure.add_axes(box(0, _TITLE, _WIDTH, _FRAME))
        scene.set_axis_off()
        self._scene = scene.imshow(
            np.zeros((3, 4, 3), np.uint8), aspect="auto", interpolation="bilinear"
        )
        top = _TITLE + _FRAME + _LEGEND
        self._panels = [
            _Panel(
                figure.add_axes(
                    box(_LEFT, top + i * (_PLOT + _GAP), _WIDTH - _LEFT - _RIGHT, _PLOT)
                ),
                name,
                steps,
            )
            for i, name in enumerate(names)
        ]
        for panel in self._panels[:-1]:
            panel.axes.set_xticklabels([])
        self._panels[-1].axes.set_xlabel("decision step", fontsize=9)
        if values:
            self._panels[-1].axes.text(
                0.99,
                0.06,
                values,
                ha="right",
                fontsize=8,
                transform=self._panels[-1].axes.transAxes,
            )
        self._earlier = self._panels[0].line(_BEFORE, 1.3)
        self._earlier.set_linestyle("--")
        first = self._panels[0]
        ahead, before = counted(horizon, "step"), counted(horizon - 1, "step")
        figure.legend(
            [first.real, first.imagined, self._earlier],
            ["so far", f"imagined, the next {ahead}", f"imagined {before} before"],
            loc="center",
            bbox_to_anchor=(0.5, 1 - (top - _LEGEND / 2) / height),
            ncols=3,
            frameon=False,
            fontsize=9,
        )

    def show(self, moment: Moment) -> None:
        """Change the figure to a moment of the episode."""
        now, rewards = len(moment.rewards), np.asarray(moment.rewards)
        received, predicted = float(rewards.sum()), moment.predictions[-1]
        self._scene.set_data(moment.frame)
        returns = np.concatenate([[0.0], rewards.cumsum()])
        ahead = np.zeros(0) if moment.over else predicted.rewards
        reward, return_, *value = self._panels
        reward.show(np.arange(now), rewards, now + np.arange(len(ahead)), ahead, now)
        future = received + np.concatenate([[0.0], ahead.cumsum()])
        return_.show(np.arange(now + 1), returns, now + np.arange(len(future)), future, now)
        for panel in value:
            so_far = np.array([p.values[0] for p in moment.predictions if p.values is not None])
            beyond = so_far[-1:] if moment.over or predicted.values is None else predicted.values
            panel.show(np.arange(len(so_far)), so_far, now + np.arange(len(beyond)), beyond, now)
        last = self._horizon - 1
        earlier = [p.rewards[-1] for p in moment.predictions[: max(now - last, 0)]]
        self._earlier.set_data(last + np.arange(len(earlier)), earlier)
        then = "" if moment.over else f", next {len(ahead)} imagined {ahead.sum():+z.1f}"
        self._title.set_text(
            f"{self._heading}   step {now} of {self._steps}   return {received:z.1f}{then}"
        )


class _Panel:
    """One plot over decision steps, whose limits only ever grow."""

    def __init__(self, axes: Axes, name: str, steps: int) -> None:
        self.axes = axes
        axes.set_xlim(0, steps)
        axes.set_ylabel(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        self._present = axes.axvline(0, color="#888888", linewidth=0.8)
        self.real, self.imagined = self.line(_REAL, 1.6), self.line(_IMAGINED, 2.0)
        self._low, self._high = np.inf, -np.inf

    def line(self, colour: str, width: float) -> Line2D:
        """A line without points yet."""
        return self.axes.plot([], [], color=colour, linewidth=width)[0]

    def show(
        self, steps: np.ndarray, real: np.ndarray, ahead: np.ndarray, imagined: np.ndarray, now: int
    ) -> None:
        """The values of steps so far, and of those ahead."""
        self.real.set_data(steps, real)
        self.imagined.set_data(ahead, imagined)
        self._present.set_xdata([now, now])
        both = np.concatenate([real, imagined])
        if len(both):
            self._low = min(self._low, float(both.min()))
            self._high = max(self._high, float(both.max()))
        if self._high > self._low:
            room = 0.06 * (self._high - self._low)
            self.axes.set_ylim(self._low - room, self._high + room)
