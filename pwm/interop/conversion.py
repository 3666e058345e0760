"""Settings and checks of conversions into and out of a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import fsync_directory, unfinished_path
from pwm.core.layout import MANIFEST_NAME
from pwm.core.settings import setting
from pwm.core.suites import Suite, get_suite, task_names
from pwm.core.validation import require_choice, require_resume, require_writable
from pwm.data.problems import ON_ERROR
from pwm.interop.array_data import ACTION_UNITS
from pwm.interop.minari_data import PREFIX

RECORD_NAME = "conversion.json"  # beside files for TD-MPC2: the data and settings of these


@dataclass
class ConvertConfig:
    """Settings of ``pwm convert``.

    Attributes:
        source: TD-MPC2's data files: their directory, or one file; ``minari:`` with the id or the
            directory of a Minari dataset on this machine; arrays of one task in HDF5 (the layouts
            of D4RL and robomimic) or npz files, one or their directory, or of a LeRobot dataset,
            its directory; with ``to=tdmpc2`` a store.
        out: the directory to make: a store, or with ``to=tdmpc2`` data files.
        suite: ``mt30`` or ``mt80``, which the files were made for; for a Minari dataset or arrays
            the task, or the file that describes it. With ``to=tdmpc2`` the suite that fixes task
            ids and padding, the store's own by default.
        to: ``store`` or ``tdmpc2``.
        tasks: convert these only; a list, or names joined with commas.
        limit: episodes per task at most.
        on_error: ``stop`` at an episode that cannot be used, or ``skip`` and count it.
        verify: compare the files' checksums before they are used.
        steps: with ``to=tdmpc2``, decision steps per entry: by default the shortest episode length
            of the suite (100 in mt80), and longer episodes are cut into pieces.
        files: with ``to=tdmpc2``, how many files to write; by default as many as were published.
        obs_keys: of arrays whose observations are in several, such as robomimic's, those to take,
            in this order; by default all that are no pictures, in the file's order.
        action_units: of arrays, ``environment``, whose bounds become -1 and 1, or ``normalized``,
            in [-1, 1] already.
        resume: ``auto`` goes on with a conversion that was stopped; ``never`` refuses what it left.
    """

    source: str = setting(MISSING, input_path=True)
    out: str = MISSING
    suite: Any = None
    to: str = "store"
    tasks: Any = None
    limit: int | None = None
    on_error: str = "stop"
    verify: bool = True
    steps: int | None = None
    files: int | None = None
    obs_keys: list[str] | None = None
    action_units: str = "environment"
    resume: str = "auto"

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_choice(self, "to", ("store", "tdmpc2"))
        require_choice(self, "on_error", ON_ERROR)
        require_choice(self, "action_units", ACTION_UNITS)
        for name in ("limit", "steps", "files"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PwmError(f"{name}={value} must be at least 1, or null.")
        if self.to == "store" and self.suite is None:
            raise PwmError("convert needs the suite that the files were made for: suite=mt80.")
        if self.to != "store" and self.source.startswith(PREFIX):
            raise PwmError(f"to={self.to} takes an episode store; convert {self.source} to one.")
        if self.suite is not None and self.to == "store":
            chosen_tasks(self, get_suite(self.suite))
        require_writable(self.out)
        out = Path(self.out)
        require_resume(self, out / MANIFEST_NAME, out / RECORD_NAME, unfinished_path(out))


def chosen_tasks(config: ConvertConfig, suite: Suite) -> Suite:
    """The suite's tasks that are asked for, in its order; raises PwmError for any other."""
    if config.tasks is None:
        return suite
    ids = sorted({suite.id(name) for name in task_names(config.tasks)})
    tasks = tuple(suite.tasks[i] for i in ids)
    return suite if tasks == suite.tasks else Suite(",".join(t.name for t in tasks), tasks)


def require_same(path: Path, recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise PwmError if what is at a path was converted with other settings."""
    changed = [key for key, value in settings.items() if recorded.get(key) != value]
    if changed:
        told = ", ".join(f"{key}: {recorded.get(key)} -> {settings[key]}" for key in changed)
        raise PwmError(
            f"{path} holds something else than this conversion makes ({told}); give the same "
            "settings again, another out=, or delete it."
        )


def require_empty(out: Path) -> None:
    """Raise PwmError unless a path is free or an empty directory."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PwmError(f"{out} exists and is no store; give another out=.")


def publish(unfinished: Path, out: Path) -> None:
    """Give a whole conversion its name, while the lock on it is still held."""
    try:
        os.rename(unfinished, out)
    except OSError as error:
        raise PwmError(
            f"{unfinished} is whole and cannot be renamed to {out} ({error.strerror}); rename it "
            "yourself, or move what is in its place and give the command again."
        ) from error
    fsync_directory(out.parent)
