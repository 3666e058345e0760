"""``pwm data``: look at episode stores, check them, merge them, take episodes, list tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES
from pwm.core.validation import nearest
from pwm.data.inspection import info, verify
from pwm.data.merge_stores import merge
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.take_episodes import take

_USAGE = """usage: pwm data info DIR     episodes, rows, returns and where they came from, per task
       pwm data verify DIR   read every byte and compare with the recorded checksums
       pwm data merge OUT DIR DIR ...
                             all episodes of several stores in a new one
       pwm data take OUT DIR EPISODES [TASK ...] [seed=N]
                             episodes of each task, drawn at random, in a new one
       pwm data tasks        the tasks of every suite with their sizes"""


def data_command(words: Sequence[str]) -> None:
    """Run ``pwm data`` with the words after it.

    Raises:
        PwmError: for other words than the usage says, an unreadable store, or one with faults.
    """
    console = Console(markup=False)  # brackets in a path are none
    match list(words):
        case [] | ["-h"] | ["--help"]:
            console.print(_USAGE, highlight=False)
        case ["tasks"]:
            console.print(_task_table())
        case ["info", directory]:
            console.print(info(EpisodeStore.open(directory)))
        case ["verify", directory]:
            _verify(directory, console)
        case ["merge", out, first, second, *others]:
            console.print(info(EpisodeStore.open(merge(out, [first, second, *others]))))
        case ["take", out, directory, episodes, *others] if episodes.isdecimal():
            console.print(info(EpisodeStore.open(_take(out, directory, int(episodes), others))))
        case _:
            known = ("info", "verify", "merge", "take", "tasks")
            hint = "" if words[0] in known else nearest(words[0], known)
            raise PwmError(
                f"pwm data does not understand '{' '.join(words)}'{hint or ';'} give `pwm data "
                "info DIR`, `pwm data verify DIR`, `pwm data merge OUT DIR DIR ...`, `pwm data "
                "take OUT DIR EPISODES` or `pwm data tasks`."
            )


def _take(out: str, directory: str, episodes: int, words: Sequence[str]) -> Path:
    """Take episodes of the tasks among some words, with the seed among them."""
    seeds = [word.removeprefix("seed=") for word in words if word.startswith("seed=")]
    if len(seeds) > 1 or not all(seed.isdecimal() for seed in seeds):
        raise PwmError("pwm data take has one seed=, a whole number from 0.")
    tasks = [word for word in words if not word.startswith("seed=")]
    return take(out, directory, episodes, tasks, int(seeds[0]) if seeds else 0)


def _verify(directory: str, console: Console) -> None:
    unusable = BadData("skip")
    store = EpisodeStore.open(directory, bad=unusable)
    count = 0
    for problem in chain(unusable.problems, verify(store)):
        console.print(str(problem), soft_wrap=True, highlight=False)
        count += 1
    if count:
        raise PwmError(f"{directory} has {count} problem(s), listed above; restore it from a copy.")
    console.print(f"{directory} is whole: every checksum matches.", soft_wrap=True)


def _task_table() -> Table:
    table = Table("task", "obs", "action", "length", "suites")
    for task in SUITES["mt80"]:
        member = ", ".join(name for name, suite in SUITES.items() if task.name in suite)
        table.add_row(
            task.name, str(task.obs_dim), str(task.action_dim), str(task.episode_length), member
        )
    return table
