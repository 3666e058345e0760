"""RESULTS.md: what several seeds of a suite reached, beside baselines and published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.suites import SUITES
from pwm.evaluation.published_scores import (
    METHODS,
    Published,
    RunSetting,
    describe_differences,
    describe_marks,
    marks,
    method_label,
    published_columns,
)
from pwm.evaluation.scores import EXTRACTED, METHOD_LABELS
from pwm.reporting import plots
from pwm.reporting.growth_rounds import Round, read_rounds
from pwm.reporting.seeds import Pooled, Seeds

_FIRST = ("random", "data_mean", "data_best", "bc", "bc_best")
_WORST = 5
_BESIDE = "pwm-48M"
"""The published method that every task is compared with in words and pictures."""


@dataclass(frozen=True)
class Sources:
    """What a page is made from.

    Attributes:
        runs: directories of evaluations: of extracted policies, one a seed; of planners, any.
        grown: runs of ``pwm grow``, for curves by round.
        strips: a directory of pictures ``<task>_<i>.jpg``, or None for the first run's.
        notes: a Markdown file whose text the page takes in, or None.
    """

    runs: tuple[Path, ...]
    grown: tuple[Path, ...] = ()
    strips: Path | None = None
    notes: Path | None = None

    def validate(self) -> None:
        """Raise PwmError for what is not there."""
        if not self.runs:
            raise PwmError("run= is empty; give the directories that `pwm evaluate` wrote into.")
        for path in (*self.runs, *self.grown):
            if not path.is_dir():
                raise PwmError(f"there is no run directory {path}; check the path.")
        if len(set(self.runs)) < len(self.runs):
            raise PwmError("run= names a directory twice; give every seed once.")
        for path in self.grown:
            if not read_rounds(path):
                raise PwmError(f"{path} has no complete round of `pwm grow`; leave it out.")
        if self.strips is not None and not self.strips.is_dir():
            raise PwmError(f"there is no directory {self.strips} of strips; check the path.")
        if self.notes is not None and not self.notes.is_file():
            raise PwmError(f"there is no file {self.notes} of notes; check the path.")


def results_page(sources: Sources, page: Path, command: str) -> Path:
    """Write the page, and its pictures into a directory beside it, ``<page>_files``.

    Args:
        sources: what it is made from.
        page: the Markdown file.
        command: what the page says that it was made by.

    Raises:
        PwmError: if something is missing, malformed, or of other tasks than the rest.
    """
    sources.validate()
    seeds = Seeds.read(sources.runs)
    rounds = [read_rounds(path) for path in sources.grown]
    _require_same_tasks(seeds, rounds, sources.grown)
    pictures = page.with_name(f"{page.stem}_files")
    make_directory(pictures)
    parts = [
        _head(seeds, command),
        _summary(seeds),
        sources.notes.read_text(encoding="utf-8").strip() if sources.notes else "",
        _worst(seeds),
        _every_task(seeds),
        _differences(seeds),
        _curves(seeds, rounds, pictures),
        _strips(seeds, sources.strips or sources.runs[0] / "strips", pictures),
    ]
    write_atomically(page, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return page


def _require_same_tasks(
    seeds: Seeds, grown: Sequence[Sequence[Round]], paths: Sequence[Path]
) -> None:
    for rounds, path in zip(grown, paths, strict=True):
        if missing := set(seeds.tasks) - set(rounds[0].tasks):
            raise PwmError(
                f"the rounds of {path} lack task {min(missing)}, which the runs have; give "
                "grown runs of the same suite, or leave grow= out."
            )


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
        found["MT80" if whole else f"all {len(tasks)} tasks"] = list(tasks)
    return found


def _head(seeds: Seeds, command: str) -> str:
    count = len(seeds.extracted)
    episodes = sorted({results.episodes for results in seeds.extracted})
    cloned = {"bc", "bc_best"} & set(seeds.methods())
    over = "episodes" if count == 1 else f"{count} seeds and, within each, over episodes"
    return "\n".join(
        [
            f"# Results on {list(parts_of(seeds.tasks))[-1]}",
            "",
            f"Made by `{command}`.",
            "",
            f"Scores are normalized to 0..100: episode return / 10 for dm_control, success at the "
            f"last step for Meta-World. {count} seed{'s' if count > 1 else ''}, "
            f"{' or '.join(map(str, episodes))} episodes per task and seed, {_played(seeds)}. "
            f"Intervals are 95 % percentile bootstrap intervals over {over}."
            + (" BC is behavior cloning from observations." if cloned else ""),
        ]
    )


def _played(seeds: Seeds) -> str:
    """Which episodes those are, and which planners, being slow, played others or fewer."""
    same = seeds.extracted[0].seeds
    others = (
        f", but {METHOD_LABELS.get(results.method, results.method)} on {_seeds(results.seeds)}"
        for results in seeds.planned
        if results.seeds != same
    )
    return f"all methods on the same episodes ({_seeds(same)}){''.join(others)}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _summary(seeds: Seeds) -> str:
    methods = seeds.methods()
    own = [name for name in _ordered(methods) if name != EXTRACTED]
    rows = []
    for name, tasks in parts_of(seeds.tasks).items():
        published = _published(_suite_of(name, seeds), tasks)
        each = ", ".join(_fixed(Pooled.of([r.policy.tasks]).mean(tasks)) for r in seeds.extracted)
        rows.append(
            [
                f"**{name}**",
                str(len(tasks)),
                f"**{_fixed(methods[EXTRACTED].mean(tasks))}**",
                _span(methods[EXTRACTED].interval(tasks)),
                each,
                *(_fixed(methods[method].mean(tasks)) for method in own),
                *(_fixed(published[m].mean if m in published else None) for m in METHODS),
            ]
        )
    theirs = [f"{method_label(method)}, published" for method in METHODS]
    heads = ["", "tasks", "extracted", "95 %", "each seed", *(METHOD_LABELS.get(m, m) for m in own)]
    return (
        "## Summary\n\n"
        + _table([*heads, *theirs], rows)
        + (
            "\n\nPublished figures are those of models of their suite: of MT30 for the MT30 tasks, "
            "of MT80 otherwise."
        )
    )


def _suite_of(part: str, seeds: Seeds) -> str:
    """The suite whose published models a part is compared with."""
    return "mt30" if part.startswith("MT30") else seeds.extracted[0].suite


def _published(suite: str, tasks: Sequence[str]) -> dict[str, Published]:
    return {column.method: column for column in published_columns(suite, tasks, METHODS)}


def _ordered(methods: Mapping[str, Pooled]) -> list[str]:
    """Baselines, then extracted policies, then planners and anything else."""
    first = [name for name in _FIRST if name in methods]
    rest = [name for name in methods if name not in (*_FIRST, EXTRACTED)]
    return [*first, EXTRACTED, *rest]


def _worst(seeds: Seeds) -> str:
    column = _published(seeds.extracted[0].suite, seeds.tasks).get(_BESIDE)
    extracted = seeds.methods()[EXTRACTED]
    if column is None:
        return ""
    gaps = {
        task: theirs - (extracted.mean([task]) or 0.0)
        for task in seeds.tasks
        if (theirs := column.score(task)) is not None
    }
    behind = sorted((t for t in gaps if gaps[t] > 0), key=lambda t: -gaps[t])[:_WORST]
    if not behind:
        return ""
    listed = ", ".join(f"{task} ({gaps[task]:.0f} points)" for task in behind)
    ahead = sum(gap <= 0 for gap in gaps.values())
    return (
        f"{ahead} of {len(gaps)} tasks are at or above {column.label}'s published score. "
        f"Furthest below it: {listed}."
    )


def _every_task(seeds: Seeds) -> str:
    methods = seeds.methods()
    names, published = _ordered(methods), _published(seeds.extracted[0].suite, seeds.tasks)
    heads = ["task"]
    for name in names:
        heads += [METHOD_LABELS.get(name, name), *(["95 %"] if name == EXTRACTED else [])]
    heads += [*(f"{column.label}, published" for column in published.values()), "differs"]
    setting, suite = _setting(seeds), _marks_suite(published)
    rows = []
    for task in seeds.tasks:
        differs = marks(setting, task, suite) if published else ""
        rows.append([task, *_own(methods, names, [task], bold=False)])
        rows[-1] += [*(_fixed(column.score(task)) for column in published.values()), differs]
    for part, tasks in parts_of(seeds.tasks).items():
        beside = _published("mt80" if suite == "mt80" else "mt30", tasks)
        means = (_fixed(beside[m].mean if m in beside else None) for m in published)
        rows.append([f"**{part}, mean**", *_own(methods, names, tasks, bold=True), *means, ""])
    return "## Every task\n\n" + _table(heads, rows)


def _own(
    methods: Mapping[str, Pooled], names: Sequence[str], tasks: Sequence[str], bold: bool
) -> Iterator[str]:
    for name in names:
        mean = _fixed(methods[name].mean(tasks))
        yield f"**{mean}**" if bold and name == EXTRACTED else mean
        if name == EXTRACTED:
            yield _span(methods[name].interval(tasks))


def _setting(seeds: Seeds) -> RunSetting:
    """Of the first seed that tells of its data, if one does."""
    settings = [results.setting for results in seeds.extracted]
    return next((setting for setting in settings if setting.data_rows), settings[0])


def _marks_suite(published: Mapping[str, Published]) -> str:
    suites = [column.suite for column in published.values() if column.suite != "single-task"]
    return suites[0] if suites else "mt80"


def _differences(seeds: Seeds) -> str:
    columns = published_columns(seeds.extracted[0].suite, seeds.tasks, METHODS)
    if not columns:
        return ""
    setting = _setting(seeds)
    used = "".join(marks(setting, task, columns[0].suite) for task in seeds.tasks)
    rows = sum(setting.data_rows.get(task, 0) for task in seeds.tasks)
    ours = f"Ours learned from {rows:,} rows of data for these tasks. " if rows else ""
    listed = "\n".join(f"- {sentence}" for sentence in describe_differences(columns))
    return (
        "## What differs from the published figures\n\n"
        f"{ours}{describe_marks(setting, used)}\n\nThe published ones are of:\n\n{listed}"
    )


def _curves(seeds: Seeds, grown: Sequence[Sequence[Round]], pictures: Path) -> str:
    if not grown:
        return ""
    published = _published(seeds.extracted[0].suite, seeds.tasks)
    column = published.get(_BESIDE)
    panels, beside = {}, {}
    for part, tasks in parts_of(seeds.tasks).items():
        panels[f"{part}, mean"] = [_by_round(rounds, tasks) for rounds in grown]
        known = _published(_suite_of(part, seeds), tasks).get(_BESIDE)
        beside[f"{part}, mean"] = known.mean if known else None
    means = _picture(pictures / "rounds.svg", panels, beside, "Mean score by round")
    panels = {task: [_by_round(rounds, [task]) for rounds in grown] for task in seeds.tasks}
    beside = {task: column.score(task) if column else None for task in seeds.tasks}
    each = _picture(pictures / "tasks.svg", panels, beside, "Score of every task by round")
    of = f"; the dashed line is {column.label}'s published score" if column else ""
    return (
        "## Curves by round\n\n"
        f"One line per seed, scores of the policies at the end of a round{of}.\n\n{means}\n\n{each}"
    )


def _by_round(rounds: Sequence[Round], tasks: Sequence[str]) -> np.ndarray:
    return np.array([np.mean([r.tasks[t].normalized_score for t in tasks]) for r in rounds])


def _picture(
    file: Path,
    panels: Mapping[str, list[np.ndarray]],
    beside: Mapping[str, float | None],
    alt: str,
) -> str:
    drawing = plots.standalone(plots.rounds_grid(panels, beside, alt))
    write_atomically(file, drawing.encode())
    return f"![{alt}]({file.parent.name}/{file.name})"


def _strips(seeds: Seeds, directory: Path, pictures: Path) -> str:
    found = {task: directory / f"{task}_0.jpg" for task in seeds.tasks}
    found = {task: file for task, file in found.items() if file.is_file()}
    if not found:
        return ""
    extracted = seeds.methods()[EXTRACTED]
    lines = []
    for task, file in found.items():
        write_atomically(pictures / f"{task}.jpg", file.read_bytes())
        score = _fixed(extracted.mean([task]))
        lines.append(f"{task} ({score}):\n\n![{task}]({pictures.name}/{task}.jpg)")
    return "## Frames\n\nEach from the first to the last frame of one episode.\n\n" + "\n\n".join(
        lines
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; columns without a single entry are left out."""
    kept = [i for i in range(len(heads)) if any(row[i] not in ("", "-") for row in rows)]
    lines = [
        [heads[i] for i in kept],
        ["---"] * len(kept),
        *([row[i] for i in kept] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}"
