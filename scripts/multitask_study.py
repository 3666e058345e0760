"""Compare ways of balancing and sharing in pretraining, each over several seeds, in one table.

``python scripts/multitask_study.py runs/mt30/data runs/balance steps=20000`` pretrains a model for
every way and seed with equally many updates of equally large batches, and reads what is written of
held-out episodes: the R2 of rewards and the latent error at 16 steps, or as far as the windows go,
over tasks and of the worst task. Further words are settings of ``pwm pretrain`` for all. It
goes on where it stopped. ``--extract "tasks=[...] extract=small_data"`` also extracts policies from
every model, with these settings, and adds their mean score. ``--equal-time`` gives each way as many
updates as the first one's take seconds: a few of each are timed before, and the counts are kept in
``updates.json``.

With ``--analysis DIR`` it compares one model for all tasks with a model per group, by each grouping
of ``pwm analyze``, and by random groups of the sizes of those by gradient, drawn anew for each
seed. The groups share the updates, so that all ways take the same compute. If DIR has no analysis,
the first model for all is analyzed, with ``--analyze`` before settings for that.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extracted_scores import extracted_scores

from pwm.cli.main import main as pwm
from pwm.multitask.config import AGGREGATES
from pwm.multitask.groups import read_groups, write_groups
from pwm.reporting.templating import markdown_table
from pwm.runtime.run_dir import read_run

WAYS = {
    name: f"balance={name}"
    for name in ("uniform", "size", "uncertainty", "gradnorm", "dwa", "progress")
} | {name: f"aggregate={name}" for name in AGGREGATES if name != "mean"}
WAYS |= {"soft": "sharing=soft"}
HEADER = (
    "way", "reward R2, median", "reward R2, mean", "reward R2, worst", "latent error, mean",
    "latent error, worst", "seconds",
)  # fmt: skip

RANDOM = "random groups"

_TIMED = (10, 50)  # updates of two short runs: the difference is without what a run begins with
_TURNS = 3  # of timing all ways one after the other; the quickest counts, since machines are shared

Row = tuple[float, ...]


def measured(diagnostics: dict[str, Any]) -> Row:
    """The five numbers of a diagnostics.json, at the most steps that each task has.

    Tasks whose rewards do not vary have no R2 and are left out of it; of one whose rewards hardly
    vary it can be far below zero, and then the median says more than the mean.
    """
    tasks = diagnostics["tasks"].values()

    def last(name: str) -> np.ndarray:
        found = [task[name][max(task[name], key=int)] for task in tasks]
        return np.array([value for value in found if value is not None])

    r2, error = last("reward_r2"), last("latent_error")
    return np.median(r2), r2.mean(), r2.min(), error.mean(), error.max()


def group_ways(analysis: Path) -> dict[str, str]:
    """Settings by way: one model, one per group of each of an analysis's files, random groups."""
    files = sorted((analysis / "groups").glob("*.json"))
    if not files:
        sys.exit(f"{analysis} has no groups; give what pwm analyze wrote as out=.")
    by_file = {f"groups by {file.stem.replace('_', ' ')}": f"groups={file}" for file in files}
    return {"uniform": WAYS["uniform"], **by_file, RANDOM: ""}


def make_analysis(given: argparse.Namespace) -> None:
    """Analyze the first model for all tasks, unless the analysis is there."""
    if (given.analysis / "analysis.json").is_file():
        return
    run(given.data, given.out, "uniform", WAYS["uniform"], 0, given.settings)
    model = f"checkpoint={given.out / 'uniform' / 'seed_0'}"
    code = pwm(["analyze", model, f"data={given.data}", f"out={given.analysis}", *given.analyze])
    if code:
        sys.exit(code)


