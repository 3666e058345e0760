"""The benchmark as data: tasks, suites, sizes, episode lengths and how a score is normalized.

Task ids are positions in a suite, and published checkpoints and datasets depend on the order
(TD-MPC2, Hansen et al., ICLR 2024, appendix on the 30- and 80-task sets; PWM uses the same).
This module imports neither a simulator nor torch.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import msgspec

from pwm.core.action_bounds import bounds_fault
from pwm.core.errors import PwmError
from pwm.core.task_files import ENV_ID, TASK_NAME, Size, read_task_file, split_task_file
from pwm.core.validation import nearest

Domain = Literal["dmcontrol", "metaworld", "gymnasium"]

ACTION_FIELDS = ("action_low", "action_high")
GYMNASIUM_FIELDS = ("env_id", "env_kwargs", "score_min", "score_max", *ACTION_FIELDS)


@dataclass(frozen=True)
class Task:
    """One control task.

    Attributes:
        name: such as ``walker-run`` or ``mw-push``.
        domain: the simulator family that runs it; ``gymnasium`` for a user-defined task, which a
            task file describes (:mod:`pwm.core.task_files`).
        obs_dim: length of the unpadded observation.
        action_dim: length of the unpadded action, every entry in [-1, 1].
        episode_length: decision steps in an episode.
        action_repeat: simulator control steps in a decision step; rewards are summed over them.
        env_id: of a user-defined task, what ``gymnasium.make`` takes.
        env_kwargs: likewise, the environment's arguments as the text of a JSON object.
        score_min: likewise, the return that scores 0; None if success is the score.
        score_max: likewise, the return that scores 100.
        action_low: likewise, the lowest action of the environment, which -1 stands for; None where
            it is not known. Tasks that differ in this alone are equal.
        action_high: likewise, the highest.
    """

    name: str
    domain: Domain
    obs_dim: Size
    action_dim: Size
    episode_length: Size
    action_repeat: Size = 2
    env_id: str = ""
    env_kwargs: str = "{}"
    score_min: float | None = None
    score_max: float | None = None
    action_low: tuple[float, ...] | None = field(default=None, compare=False)
    action_high: tuple[float, ...] | None = field(default=None, compare=False)

    @property
    def scored_by_success(self) -> bool:
        """Whether the score is a success rate (Meta-World) rather than a return."""
        return self.domain == "metaworld" or (self.domain == "gymnasium" and self.score_min is None)

    @property
    def discount(self) -> float:
        """TD-MPC2's per-task heuristic, clip((f - 1) / f, 0.95, 0.995) with f = length / 5."""
        effective = self.episode_length / 5
        return min(max((effective - 1) / effective, 0.95), 0.995)

    def normalized_score(self, episode_return: float, success: float) -> float:
        """A score in 0..100: return / 10 for dm_control, 100 x success (0..1) for Meta-World.

        A user-defined task scores by success, or linearly in the return, where scores below 0 and
        above 100 are possible.
        """
        if self.scored_by_success:
            return 100.0 * success
        if self.score_min is None or self.score_max is None:
            return episode_return / 10.0
        return 100.0 * (episode_return - self.score_min) / (self.score_max - self.score_min)

    def table(self) -> dict[str, Any]:
        """The fields as plain data for JSON; those of user-defined tasks only where they apply."""
        left_out: tuple[str, ...] = GYMNASIUM_FIELDS
        if self.domain == "gymnasium":
            left_out = () if self.action_low is not None else ACTION_FIELDS
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in left_out
        }

    def facts(self) -> dict[str, Any]:
        """The fields that tell one task from another, as plain data for JSON."""
        return {own.name: getattr(self, own.name) for own in fields(self) if own.compare}


