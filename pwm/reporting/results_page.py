"""RESULTS.md: scores of several seeds of a suite, beside baselines and published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.counted import counted
from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.protocols import describe_protocols
from pwm.core.suites import SUITES
from pwm.evaluation.published_scores import (
    METHODS,
    Published,
    describe_differences,
    mark_rows,
    published_columns,
)
from pwm.evaluation.score_tables import fixed
from pwm.evaluation.scores import EXTRACTED, METHOD_LABELS, SUCCESS_MEASURES
from pwm.evaluation.statistics import Interval
from pwm.reporting import plots, svg
from pwm.reporting.growth_rounds import Round, read_rounds
from pwm.reporting.seeds import Pooled, Seeds, own_tasks
from pwm.reporting.templating import render

_FIRST = ("random", "data_mean", "data_best", "bc", "bc_best")
_WORST = 5
_BESIDE = "pwm-48M"
"""The published method that every task is compared with in words and pictures."""

_Table = list[list[str]]  # of which the first row is the head


@dataclass(frozen=True)
class Sources:
    """The directories and files that a page is made from."""

    runs: tuple[Path, ...]  # evaluations of extracted policies, one per seed; of planners, any
    grown: tuple[Path, ...] = ()  # runs of ``pwm grow``, for curves by round
    strips: Path | None = None  # a directory of ``<task>_<i>.jpg``; None for the first run's
    notes: Path | None = None  # a Markdown file whose text the page takes in, or None

    def validate(self) -> None:
        """Raise PwmError for a directory or file that is not there."""
        if not self.runs:
            raise PwmError("run= is empty; give the directories that `pwm evaluate` wrote into.")
        for path in (*self.runs, *self.grown):
            if not path.is_dir():
                raise PwmError(f"there is no run directory {path}; check the path.")
        if len(set(self.runs)) < len(self.runs):
            raise PwmError("run= names a directory twice; give every seed once.")
        if self.strips is not None and not self.strips.is_dir():
            raise PwmError(f"there is no directory {self.strips} of strips; check the path.")
        if self.notes is not None and not self.notes.is_file():
            raise PwmError(f"there is no file {self.notes} of notes; check the path.")


def results_page(sources: Sources, page: Path, command: str) -> Path:
    """Write the page, and its pictures into a directory beside it, ``<page>_files``.

    Args:
        sources: the evaluations, and what else it shows.
        page: the Markdown file.
        command: the command that made it, for the page.

    Raises:
        PwmError: if something is missing, malformed, or of other tasks than the rest.
    """
    sources.validate()
    seeds = Seeds.read(sources.runs)
    grown = {path: read_rounds(path) for path in sources.grown}
    for path, rounds in grown.items():
        if not rounds:
            raise PwmError(f"{path} has no complete round of `pwm grow`; leave it out.")
        if missing := set(seeds.tasks) - set(rounds[0].tasks):
            raise PwmError(
                f"the rounds of {path} lack task {min(missing)}, which the runs have; give "
                "grown runs of the same suite, or leave grow= out."
            )
    pictures = page.with_name(f"{page.stem}_files")
    make_directory(pictures)
    content = _Content(seeds)
    context = {
        "command": command,
        "notes": sources.notes.read_text(encoding="utf-8").strip() if sources.notes else "",
        "pictures": pictures.name,
        **content.text(),
        "curves": content.curves(list(grown.values()), pictures) if grown else [],
        "strips": content.strips(sources.strips or sources.runs[0] / "strips", pictures),
    }
    write_atomically(page, render("results.md.j2", context).strip() + b"\n")
    return page


def parts_of(tasks: Sequence[str]) -> dict[str, list[str]]:
    """The benchmark's parts that the tasks cover whole, by name, and all tasks as the last."""
    found = {
        f"{name.upper()} part" if len(tasks) > len(SUITES[name]) else name.upper(): list(
            SUITES[name].names
        )
        for name in ("mt30", "mt50")
        if set(SUITES[name].names) <= set(tasks)
    }
    if list(tasks) not in found.values():
        whole = set(tasks) == set(SUITES["mt80"].names)
        found["MT80" if whole else f"all {counted(len(tasks), 'task')}"] = list(tasks)
    return found


