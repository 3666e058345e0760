"""Scalars of a training loop: a JSON-lines file, TensorBoard, and W&B by a switch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from pwm.core.files import write_all, write_atomically, writing
from pwm.runtime.wandb_run import start_wandb


class MetricsLogger:
    """Appends to ``metrics.jsonl`` in a run directory; lines past ``step`` are dropped on resume.

    Args:
        directory: the run directory.
        step: the step that the run goes on from; 0 for a new one.
        wandb_project: also log to this Weights & Biases project if given.
        config: the run's resolved settings, which W&B shows.

    Raises:
        PwmError: if a file cannot be written, as every method does.
    """

    def __init__(
        self,
        directory: Path,
        step: int = 0,
        wandb_project: str | None = None,
        config: Mapping[Any, Any] | None = None,
    ) -> None:
        from pwm.runtime.tensorboard import EventFile

        self.path = directory / "metrics.jsonl"
        kept = [json.dumps(line) + "\n" for line in read_metrics(self.path) if line["step"] <= step]
        write_atomically(self.path, "".join(kept).encode())
        self._board = EventFile(directory / "tensorboard", purge_from=step + 1)
        with writing(self.path):
            self._file = self.path.open("ab", buffering=0)
        self._wandb = start_wandb(directory, wandb_project, config or {}) if wandb_project else None

    def log(self, step: int, scalars: Mapping[str, Tensor | float]) -> None:
        """Write one line; tensors are scalar and are brought to the host here."""
        values = {name: float(value) for name, value in scalars.items()}
        with writing(self.path):
            write_all(self._file, (json.dumps({"step": step, **values}) + "\n").encode())
        self._board.add(step, values)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def flush(self) -> None:
        """Bring what was logged to disk, so that a checkpoint is never ahead of its metrics."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close all sinks."""
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


class NoMetrics:
    """Takes the place of a logger where another process logs."""

    def log(self, *anything: object) -> None:
        """Does nothing, as the other methods."""

    flush = close = log


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``, up to one that a crash left unfinished or unreadable."""
    whole: list[dict[str, float]] = []
    with suppress(ValueError, TypeError, KeyError, FileNotFoundError):
        for line in path.read_bytes().split(b"\n")[:-1]:
            values = json.loads(line)
            int(values["step"])
            whole.append(values)
    return whole
