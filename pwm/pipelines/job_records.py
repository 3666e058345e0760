"""Jobs that share a run directory: where each one's files are, how far it is, who works at it.

A job works in ``RUN/jobs/<tasks>``: ``job.json`` says how far it is, ``log.txt`` holds what it
printed, and ``out`` is the run directory, or the store, that its command alone would have written.
Whoever works at a job holds the lock of its directory, which vanishes with the process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.layout import JOBS
from pwm.core.locks import is_locked
from pwm.core.suites import short_name

OUT, LOG = "out", "log.txt"
WAITING, RUNNING, STOPPED, FAILED, DONE = "waiting", "running", "stopped", "failed", "done"
STATES = (WAITING, RUNNING, STOPPED, FAILED, DONE)

_RECORD = "job.json"


@dataclass(frozen=True)
class JobRecord:
    """How far a job is.

    Attributes:
        command: what it does a part of.
        spec: what names its tasks on the command line: a task, a list, a file.
        tasks: their names.
        state: one of STATES; ``stopped`` was running and is no more.
        settings: of its command, as plain data, when it last began.
        host, pid: of the process that last worked at it.
        started: when that began, in seconds since 1970.
        seconds: that it took, once it has ended.
        error: why it failed, in one line.
        made_of: fingerprints of what it was made from, when it last began.
    """

    command: str
    spec: Any
    tasks: list[str]
    state: str = WAITING
    settings: dict[str, Any] | None = None
    host: str | None = None
    pid: int | None = None
    started: float | None = None
    seconds: float | None = None
    error: str | None = None
    made_of: dict[str, str] | None = None

    def begun(self, settings: dict[str, Any], made_of: dict[str, str] | None = None) -> JobRecord:
        """The record of the same job when this process begins to work at it."""
        return JobRecord(
            self.command,
            self.spec,
            self.tasks,
            RUNNING,
            settings,
            socket.gethostname(),
            os.getpid(),
            time.time(),
            made_of=made_of,
        )

    def ended(self, state: str, error: str | None = None) -> JobRecord:
        """The record when this process has ended its work."""
        assert self.started is not None
        seconds = round(time.time() - self.started, 2)
        return dataclasses.replace(self, state=state, seconds=seconds, error=error)

    def write(self, directory: Path) -> None:
        """Put it into the job's directory, atomically; whoever does holds the lock there."""
        write_atomically(directory / _RECORD, json.dumps(asdict(self), indent=1).encode())


def job_directory(run: Path, tasks: Sequence[str]) -> Path:
    """Where the job of these tasks works."""
    return run / JOBS / short_name(tasks)


def read_record(directory: Path) -> JobRecord | None:
    """How far the job of a directory is now; None if there is none.

    Raises:
        PwmError: if its record is damaged.
    """
    record = _written(directory)
    if record is None:
        return None
    if is_locked(directory):
        return dataclasses.replace(record, state=RUNNING)
    if record.state == RUNNING:  # it was killed, or has ended since the record was read
        record = _written(directory) or record
    return dataclasses.replace(record, state=STOPPED) if record.state == RUNNING else record


def _written(directory: Path) -> JobRecord | None:
    file = directory / _RECORD
    if not file.is_file():
        return None
    try:
        record = JobRecord(**json.loads(file.read_bytes()))
        if record.state not in STATES or not all(isinstance(name, str) for name in record.tasks):
            raise ValueError("it has unknown values")
    except (OSError, ValueError, TypeError) as error:
        raise PwmError(f"{file} is damaged ({error}); delete it to run its job anew.") from error
    return record


def read_records(run: Path) -> dict[Path, JobRecord]:
    """The jobs of a run directory, by their directories, which it orders by name.

    Raises:
        PwmError: if it has none, or a record is damaged.
    """
    parent = run / JOBS
    children = sorted(parent.iterdir()) if parent.is_dir() else []
    found = {path: read_record(path) for path in children if path.is_dir()}
    records = {path: record for path, record in found.items() if record is not None}
    if not records:
        raise PwmError(
            f"{run} has no jobs; give what was out= of `pwm collect`, `extract` or `evaluate` "
            "with -m."
        )
    return records
