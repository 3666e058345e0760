"""Settings of ``pwm analyze``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.settings import require_inputs, setting
from pwm.core.suites import task_names
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_resume,
    require_seed,
    require_valid,
)
from pwm.data.problems import ON_ERROR
from pwm.pretraining.learner import LearnerConfig
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import require_output

MAP_FROM = ("auto", "checkpoints", "training")


def _learner() -> LearnerConfig:
    return LearnerConfig(lr=1e-4, lr_final=1e-4, warmup=0)


@dataclass
class AnalyzeConfig:
    """Settings of ``pwm analyze``.

    Attributes:
        checkpoint: a world model: a pretraining run, one checkpoint or an imported model.
        data: the episode store that it was trained on, or another one of its tasks.
        out: gets analysis.html, analysis.json, groups/ with a file per way of grouping, and
            measured/, from which the same command goes on.
        tasks: a suite's name, tasks joined with commas or in a list; all that world model and data
            share by default.
        windows: per task, held-out ones for gradients and errors, and as many of training for data
            maps.
        parts: that a task's windows are divided into for the standard errors of cosines.
        transfer_updates: on each task alone, before all tasks' held-out errors are measured again;
            0 for no transfer matrix.
        map_updates: of a short training on all tasks together, for data maps where there are too
            few checkpoints; 0 for none.
        map_from: where data maps are from: ``checkpoints`` of the run, of which there must be three
            or more, a short ``training``, or ``auto``, checkpoints if there are enough.
        clusters: number of groups; by default that with the largest silhouette.
        batch_size: windows of an update.
        learner: of these updates, which begin with new moments of the optimizer.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        compile, precision: of these updates, see :class:`pwm.runtime.acceleration.Acceleration`.
    """

    checkpoint: str = setting(MISSING, input_path=True)
    data: str = setting(MISSING, input_path=True)
    out: str = MISSING
    tasks: Any = None
    seed: int = 0
    device: str = setting("auto", may_change=True)
    compile: str = "auto"
    precision: str = "auto"
    resume: str = "auto"
    on_error: str = setting("stop", may_change=True)

    windows: int = 64
    parts: int = 4
    transfer_updates: int = 30
    map_updates: int = 80
    map_from: str = "auto"
    clusters: int | None = setting(None, may_change=True)
    batch_size: int = 64
    learner: LearnerConfig = field(default_factory=_learner)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_inputs(self)
        require_at_least(self, 2, "parts", "windows")
        require_at_least(self, 0, "transfer_updates", "map_updates")
        require_at_least(self, 1, "batch_size")
        if self.windows < self.parts:
            raise PwmError(
                f"windows={self.windows} cannot be divided into parts={self.parts}; give more."
            )
        if self.clusters is not None:
            require_at_least(self, 1, "clusters")
        require_choice(self, "map_from", MAP_FROM)
        require_choice(self, "on_error", ON_ERROR)
        require_seed(self, "seed")
        require_valid("learner", self.learner)
        Acceleration(self.compile, self.precision).validate()
        resolve_device(self.device)
        require_resume(self)
        if self.tasks is not None:
            task_names(self.tasks)
        require_output(self)
