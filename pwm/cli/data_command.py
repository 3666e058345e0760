"""``pwm data``: look at an episode store, check it, merge several, list the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from rich.console import Console
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES
from pwm.core.validation import nearest
from pwm.data.inspection import info, verify
from pwm.data.merge_stores import merge
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore

_USAGE = """usage: pwm data info DIR     episodes, rows, returns and where they came from, per task
       pwm data verify DIR   read every byte and compare with the recorded checksums
       pwm data merge OUT DIR DIR ...
                             all episodes of several stores in a new one
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
        case _:
            known = ("info", "verify", "merge", "tasks")
            hint = "" if words[0] in known else nearest(words[0], known)
            raise PwmError(
                f"pwm data does not understand '{' '.join(words)}'{hint or ';'} give `pwm data "
                "info DIR`, `pwm data verify DIR`, `pwm data merge OUT DIR DIR ...` or `pwm data "
                "tasks`."
            )


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
