"""Collecting, extracting and evaluating tasks as independent jobs, through Hydra's launchers.

``pwm extract -m tasks=mt80 out=RUN launcher=slurm ...`` makes a job of each task. All share
``out``: a job works in its own directory under ``RUN/jobs`` (:mod:`pwm.pipelines.job_records`), its
policies are put where one process would have written them, and ``pwm gather`` does the same with
stores and results. Where and when jobs are started is up to the launcher.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError, explain_fault
from pwm.core.files import make_directory
from pwm.core.fingerprints import MadeOf, changed, definitions
from pwm.core.layout import JOBS
from pwm.core.locks import DirectoryLock
from pwm.core.renamed_settings import with_current_names
from pwm.core.settings import require_inputs
from pwm.core.signals import Interrupted, Terminated
from pwm.core.suites import SUITES, described_tasks, get_suite, task_names
from pwm.core.validation import from_plain, require_writable
from pwm.data.store import EpisodeStore
from pwm.envs import environment_sources
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.played_choice import extract
from pwm.extraction.config import ExtractConfig
from pwm.models.policy_directory import put_policies
from pwm.pipelines.job_records import (
    DONE,
    FAILED,
    LOG,
    OUT,
    RUNNING,
    STOPPED,
    WAITING,
    JobRecord,
    job_directory,
    read_record,
    read_records,
)
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.run_dir import changed_settings, open_run, read_config, resolved_config
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig

_LOCK_PATIENCE = 2.0  # `pwm status` holds a lock for a moment
_LOSS_PATIENCE = 60.0  # a lost process may work on for a while after its job was begun again


@dataclass(frozen=True)
class JobKind:
    """A command whose tasks can be jobs.

    Attributes:
        setting: what names the tasks.
        config: the type of its settings, with ``as_job`` and ``out``.
        function: what it does.
        always: whether a job that has ended is begun again, since it looks for changed inputs.
    """

    setting: str
    config: type[Any]
    function: Callable[[Any], Any]
    always: bool = False


KINDS = {
    "collect": JobKind("suite", CollectConfig, collect),
    "extract": JobKind("tasks", ExtractConfig, extract),
    "evaluate": JobKind("tasks", EvaluateConfig, evaluate, always=True),
}


@dataclass(frozen=True)
class Jobs:
    """All jobs that share a run directory.

    Attributes:
        run: the directory.
        command: what each does a part of.
        config: the settings of the command for all of the tasks.
        records: by the jobs' directories, in the order of the tasks.
    """

    run: Path
    command: str
    config: Any
    records: Mapping[Path, JobRecord]

    @classmethod
    def read(cls, run: Path) -> Jobs:
        """Raises PwmError if a directory has no jobs, or what is written of them is damaged."""
        records = read_records(run)
        command = next(iter(records.values())).command
        if command not in KINDS:
            raise PwmError(
                f"{run} has jobs of an unknown command '{command:.50}'; give another run=."
            )
        kind = KINDS[command]
        settings, _ = with_current_names(kind.config, read_config(run / JOBS))
        config = from_plain(kind.config, settings)
        order = {name: i for i, name in enumerate(task_names(getattr(config, kind.setting)))}
        by_task = sorted(records.items(), key=lambda item: order.get(item[1].tasks[0], len(order)))
        return cls(run, command, replace(config, out=str(run)), dict(by_task))

    def with_state(self, *states: str) -> dict[Path, JobRecord]:
        """The jobs in these states."""
        return {path: r for path, r in self.records.items() if r.state in states}


@dataclass(frozen=True)
class JobFunction:
    """What a launcher calls for a job, in this process, another one or on another machine.

    Attributes:
        command: a key of KINDS.
        directory: where relative paths begin.
    """

    command: str
    directory: str

    def __call__(self, config: Any) -> None:
        """Do the job of these settings, unless another process is at it.

        What it prints goes to the job's log, and how it ends to its record, so that one job's
        failure is no other's.

        Raises:
            KeyboardInterrupt: when a signal stopped it, after it has saved.
        """
        kind = KINDS[self.command]
        with chdir(self.directory):
            spec = getattr(config, kind.setting)
            directory = job_directory(Path(config.out), task_names(spec))
            make_directory(directory)
            lock = DirectoryLock(directory, _LOSS_PATIENCE)
            try:
                lock.acquire()
            except PwmError as error:
                print(f"pwm: {error}", file=sys.stderr)
                return
            try:
                with _printing_to(directory / LOG):
                    self._work(directory, spec, config)
            finally:
                lock.release()

    def _work(self, directory: Path, spec: Any, config: Any) -> None:
        kind, tasks = KINDS[self.command], list(task_names(spec))
        made_of = job_made_of(self.command, config, spec)
        record = JobRecord(self.command, spec, tasks).begun(resolved_config(config), made_of)
        record.write(directory)
        try:
            kind.function(replace(config.as_job(), out=str(directory / OUT), resume="auto"))
            if self.command == "extract":
                put_policies(directory / OUT, Path(config.out), tasks)
        except (Interrupted, KeyboardInterrupt) as stop:
            record.ended(STOPPED).write(directory)
            if isinstance(stop, KeyboardInterrupt):
                raise
            # What no launcher takes for a job's failure, after which it would begin the next one.
            interrupted = stop.signum == signal.SIGINT
            raise KeyboardInterrupt if interrupted else Terminated(stop.signum) from stop
        except Exception as error:
            traceback.print_exc()
            record.ended(FAILED, _first_line(error)).write(directory)
        else:
            record.ended(DONE).write(directory)


@contextmanager
def _printing_to(file: Path) -> Iterator[None]:
    with file.open("a") as log, redirect_stdout(log), redirect_stderr(log):
        yield


def _first_line(error: Exception) -> str:
    sentence = str(error) if isinstance(error, PwmError) else explain_fault(error)
    if sentence is None:
        sentence = f"{type(error).__name__}: {error}"
    return sentence.strip().split("\n")[0]


def job_specs(values: Sequence[Any]) -> list[Any]:
    """What names each job's tasks: a suite's name stands for a job of each of its tasks.

    Raises:
        PwmError: for unknown tasks, or a task in two jobs.
    """
    specs = [name for v in values for name in (SUITES[v].names if _is_suite(v) else [v])]
    names = [name for spec in specs for name in task_names(spec)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PwmError(f"{', '.join(twice)} would be in two jobs; name each task once.")
    return specs


def _is_suite(value: Any) -> bool:
    return isinstance(value, str) and value in SUITES


@contextmanager
def planned_jobs(
    command: str, config: Any, specs: Sequence[Any]
) -> Iterator[tuple[list[Any], JobFunction]]:
    """Note the jobs in their run directory, and hold the right to start jobs there.

    Args:
        command: a key of KINDS.
        config: the settings of the command for all of the tasks.
        specs: what names each job's tasks.

    Yields:
        The specs of the jobs that are to be started, which leaves out those that are done with
        these settings, and what to call for each.

    Raises:
        PwmError: for settings that cannot work, or if the directory has jobs with others, or is
            having some started by another process.
    """
    kind, run = KINDS[command], Path(config.out)
    config.validate()
    config.as_job()  # raises for what no job can have
    require_inputs(config)
    _require_known(command, config)
    require_writable(config.out)
    own = {job_directory(run, task_names(spec)): spec for spec in specs}
    _require_disjoint(run, own)
    widened = _widened(command, config)
    with open_run(run / JOBS, command, widened, inputs_made_of(config)):
        for directory, spec in own.items():
            _announce(command, directory, spec)
        yield (
            [
                spec
                for path, spec in own.items()
                if kind.always or not _is_done(path, command, config, spec)
            ],
            JobFunction(command, str(Path.cwd())),
        )


def _require_known(command: str, config: Any) -> None:
    """Raise PwmError for tasks that neither a suite nor, of an extraction, the data have.

    An evaluation is left to its jobs: its policies know tasks of their own.
    """
    spec = getattr(config, KINDS[command].setting)
    known = {task.name for task in described_tasks(spec)}
    if command == "extract":
        known |= set(EpisodeStore.open(config.data).suite.names)
    others = [name for name in task_names(spec) if name not in known]
    if others and command != "evaluate":
        get_suite(others)


def _require_disjoint(run: Path, own: Mapping[Path, Any]) -> None:
    """Raise PwmError if a task is in a job of the directory that has other tasks too, or fewer."""
    names = {name for spec in own.values() for name in task_names(spec)}
    others = read_records(run) if (run / JOBS).is_dir() else {}
    for path, record in others.items():
        if path not in own and (shared := sorted(names & set(record.tasks))):
            raise PwmError(
                f"{', '.join(shared)} has been in another job of {run}, of "
                f"{', '.join(record.tasks)}; repeat that one, or give another out=."
            )


def _widened(command: str, config: Any) -> Any:
    """The settings with the tasks of earlier jobs in the same directory too."""
    run, setting = Path(config.out), KINDS[command].setting
    if not (run / JOBS / "run.json").is_file():
        return config
    before = Jobs.read(run)
    if before.command != command:
        return config  # which is refused for that
    old, new = getattr(before.config, setting), getattr(config, setting)
    if set(task_names(old)) >= set(task_names(new)):
        return replace(config, **{setting: old})
    if set(task_names(old)) <= set(task_names(new)):
        return config
    return replace(config, **{setting: listed(old, new)})


def listed(*specs: Any) -> list[str]:
    """One list of what several specs name, each once."""
    names: list[str] = []
    for spec in specs:
        if isinstance(spec, str):
            names += SUITES[spec].names if spec in SUITES else spec.split(",")
        else:
            names += spec
    return list(dict.fromkeys(names))


def _announce(command: str, directory: Path, spec: Any) -> None:
    """Say that a job waits, unless it is done or running."""
    make_directory(directory)
    record = read_record(directory)
    if record is not None and record.state in (DONE, RUNNING):
        return
    with DirectoryLock(directory, _LOCK_PATIENCE):
        JobRecord(command, spec, list(task_names(spec)), WAITING).write(directory)


def _is_done(directory: Path, command: str, config: Any, spec: Any) -> bool:
    """Whether a job was done with these settings, from what is there now."""
    record, kind = read_record(directory), KINDS[command]
    if record is None or record.state != DONE or record.settings is None:
        return False
    before, _ = with_current_names(kind.config, record.settings)
    made_before, made_of = record.made_of or {}, job_made_of(command, config, spec)
    differences = changed_settings(
        kind.config, before, resolved_config(config), made_before, made_of
    )
    ignored = {kind.setting, "out", "resume"}
    return not changed(made_before, made_of) and set(differences) <= ignored


def job_made_of(command: str, config: Any, spec: Any) -> MadeOf:
    """Fingerprints of what a job is made from, whose tasks ``spec`` names."""
    own = described_tasks(spec)
    made_of = inputs_made_of(config, task_names(spec)) | definitions(own)
    for task in own if command == "collect" else ():
        made_of |= environment_sources(task)
    return made_of