class _Content:
    """The part of the page that follows from the evaluations."""

    def __init__(self, seeds: Seeds) -> None:
        self.seeds, self.tasks = seeds, seeds.tasks
        self.suite = seeds.extracted[0].suite
        self.methods = seeds.methods()
        self.parts = parts_of(seeds.tasks)
        self.published = published_columns(self.suite, self.tasks, METHODS)
        self.beside = self.published.get(_BESIDE)
        settings = [results.setting for results in seeds.extracted]
        self.setting = next((setting for setting in settings if setting.data_rows), settings[0])
        self.marks, self.legend = dict.fromkeys(self.tasks, ""), ""
        if self.published:
            self.marks, self.legend = mark_rows(self.setting, self.tasks, self.published)

    def text(self) -> dict[str, Any]:
        """The values of the template's head, tables and sentences."""
        extracted = self.seeds.extracted
        gaps = {
            task: self.beside.scores[task] - (self.methods[EXTRACTED].mean([task]) or 0.0)
            for task in self.tasks
            if self.beside is not None and task in self.beside.scores
        }
        behind = sorted((task for task in gaps if gaps[task] > 0), key=lambda task: -gaps[task])
        return {
            "seeds": len(extracted),
            "episodes": sorted({results.episodes for results in extracted}),
            "played": _seeds(extracted[0].seeds),
            "played_otherwise": [
                f"{METHOD_LABELS.get(results.method, results.method)} on {_seeds(results.seeds)}"
                for results in self.seeds.planned
                if results.seeds != extracted[0].seeds
            ],
            "cloned": bool({"bc", "bc_best"} & set(self.methods)),
            "summary": self._summary(),
            "beside": self.beside and self.beside.label,
            "behind": [f"{task} ({gaps[task]:.0f} points)" for task in behind[:_WORST]],
            "ahead": len(gaps) - len(behind),
            "compared": len(gaps),
            "every": self._every_task(),
            "success": self._success(),
            "protocols": describe_protocols(self.setting.protocols),
            "legend": self.legend,
            "data_rows": sum(self.setting.data_rows.get(task, 0) for task in self.tasks),
            "differences": describe_differences(self.published.values()),
        }

    def _part_published(self, part: str) -> dict[str, Published]:
        """The published figures of models of a part's own suite."""
        suite = "mt30" if part.startswith("MT30") else self.suite
        return published_columns(suite, self.parts[part], METHODS)

    def _ordered(self) -> list[str]:
        """Baselines, then extracted policies, then planners and anything else."""
        first = [name for name in _FIRST if name in self.methods]
        return [*first, EXTRACTED, *(n for n in self.methods if n not in (*_FIRST, EXTRACTED))]

    def _summary(self) -> _Table:
        own = [name for name in self._ordered() if name != EXTRACTED]
        heads = ["", "tasks", "extracted", "95 %", "each seed", "IQM", "IQM 95 %"]
        heads += [METHOD_LABELS.get(name, name) for name in own]
        heads += [f"{label}, published" for label in METHODS.values()]
        extracted, table = self.methods[EXTRACTED], [heads]
        for part, tasks in self.parts.items():
            published = self._part_published(part)
            each = (
                Pooled.of([results.policy.tasks], own_tasks(results))
                for results in self.seeds.extracted
            )
            iqm, iqm_interval = extracted.iqm(tasks)
            row = [f"**{part}**", str(len(tasks)), f"**{fixed(extracted.mean(tasks))}**"]
            row += [_span(extracted.interval(tasks))]
            row += [", ".join(fixed(seed.mean(tasks)) for seed in each)]
            row += [fixed(iqm), _span(iqm_interval)]
            row += [fixed(self.methods[name].mean(tasks)) for name in own]
            row += [fixed(published[m].mean if m in published else None) for m in METHODS]
            table.append(row)
        return _without_empty_columns(table)

    def _every_task(self) -> _Table:
        names = self._ordered()
        heads = ["task"]
        for name in names:
            heads += [METHOD_LABELS.get(name, name), *(["95 %"] if name == EXTRACTED else [])]
        heads += [*(f"{column.label}, published" for column in self.published.values()), "differs"]
        table = [heads]
        for task in self.tasks:
            published = (fixed(c.scores.get(task)) for c in self.published.values())
            table.append([task, *self._own(names, [task]), *published, self.marks[task]])
        in_mt80 = any(column.suite == "mt80" for column in self.published.values())
        for part, tasks in self.parts.items():
            beside = published_columns("mt80" if in_mt80 else "mt30", tasks, METHODS)
            means = (fixed(beside[m].mean if m in beside else None) for m in self.published)
            table.append([f"**{part}, mean**", *self._own(names, tasks, "**"), *means, ""])
        return _without_empty_columns(table)

    def _success(self) -> _Table:
        """Measures of success and returns, means over seeds; empty for tasks without success."""
        table = [["task", "last step", "any step", "steps to success", "return"]]
        for task in self.tasks:
            scores = [results.policy.tasks[task] for results in self.seeds.extracted]
            if all(score.success_last is None for score in scores):
                continue
            row = [task]
            for name, digits in SUCCESS_MEASURES.items():
                known = [value for s in scores if (value := getattr(s, name)) is not None]
                row.append(fixed(float(np.mean(known)) if known else None, digits))
            table.append(row)
        return _without_empty_columns(table) if len(table) > 1 else []

    def _own(self, names: Sequence[str], tasks: Sequence[str], bold: str = "") -> list[str]:
        cells = []
        for name in names:
            mean = fixed(self.methods[name].mean(tasks))
            if name == EXTRACTED:
                cells += [f"{bold}{mean}{bold}", _span(self.methods[name].interval(tasks))]
            else:
                cells.append(mean)
        return cells

    def curves(self, grown: Sequence[Sequence[Round]], pictures: Path) -> list[str]:
        """Scores by round of the parts and of every task: two pictures, as Markdown."""
        published = {part: self._part_published(part).get(_BESIDE) for part in self.parts}
        scores = self.beside.scores if self.beside else {}
        drawn = {
            ("rounds", "Mean score by round"): {
                f"{part}, mean": (tasks, column.mean if (column := published[part]) else None)
                for part, tasks in self.parts.items()
            },
            ("tasks", "Score of every task by round"): {
                task: ([task], scores.get(task)) for task in self.tasks
            },
        }
        links = []
        for (name, alt), panels in drawn.items():
            lines = {
                title: [_by_round(rounds, tasks) for rounds in grown]
                for title, (tasks, _) in panels.items()
            }
            marks = {title: mark for title, (_, mark) in panels.items()}
            drawing = svg.standalone(plots.rounds_grid(lines, marks, alt))
            write_atomically(pictures / f"{name}.svg", drawing.encode())
            links.append(f"![{alt}]({pictures.name}/{name}.svg)")
        return links

    def strips(self, directory: Path, pictures: Path) -> list[tuple[str, str]]:
        """The tasks of which there is a strip, which is copied, and their scores."""
        found = []
        for task in self.tasks:
            if (file := directory / f"{task}_0.jpg").is_file():
                write_atomically(pictures / f"{task}.jpg", file.read_bytes())
                found.append((task, fixed(self.methods[EXTRACTED].mean([task]))))
        return found


def _by_round(rounds: Sequence[Round], tasks: Sequence[str]) -> np.ndarray:
    return np.array([np.mean([r.tasks[t].normalized_score for t in tasks]) for r in rounds])


def _without_empty_columns(table: _Table) -> _Table:
    kept = [i for i in range(len(table[0])) if any(row[i] not in ("", "-") for row in table[1:])]
    return [[row[i] for i in kept] for row in table]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _span(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:z.0f} to {interval[1]:z.0f}"