def random_groups(like: Path, file: Path, seed: int) -> str:
    """The setting of groups of the sizes of those in a file, written into another one."""
    groups = read_groups(like)
    names = np.random.default_rng(seed).permutation([name for group in groups for name in group])
    ends = np.cumsum([len(group) for group in groups])[:-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_groups(file, "chance", [part.tolist() for part in np.split(names, ends)])
    return f"groups={file}"


def directory_of(out: Path, way: str, seed: int) -> Path:
    """Of one way's models."""
    return out / way.replace(" ", "_") / f"seed_{seed}"


def run(data: str, out: Path, way: str, setting: str, seed: int, words: list[str]) -> Row:
    """Pretrain one way's models if they are not there yet; their numbers and seconds."""
    directory = directory_of(out, way, seed)
    own = [f"data={data}", f"out={directory}", f"seed={seed}", setting]
    code = pwm(["pretrain", *words, *own])
    if code:
        sys.exit(code)
    seconds = float(read_run(directory).get("seconds") or np.nan)
    return *measured(json.loads((directory / "diagnostics.json").read_text())), seconds


def updates_in_time(given: argparse.Namespace, ways: dict[str, str]) -> dict[str, int]:
    """How many updates of each way take as long as all of the first one's."""
    kept = given.out / "updates.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    steps = [word for word in given.settings if word.startswith("steps=")]
    if not steps:
        sys.exit("--equal-time needs steps=N, the updates of the first way.")
    turns = [
        {way: _seconds_of_an_update(given, way, setting, turn) for way, setting in ways.items()}
        for turn in range(_TURNS)
    ]
    seconds = {way: min(turn[way] for turn in turns) for way in ways}
    whole = int(steps[-1].removeprefix("steps=")) * next(iter(seconds.values()))
    counts = {way: max(1, round(whole / value)) for way, value in seconds.items()}
    kept.write_text(json.dumps(counts, indent=1) + "\n")
    return counts


def _seconds_of_an_update(given: argparse.Namespace, way: str, setting: str, turn: int) -> float:
    def seconds(count: int) -> float:
        words, out = _with_steps(given.settings, count), given.out / f"timed_{turn}_{count}"
        return run(given.data, out, way, setting, 0, words)[-1]

    few, many = (seconds(count) for count in _TIMED)
    return max(many - few, 1e-3) / (_TIMED[1] - _TIMED[0])


def _with_steps(settings: list[str], count: int) -> list[str]:
    return [word for word in settings if not word.startswith("steps=")] + [f"steps={count}"]


def table(found: dict[str, list[Row]], scores: dict[str, list[float]] | None = None) -> str:
    """Markdown: a row per way; mean over seeds, +- the standard error."""
    rows = [[*HEADER, *(["score"] if scores else [])]]
    for way, values in found.items():
        columns = list(zip(*values, strict=True))
        row = [way, *map(mean_and_error, columns[:-1]), f"{np.median(columns[-1]):.0f}"]
        rows.append([*row, *([mean_and_error(scores[way], 1)] if scores else [])])
    return markdown_table(rows)


def mean_and_error(values: Sequence[float], digits: int = 3) -> str:
    """Over seeds; the standard error, where there are several."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def main(words: list[str] | None = None) -> None:
    """Print the table, and write it to ``table.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="an episode store")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", help="of pwm pretrain, for all")
    parser.add_argument("--ways", nargs="+", help="all by default")
    parser.add_argument("--analysis", type=Path, help="of pwm analyze, to compare groups of tasks")
    parser.add_argument("--analyze", nargs="+", default=[], help="settings of pwm analyze")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--extract", help="settings of pwm extract, in one word")
    parser.add_argument("--episodes", type=int, default=10, help="per task, of an evaluation")
    parser.add_argument("--equal-time", action="store_true", help="not equally many updates")
    given = parser.parse_intermixed_args(words)
    known = WAYS
    if given.analysis is not None:
        make_analysis(given)
        known = group_ways(given.analysis)
    ways = given.ways or list(known)
    if unknown := [way for way in ways if way not in known]:
        parser.error(f"unknown ways {', '.join(unknown)}; they are {', '.join(known)}")
    counts: dict[str, int] = {}
    if given.equal_time:
        if RANDOM in ways:
            parser.error("--equal-time times settings; random groups have them drawn anew.")
        given.out.mkdir(parents=True, exist_ok=True)
        counts = updates_in_time(given, {way: known[way] for way in ways})
    found: dict[str, list[Row]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(given.seeds):  # a table of fewer seeds is there before one of more
        for way in ways:
            setting = known[way]
            if way == RANDOM:
                like = given.analysis / "groups" / "gradient.json"
                setting = random_groups(like, given.out / "random" / f"{seed}.json", seed)
            words = _with_steps(given.settings, counts[way]) if counts else given.settings
            found[way].append(run(given.data, given.out, way, setting, seed, words))
            if given.extract:
                model = directory_of(given.out, way, seed)
                of_tasks = extracted_scores(
                    model, given.data, model / "score", given.extract, given.episodes, seed
                )
                scores[way].append(float(np.mean(list(of_tasks.values()))))
    text = table(found, scores if given.extract else None)
    (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
