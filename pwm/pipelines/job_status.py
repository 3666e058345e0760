"""``pwm status``: how far the jobs of a run directory are."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pwm.core.settings import setting
from pwm.pipelines.job_records import FAILED, RUNNING, STATES, STOPPED, JobRecord, read_records


@dataclass
class StatusConfig:
    """Settings of ``pwm status``.

    Attributes:
        run: what was ``out=`` of ``pwm collect``, ``extract`` or ``evaluate`` with ``-m``.
    """

    run: str = setting(MISSING, input_path=True)


def status(config: StatusConfig) -> None:
    """Show which jobs of a run directory are done, running, stopped, failed or waiting.

    Raises:
        PwmError: if it has no jobs, or what is written of them is damaged.
    """
    print_status(Path(config.run))


def print_status(run: Path) -> None:
    """Print a row a job of a run directory, and how many there are of each state.

    Raises:
        PwmError: as :func:`pwm.pipelines.job_records.read_records` does.
    """
    records = list(read_records(run).values())
    table = Table("task", "state", "time", "where", "why", box=SIMPLE_HEAD, show_edge=False)
    for record in records:
        where, why = _where(record), record.error if record.state == FAILED else None
        tasks = escape(", ".join(record.tasks))
        table.add_row(tasks, record.state, _time(record), where, escape(why or ""))
    counts = Counter(record.state for record in records)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES[::-1] if counts[state])
    console = Console()
    console.print(table)
    console.print(f"{records[0].command}, {len(records)} jobs in {run}: {summary}", soft_wrap=True)


def _where(record: JobRecord) -> str:
    if record.state not in (RUNNING, STOPPED) or record.pid is None:
        return ""
    return f"process {record.pid} on {record.host}"


def _time(record: JobRecord) -> str:
    seconds = record.seconds
    if record.state == RUNNING and record.started is not None:
        seconds = time.time() - record.started
    return "" if seconds is None else f"{seconds:.0f} s"
