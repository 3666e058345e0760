"""``pwm report``: the command's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from pwm.progress import console
from pwm.report import report


@dataclass
class ReportConfig:
    """Settings of ``pwm report``.

    Attributes:
        run: the directory that ``pwm evaluate`` wrote results.json into.
    """

    run: str = MISSING


def report_command(config: ReportConfig) -> Path:
    """Make one self-contained HTML page of a run.

    Raises:
        PwmError: if there are no results, or a file of the run is malformed.
    """
    page = report(config.run)
    console.print(f"Report: {page}", soft_wrap=True)
    return page
