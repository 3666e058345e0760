"""The quick suite extracted and evaluated as jobs, one of which is killed, beside one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pwm
from pwm.core.suites import get_suite
from pwm.pipelines.job_records import DONE, RUNNING, JobRecord, read_record, read_records
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.training_checkpoints import list_steps

ROOT = Path(pwm.__file__).parent.parent
TASKS = get_suite("quick").names
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class QuickSuite:
    """A small store of the suite, the shipped world model, and commands on them.

    Paths are relative where a command puts its results, so that those of two directories can be
    the same bytes.
    """

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        run(directory, "collect", "suite=quick", "episodes=3", f"out={self.data}")

    @property
    def extract(self) -> list[str]:
        """The words of an extraction that saves several times a task."""
        return [
            "extract", f"data={self.data}", f"checkpoint={ROOT}/checkpoints/quick/world_model",
            "out=policies", "device=cpu", "compile=never", "extract=small_data",
            "learner.iterations=40", "group_size=1", "pool=256", "save_every=5",
        ]  # fmt: skip

    @property
    def evaluate(self) -> list[str]:
        """The words of an evaluation in pieces of one episode."""
        return [
            "evaluate", "policy=policies", f"data={self.data}", "out=scores", "episodes=3",
            "batch=1", "workers=1", "baselines=[random,data_mean]",
        ]  # fmt: skip


def start(directory: Path, *words: str) -> subprocess.Popen[str]:
    """A command in a directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "pwm.cli", *words],
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(directory: Path, *words: str) -> str:
    """What a command prints that must end well."""
    process = start(directory, *words)
    shown = process.communicate()[0]
    assert process.returncode == 0, shown
    return shown


def as_jobs(words: list[str], *more: str) -> list[str]:
    """The command for a job of each task."""
    return [words[0], "-m", "tasks=quick", *words[1:], *more]


def has_saved(job: Path) -> bool:
    """Whether a job has something that it can go on from, and is not done."""
    record = read_record(job)
    if record is None or record.state != RUNNING or record.pid is None:
        return False
    outcomes = job / "out" / "outcomes.jsonl"
    return outcomes.is_file() or any(
        list_steps(group / "checkpoints") for group in job.glob("out/groups/*/")
    )


def wait_for(condition: Callable[[], object], seconds: float = 1800) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def running_job(run_directory: Path, where: Callable[[JobRecord], bool] = lambda _: True) -> Path:
    """A job that runs and has saved, as soon as there is one."""
    found: list[Path] = []

    def look() -> bool:
        jobs = (run_directory / "jobs").glob("*/job.json")
        found[:] = [j.parent for j in jobs if has_saved(j.parent) and where(_record(j.parent))]
        return bool(found)

    wait_for(look)
    return found[0]


def _record(job: Path) -> JobRecord:
    record = read_record(job)
    assert record is not None
    return record


def kill_a_job(run_directory: Path) -> tuple[Path, int]:
    """Kill the process of a job that runs and has saved; the job, and what was its process."""
    job = running_job(run_directory)
    pid = _record(job).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return job, pid


def assert_done_by_another(job: Path, pid: int) -> None:
    """A job whose process was killed has been done by another one."""
    record = _record(job)
    assert record.state == DONE and record.pid != pid


def assert_same(one: Path, many: Path) -> None:
    """The same policies, and the same table to the byte."""
    assert set(read_records(many / "policies")) == {many / "policies/jobs" / t for t in TASKS}
    for task in TASKS:
        policies = [load_checkpoint(d / "policies" / task, "policy") for d in (one, many)]
        for group, tensors in policies[0].tensors.items():
            for name, tensor in tensors.items():
                assert tensor.equal(policies[1].tensors[group][name]), (task, group, name)
    for name in ("results.json", "results.csv"):
        assert (one / "scores" / name).read_bytes() == (many / "scores" / name).read_bytes()
