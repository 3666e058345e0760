"""Checkpoints of a training run, from which it goes on: one directory per saved step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.runtime.checkpoint import (
    Checkpoint,
    Groups,
    is_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from pwm.runtime.checkpoint_index import INDEX, DamagedCheckpointError


def step_name(step: int) -> str:
    """Directory name of a training checkpoint, sorting by step."""
    return f"step_{step:09d}"


def list_steps(directory: Path) -> list[Path]:
    """Training checkpoints in a directory, oldest first."""
    return sorted(p for p in directory.glob("step_*") if is_checkpoint(p))


def save_step(
    directory: Path,
    kind: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    keep_last: int,
) -> None:
    """Write a training checkpoint, then delete all but it and the ``keep_last`` - 1 before it.

    What a killed writer left, and checkpoints of later steps, which a run that had to fall back
    past them makes anew, go too. ``step`` joins ``meta``; for the rest see :func:`save_checkpoint`.
    """
    newest = directory / step_name(step)
    save_checkpoint(newest, kind, tensors, {"step": step, **meta})
    delete_old_steps(directory, newest, keep_last)


def delete_old_steps(directory: Path, newest: Path, keep_last: int) -> None:
    """Delete all training checkpoints but ``newest`` and the ``keep_last`` - 1 before it."""
    until_now = [path for path in list_steps(directory) if path <= newest]
    delete_steps(directory, keep=until_now[-max(keep_last, 1) :])


def delete_steps(directory: Path, keep: Collection[Path] = ()) -> None:
    """Delete training checkpoints, whole or not, oldest first, apart from those to keep."""
    for path in sorted(directory.glob("step_*")):
        if path not in keep:
            clear_step(path)


def clear_step(path: Path) -> None:
    """Delete a training checkpoint, whole or not, if there is one."""
    if path.is_symlink():  # what it leads to is not this run's
        path.unlink()
    elif path.exists():
        (path / INDEX).unlink(missing_ok=True)  # first, so that no half of it looks whole
        shutil.rmtree(path)


def load_latest(
    directory: Path,
    kind: str,
    warn: Callable[[str], object] | None = None,
    layout: Callable[[], Groups | None] | None = None,
) -> Checkpoint | None:
    """The newest whole training checkpoint, or None if none was ever written.

    A damaged one is passed over; ``warn``, if given, is called with a sentence on it. ``layout`` is
    as for :func:`load_checkpoint`. Raises PwmError if there are some and none is whole, or one is
    of another kind or a newer format.
    """
    steps = list_steps(directory)
    for path in reversed(steps):
        try:
            return load_checkpoint(path, kind, layout=layout)
        except DamagedCheckpointError as error:
            if warn is not None:
                warn(f"{error} Falling back to the one before.")
    if steps:
        raise PwmError(
            f"none of the {len(steps)} checkpoints in {directory} is whole; delete {directory} to "
            "begin anew."
        )
    return None


def require_same_data(checkpoint: Checkpoint, digest: str, data: str) -> None:
    """Raise PwmError if the store at ``data`` is not the one whose digest the checkpoint has."""
    if checkpoint.meta.get("data", digest) != digest:
        raise PwmError(
            f"{data} has changed since {checkpoint.path} was made from it; put it back as it was "
            "to go on, or give another out= to train on what it is now."
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter state as named tensors: ``<parameter index>.<entry>``."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` gave; learning rates are left as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
