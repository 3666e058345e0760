"""Held-out errors of a world model by task, before and after it was adapted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from pwm.adaptation.new_tasks import loss_of_windows
from pwm.core.counted import counted
from pwm.data.windows.batch import Batch
from pwm.models.world_model import WorldModel
from pwm.pretraining.diagnostics import diagnose
from pwm.pretraining.learner import LearnerConfig

Errors = dict[str, dict[str, Any]]
"""By task: ``loss``, and ``latent_error`` and ``reward_r2`` by steps as `diagnose` gives them."""

_WORST = 3  # old tasks, named in the table


def held_out_errors(model: WorldModel, windows: Sequence[Batch], config: LearnerConfig) -> Errors:
    """The errors of a world model in held-out windows.

    Args:
        model: frozen.
        windows: of some of its tasks.
        config: of the loss.
    """
    errors: Errors = diagnose(model, windows)["tasks"]
    for batch in windows:
        losses = loss_of_windows(model, batch, config)
        for task in batch.task.unique().tolist():
            name = model.suite.tasks[task].name
            errors[name]["loss"] = float(losses[batch.task == task].mean())
    return errors


def thinned(windows: Sequence[Batch], every: int) -> list[Batch]:
    """Every so many-th window."""
    return [
        batch.part(torch.arange(0, len(batch.task), every, device=batch.task.device))
        for batch in windows
    ]


def error_table(new: dict[str, Errors], old: dict[str, Errors]) -> Table:
    """A table of the errors after each stage.

    Args:
        new: of the new tasks, by stage.
        old: of the old ones before and after; empty if there are no data of them.
    """
    table = Table(title="held-out errors", box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    table.add_column("stage")
    for heading in ("loss", "latent error", "reward R2"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in next(iter(new.values())):
        for stage, errors in new.items():
            table.add_row(task, stage, *_cells([errors[task]]))
    for stage, errors in old.items():
        table.add_row(
            f"{counted(len(errors), 'old task')}, mean", stage, *_cells(list(errors.values()))
        )
    for task in worst_forgotten(old)[:_WORST] if len(next(iter(old.values()), {})) > 1 else ():
        for stage, errors in old.items():
            table.add_row(task, stage, *_cells([errors[task]]))
    return table


def worst_forgotten(old: dict[str, Errors]) -> list[str]:
    """The old tasks by how much their loss has grown, relative to what it was; most first."""
    if len(old) < 2:
        return []
    before, after = list(old.values())
    grown = {name: after[name]["loss"] / max(before[name]["loss"], 1e-12) for name in before}
    return sorted(grown, key=lambda name: -grown[name])


def _cells(errors: list[dict[str, Any]]) -> list[str]:
    """Means over tasks of the loss, and of the other errors at the most steps there are."""
    losses = [error["loss"] for error in errors]
    cells = [f"{np.mean(losses):z.3f}"]
    for name in ("latent_error", "reward_r2"):
        last = [next(reversed(error[name].values())) for error in errors]
        known = [value for value in last if value is not None]
        cells.append(f"{np.mean(known):z.3f}" if known else "-")
    return cells
