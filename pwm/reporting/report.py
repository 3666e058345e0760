"""``pwm report``: one HTML page of a run, or a Markdown page of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.progress import console
from pwm.core.settings import setting
from pwm.core.validation import require_writable
from pwm.reporting.html_page import report
from pwm.reporting.results_page import Sources, results_page


@dataclass
class ReportConfig:
    """Settings of ``pwm report``.

    Attributes:
        run: the directory that ``pwm evaluate`` wrote results.json into. For a results page also
            a list of such directories, of the same tasks: one per seed, and any of planners.
        results: the Markdown file of a results page, such as RESULTS.md, in the place of the HTML
            page of one run; its pictures go beside it.
        grow: for curves on the results page, a run of ``pwm grow`` or a list of them.
        strips: a directory of strips for the results page; by default that of the first run.
        notes: a Markdown file whose text the results page takes in after its summary.
    """

    run: Any = setting(MISSING, input_path=True)
    results: str | None = None
    grow: Any = setting(None, input_path=True)
    strips: str | None = setting(None, input_path=True)
    notes: str | None = setting(None, input_path=True)


def report_command(config: ReportConfig) -> Path:
    """Make one self-contained HTML page of a run, or a Markdown page of several seeds.

    Raises:
        PwmError: if there are no results, or a file of a run is malformed.
    """
    runs = _paths("run", config.run)
    if config.results is None:
        only_for_results = {name: getattr(config, name) for name in ("grow", "strips", "notes")}
        if given := [name for name, value in only_for_results.items() if value is not None]:
            raise PwmError(f"{given[0]}= is for a results page; give its file too, as results=.")
        if len(runs) != 1:
            raise PwmError(
                "an HTML page is of one run; give one, or results=RESULTS.md for a page of all."
            )
        page = report(runs[0])
    else:
        page = Path(config.results)
        if page.suffix != ".md":
            raise PwmError(f"results={page} must be a Markdown file, such as RESULTS.md.")
        require_writable(str(page.parent), "results")
        sources = Sources(
            tuple(runs),
            tuple(_paths("grow", config.grow)),
            None if config.strips is None else Path(config.strips),
            None if config.notes is None else Path(config.notes),
        )
        page = results_page(sources, page, _command(config, runs))
    console.print(f"Report: {page}", soft_wrap=True)
    return page


def _paths(name: str, given: Any) -> list[Path]:
    """One path or a list of them."""
    if given is None:
        return []
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise PwmError(f"{name}={given!r} must be a directory or a list of directories.")
    return [Path(value) for value in values]


def _command(config: ReportConfig, runs: Sequence[Path]) -> str:
    """The command as it can be typed again."""
    given = {"run": runs, "grow": _paths("grow", config.grow)}
    words = [f"{name}=[{','.join(map(str, paths))}]" for name, paths in given.items() if paths]
    plain = {name: getattr(config, name) for name in ("strips", "notes", "results")}
    return " ".join(["pwm report", *words, *(f"{n}={v}" for n, v in plain.items() if v)])
