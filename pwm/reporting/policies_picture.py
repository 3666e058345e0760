"""A picture of what a run's policies do: frames of one episode per task, side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import console
from pwm.evaluation.agents import SavedPolicies
from pwm.evaluation.scores import Results
from pwm.evaluation.videos import episode_strips
from pwm.models.policy_directory import policy_path, policy_tasks
from pwm.reporting.html_page import PICTURE
from pwm.reporting.svg import COLOURS, styled

_MOST_TASKS = 12
_LABEL, _DPI = 24, 100  # pixels above a row, and per inch


def policies_picture(run: Path, policies: Path) -> Path | None:
    """Write RUN/policies.png: a row per task, its first evaluation episode from start to end.

    Where no frame can be drawn, as without OpenGL, a sentence says so and there is no picture.

    Args:
        run: has the results.json of an evaluation of the policies.
        policies: one directory per task.

    Returns:
        The picture's path, or None.
    """
    path = run / PICTURE
    path.unlink(missing_ok=True)
    results = Results.load(run / "results.json")
    tasks = policy_tasks(policies)
    shown = [tasks[name] for name in results.task_names if name in tasks][:_MOST_TASKS]
    agent = SavedPolicies.at({task.name: policy_path(policies, task.name) for task in shown})
    try:
        rows = {task.name: row for task, row in episode_strips(agent, shown, results.seeds[0])}
    except PwmError as fault:
        console.print(f"There is no picture of what the policies do: {fault}", soft_wrap=True)
        return None
    scores = {task: score.normalized_score for task, score in results.policy.tasks.items()}
    write_atomically(
        path, _drawn({f"{t}, mean score {scores[t]:.0f}": row for t, row in rows.items()})
    )
    return path


@styled
def _drawn(rows: dict[str, np.ndarray]) -> bytes:
    """A PNG of pictures (height, width, 3) uint8 below each other, each under its label."""
    height = sum(len(row) + _LABEL for row in rows.values())
    width = max(row.shape[1] for row in rows.values())
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    top = height
    for label, row in rows.items():
        figure.text(
            6 / width, (top - _LABEL / 2) / height, label, color=COLOURS["ink"], va="center"
        )
        top -= _LABEL + len(row)
        figure.figimage(row, 0, top, origin="upper")
    buffer = io.BytesIO()
    no_date = {"Software": None}
    figure.savefig(buffer, format="png", metadata=no_date, pil_kwargs={"optimize": True})
    return buffer.getvalue()