@dataclass(frozen=True)
class Suite:
    """An ordered set of tasks; a task's id is its position.

    Attributes:
        name: ``mt80``, or the task names joined with commas for an unnamed selection.
        tasks: the tasks in id order.
    """

    name: str
    tasks: tuple[Task, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in id order."""
        return tuple(task.name for task in self.tasks)

    @property
    def obs_dim(self) -> int:
        """Largest observation of the suite: what a multi-task model zero-pads to."""
        return max(task.obs_dim for task in self.tasks)

    @property
    def action_dim(self) -> int:
        """Largest action of the suite."""
        return max(task.action_dim for task in self.tasks)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {task.name: i for i, task in enumerate(self.tasks)}

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def id(self, name: str) -> int:
        """The id of a task in this suite; raises PwmError for a task that it lacks."""
        if name not in self._ids:
            raise PwmError(
                f"task '{name}' is not in suite '{self.name}'{nearest(name, self.names) or '.'}"
            )
        return self._ids[name]

    def __getitem__(self, name: str) -> Task:
        return self.tasks[self.id(name)]


_DMCONTROL = """
walker-stand 24 6|walker-walk 24 6|walker-run 24 6|cheetah-run 17 6|reacher-easy 6 2
reacher-hard 6 2|acrobot-swingup 6 1|pendulum-swingup 3 1|cartpole-balance 5 1
cartpole-balance-sparse 5 1|cartpole-swingup 5 1|cartpole-swingup-sparse 5 1|cup-catch 8 2
finger-spin 9 2|finger-turn-easy 12 2|finger-turn-hard 12 2|fish-swim 24 5|hopper-stand 15 4
hopper-hop 15 4|walker-walk-backwards 24 6|walker-run-backwards 24 6|cheetah-run-backwards 17 6
cheetah-run-front 17 6|cheetah-run-back 17 6|cheetah-jump 17 6|hopper-hop-backwards 15 4
reacher-three-easy 8 3|reacher-three-hard 8 3|cup-spin 8 2|pendulum-spin 3 1
"""

_METAWORLD = """
assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall
coffee-button coffee-pull coffee-push dial-turn disassemble door-open door-close drawer-close
drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side
handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall
plate-slide plate-slide-side plate-slide-back plate-slide-back-side push-back push push-wall reach
reach-wall shelf-place soccer stick-push stick-pull sweep-into sweep window-open window-close
bin-picking box-close door-lock door-unlock hand-insert
"""


_QUICK = "mw-reach mw-button-press-topdown mw-drawer-close pendulum-swingup cartpole-balance"

_MIXED10 = """
pendulum-swingup pendulum-spin cartpole-balance cartpole-swingup walker-stand
mw-reach mw-button-press-topdown mw-drawer-close mw-window-open mw-door-close
"""

_MT30 = tuple(
    Task(name, "dmcontrol", int(obs_dim), int(action_dim), 500)
    for name, obs_dim, action_dim in map(str.split, re.split(r"[|\n]", _DMCONTROL.strip()))
)
_MT50 = tuple(Task(f"mw-{name}", "metaworld", 39, 4, 100) for name in _METAWORLD.split())
_TASKS = {task.name: task for task in (*_MT30, *_MT50)}

SUITES = {
    "mt30": Suite("mt30", _MT30),
    "mt50": Suite("mt50", _MT50),
    "mt80": Suite("mt80", (*_MT30, *_MT50)),
    "quick": Suite("quick", tuple(_TASKS[name] for name in _QUICK.split())),
    "mixed10": Suite("mixed10", tuple(_TASKS[name] for name in _MIXED10.split())),
}


def get_task(name: str) -> Task:
    """A task by name, or the one that a file describes (:mod:`pwm.core.task_files`).

    Raises:
        PwmError: for an unknown name, with the nearest known one; for a file that cannot be used
            or has several tasks, of which ``file.yaml:name`` is one.
    """
    tasks = _named_tasks(name, ())
    if len(tasks) > 1:
        raise PwmError(
            f"{name} has {len(tasks)} tasks; name one of them, as in {name}:{tasks[0].name}."
        )
    return tasks[0]


def _named_tasks(name: str, known: Iterable[Task]) -> list[Task]:
    file, own = split_task_file(name)
    if file is None:
        return [_known_task(name, known)]
    tasks = []
    for entry in read_task_file(file):
        if isinstance(entry, str):
            tasks.append(_known_task(entry, (), f"{file}: "))
        elif entry["name"] in _TASKS or entry["name"] in SUITES:
            raise PwmError(
                f"{file}: name {entry['name']} is a task or suite of the benchmark; give your own "
                "task another name."
            )
        else:
            tasks.append(Task(**entry))
    return tasks if own is None else [Suite(file, tuple(tasks))[own]]


def _known_task(name: str, known: Iterable[Task], where: str = "") -> Task:
    tasks = {task.name: task for task in known} | _TASKS
    if name not in tasks:
        own = [other for other in tasks if other not in _TASKS]
        raise PwmError(
            f"{where}unknown task '{name}'{nearest(name, tasks) or '.'} "
            f"The task names are {_these_and(own)}those of suite mt80 (`pwm data tasks` lists "
            "them)."
        )
    return tasks[name]


def _these_and(names: Sequence[str]) -> str:
    return f"{', '.join(names)} and " if names else ""


def get_suite(spec: str | Sequence[str], known: Iterable[Task] = ()) -> Suite:
    """A suite by name, a single task as a suite of one, or a list of tasks as a suite.

    Args:
        spec: ``"mt30"``, ``"walker-run"``, ``"walker-run,mw-push"`` or a sequence of task names.
            A path that ends in .yaml stands for the tasks that the file describes, and with
            ``:name`` behind it for one of them.
        known: tasks that can be named beside those of the benchmark, such as a store has.

    Raises:
        PwmError: for unknown names, an empty list, a task named twice or what is no name.
    """
    if isinstance(spec, str) and spec in SUITES:
        return SUITES[spec]
    names, known = _names(spec), tuple(known)
    own = [task.name for task in known if task.name not in _TASKS]
    is_name = split_task_file(names[0])[0] is None
    if len(names) == 1 and is_name and names[0] not in (*_TASKS, *own):
        meant = nearest(names[0], [*SUITES, *_TASKS, *own]) or "."
        raise PwmError(
            f"unknown suite or task '{names[0]}'{meant} "
            f"Suites are {', '.join(SUITES)}; tasks are {_these_and(own)}those of mt80."
        )
    tasks = [task for name in names for task in _named_tasks(name, known)]
    names = [task.name for task in tasks]
    _require_once(names)
    return Suite(",".join(names), tuple(tasks))


def task_names(spec: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the tasks that :func:`get_suite` would give, whatever tasks there are.

    Raises:
        PwmError: as that does, but for unknown names.
    """
    if isinstance(spec, str) and spec in SUITES:
        return SUITES[spec].names
    names: list[str] = []
    for name in _names(spec):
        if split_task_file(name)[0] is not None:
            names += [task.name for task in _named_tasks(name, ())]
        elif TASK_NAME.fullmatch(name):
            names.append(name)
        else:
            raise PwmError(f"{name!r:.100} is no name of a task; give one such as walker-run.")
    _require_once(names)
    return tuple(names)


def described_tasks(spec: str | Sequence[str]) -> list[Task]:
    """Of the tasks that a spec names, those that files describe."""
    if isinstance(spec, str) and spec in SUITES:
        return []
    files = [name for name in _names(spec) if split_task_file(name)[0] is not None]
    return [task for name in files for task in _named_tasks(name, ())]


def _names(spec: str | Sequence[str]) -> list[str]:
    if isinstance(spec, str):
        names = [name.strip() for name in spec.split(",") if name.strip()]
    elif isinstance(spec, Sequence) and all(isinstance(name, str) for name in spec):
        names = list(spec)
    else:
        raise PwmError(
            f"{spec!r} names no tasks; give a suite such as mt30, a task, or a list of tasks."
        )
    if not names:
        raise PwmError("no task was named; give a suite such as mt30 or a list of task names.")
    return names


def _require_once(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise PwmError(f"a task is named twice in {', '.join(names)}; name each task once.")


def short_name(tasks: Sequence[str]) -> str:
    """A name for a directory of what belongs to some tasks: the task's own if it is one."""
    if len(tasks) == 1:
        return tasks[0]
    return f"{len(tasks)}-tasks-{zlib.crc32(','.join(tasks).encode()):08x}"


def suite_table(suite: Suite) -> dict[str, Any]:
    """A suite as plain data for JSON: its name and every task's fields."""
    return {"name": suite.name, "tasks": [task.table() for task in suite]}


def suite_from_table(table: Mapping[str, Any]) -> Suite:
    """The suite that :func:`suite_table` described; raises PwmError if it is no such table."""
    try:
        tasks = tuple(task_from_table(entry) for entry in table["tasks"])
        suite = Suite(msgspec.convert(table["name"], str), tasks)
    except (LookupError, TypeError, msgspec.ValidationError) as error:
        raise PwmError(f"a suite has no name or no list of tasks ({error}).") from error
    if not tasks or len(set(suite.names)) < len(suite):
        raise PwmError("a suite has no task, or two tasks of one name.")
    return suite


def task_from_table(table: Mapping[str, Any]) -> Task:
    """The task that :meth:`Task.table` described; raises PwmError if anything in it is wrong."""
    try:
        task = msgspec.convert(table, Task)
    except msgspec.ValidationError as error:
        raise PwmError(f"a task is not described as it must be: {error}.") from error
    if unknown := set(table) - set(asdict(task)):
        raise PwmError(f"a task has the unknown entries {', '.join(sorted(unknown))}.")
    if not TASK_NAME.fullmatch(task.name):
        raise PwmError(f"task name {task.name!r:.100} is not a plain file name.")
    if task.domain != "gymnasium":
        if present := sorted(set(table) & set(GYMNASIUM_FIELDS)):
            raise PwmError(f"task '{task.name}' is no Gymnasium task and has {present[0]}.")
    elif not ENV_ID.fullmatch(task.env_id) or not _is_json_object(task.env_kwargs):
        raise PwmError(f"task '{task.name}' names no Gymnasium environment.")
    elif (task.score_min is None) != (task.score_max is None) or (
        task.score_min is not None and not task.score_min < task.score_max  # type: ignore[operator]
    ):
        raise PwmError(f"the score of task '{task.name}' has no range.")
    elif (task.action_low, task.action_high) != (None, None) and (
        fault := bounds_fault(task.action_low or (), task.action_high or (), task.action_dim)
    ):
        raise PwmError(f"the action bounds of task '{task.name}' are wrong ({fault}).")
    return task


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
