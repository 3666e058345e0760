from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from forked import forked_command
from launch import without_hydra
from short_tasks import short_tasks

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.locks import DirectoryLock
from pwm.core.signals import Interrupted
from pwm.evaluation.scores import Results
from pwm.pipelines import jobs as jobs_module
from pwm.pipelines.job_records import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    WAITING,
    read_record,
    read_records,
)
from pwm.pipelines.jobs import KINDS, Jobs, job_specs
from pwm.runtime.checkpoint import is_checkpoint, load_checkpoint
from pwm.runtime.training_checkpoints import list_steps

FEW = "learner.iterations=2"  # where it does not matter what is learned


def jobs_of(words: list[str], tasks: str, *more: str, setting: str = "tasks") -> list[str]:
    """The command with a job for each of the tasks."""
    return [words[0], "-m", f"{setting}={tasks}", *words[1:], *more]


def states(run: Path) -> dict[str, str]:
    return {path.name: record.state for path, record in read_records(run).items()}


def assert_same_policies(one: Path, many: Path, tasks: tuple[str, ...]) -> None:
    for task in tasks:
        first, second = (load_checkpoint(run / task, "policy").tensors for run in (one, many))
        for group, tensors in first.items():
            for name, tensor in tensors.items():
                assert tensor.equal(second[group][name]), (task, group, name)


@pytest.fixture(scope="module")
def one(toy, toy_world_model, tmp_path_factory) -> Path:
    """Policies that one process extracted, task after task."""
    out = tmp_path_factory.mktemp("one") / "policies"
    assert main(toy.extract(toy_world_model, out, "group_size=1")) == 0
    return out


@pytest.fixture(scope="module")
def many(toy, toy_world_model, tmp_path_factory) -> Path:
    """The same policies by jobs, not to be written into."""
    out = tmp_path_factory.mktemp("many") / "policies"
    command = jobs_of(toy.extract(toy_world_model, out), ",".join(toy.tasks))
    assert main([*command, "group_size=1"]) == 0
    return out


@pytest.fixture(autouse=True)
def _jobs_without_hydra(request, monkeypatch):
    if "hydra" not in request.fixturenames:
        without_hydra(monkeypatch)


@pytest.fixture
def hydra():
    """Runs of the test are started by Hydra, as a user's are, and as those of ``many``."""


def test_jobs_put_the_policies_of_one_process_where_it_would_have_put_them(toy, one, many):
    assert_same_policies(one, many, toy.tasks)
    assert states(many) == dict.fromkeys(toy.tasks, DONE)
    for task in toy.tasks:
        job = many / "jobs" / task
        assert is_checkpoint(job / "out" / task)
        assert (job / "log.txt").read_text().startswith("extract ")


def test_gathered_policies_are_a_run_that_one_process_goes_on_with(toy, toy_world_model, many):
    def written():
        return {path: path.stat().st_mtime_ns for path in many.glob("*/checkpoint.json")}

    before = written()
    assert len(before) == 2
    assert main(["gather", f"run={many}"]) == 0
    assert json.loads((many / "run.json").read_text())["finished"]
    assert main(toy.extract(toy_world_model, many)) == 0
    assert written() == before


def test_a_done_job_is_not_begun_again_and_another_task_joins(toy, toy_world_model, tmp_path):
    words = toy.extract(toy_world_model, tmp_path, FEW)
    first, second = toy.tasks
    assert main(jobs_of(words, first)) == 0
    before = read_record(tmp_path / "jobs" / first)
    assert main(jobs_of(words, second)) == 0
    assert main(jobs_of(words, f"{second},{first}")) == 0
    assert read_record(tmp_path / "jobs" / first) == before
    assert list(Jobs.read(tmp_path).config.tasks) == [first, second]


def test_other_settings_in_the_same_place_are_refused(toy, toy_world_model, tmp_path, capsys):
    words = toy.extract(toy_world_model, tmp_path, FEW)
    assert main(jobs_of(words, toy.tasks[0])) == 0
    assert main(jobs_of(words, toy.tasks[1], "seed=3")) == 1
    assert "seed: 0 -> 3" in capsys.readouterr().err
    assert states(tmp_path) == {toy.tasks[0]: DONE}
    assert main(jobs_of(words, f"[{','.join(toy.tasks)}]")) == 1
    assert "has been in another job" in capsys.readouterr().err
    assert main(["collect", "-m", "suite=pendulum-swingup,cup-catch", f"out={tmp_path}"]) == 1
    assert "holds a run of `pwm extract`" in capsys.readouterr().err


def test_a_list_of_tasks_is_one_job(toy, toy_world_model, tmp_path):
    words = toy.extract(toy_world_model, tmp_path, FEW)
    assert main(jobs_of(words, f"[{','.join(toy.tasks)}]")) == 0
    ((job, record),) = read_records(tmp_path).items()
    assert job.name.startswith("2-tasks-")
    assert tuple(record.tasks) == toy.tasks
    assert all(is_checkpoint(tmp_path / task) for task in toy.tasks)


def test_a_suites_name_means_a_job_of_each_of_its_tasks():
    assert len(job_specs(["mt80"])) == 80
    assert job_specs(["walker-run", ["mw-push", "mw-reach"]]) == [
        "walker-run",
        ["mw-push", "mw-reach"],
    ]
    with pytest.raises(PwmError, match="mw-reach would be in two jobs"):
        job_specs(["quick", "mw-reach"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "added",
    [
        pytest.param(("{pendulum-swingup: 1, cartpole-balance: 2}",), marks=pytest.mark.slow),
        ("1", "{pendulum-swingup: 52, cartpole-balance: 3}"),
    ],
    ids=["once", "and more"],
)
def test_gathered_stores_are_the_bytes_of_one_process(added, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    names = ("pendulum-swingup", "cartpole-balance")
    tasks = ",".join(names)
    for episodes in added:
        more = [f"episodes={episodes}", "workers=1", "behaviour=random"]
        with short_tasks(names, 20):
            assert main(["collect", f"suite=[{tasks}]", f"out={one}", *more]) == 0
            assert main(["collect", "-m", f"suite={tasks}", f"out={many}", *more]) == 0
            assert main(["gather", f"run={many}"]) == 0
        files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
        assert len(files) == 6
        for file in files:
            assert (one / file).read_bytes() == (many / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize("clones", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_gathered_table_is_that_of_one_process(clones, toy, one, tmp_path):
    scores, alone = tmp_path / "scores", tmp_path / "alone"
    words = [
        "evaluate", f"policy={one}", f"data={toy.data}", "episodes=2", "batch=1", "workers=1",
        f"baselines=[{'bc,' if clones else ''}data_mean]", "cloning.updates=3",
    ]  # fmt: skip
    assert main(jobs_of([*words, f"out={scores}"], ",".join(toy.tasks))) == 0
    job = Results.load(scores / "jobs" / toy.tasks[0] / "out" / "results.json")
    assert set(job.baselines) == {"data_mean"}
    assert not (scores / "results.json").exists()
    assert main(["gather", f"run={scores}"]) == 0
    assert main([*words, f"out={alone}", f"tasks=[{','.join(toy.tasks)}]"]) == 0
    for name in ("results.json", "results.csv"):
        assert (scores / name).read_bytes() == (alone / name).read_bytes()
    if clones:  # which were played to gather, and nothing else
        steps = [json.loads((d / "throughput.json").read_text())["steps"] for d in (scores, alone)]
        assert steps[0] == steps[1] / 2
    else:
        assert not (scores / "throughput.json").exists()


def test_an_unknown_task_is_told_before_a_job_begins(toy, toy_world_model, tmp_path, capsys):
    words = toy.extract(toy_world_model, tmp_path / "policies")
    assert main(jobs_of(words, f"{toy.tasks[0]},mt31")) == 1
    assert "unknown suite or task 'mt31'" in capsys.readouterr().err
    assert not (tmp_path / "policies").exists()


def test_a_failed_job_is_told_of_while_others_are_done(toy, toy_world_model, tmp_path, capsys):
    good, bad = toy.tasks[0], "walker-run"  # which the world model does not know
    words = toy.extract(toy_world_model, tmp_path, FEW)
    assert main(jobs_of(words, f"{bad},{good}")) == 1
    assert "1 of 2 jobs are not done. What they printed is in" in capsys.readouterr().err
    assert states(tmp_path) == {bad: FAILED, good: DONE}
    assert "Traceback" in (tmp_path / "jobs" / bad / "log.txt").read_text()

    assert main(["status", f"run={tmp_path}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{bad} failed" in shown
    assert "extract, 2 jobs in" in shown and "1 done, 1 failed" in shown
    assert f"task '{bad}' is not in suite" in shown

    assert main(["gather", f"run={tmp_path}"]) == 1
    assert f"1 of 2 jobs are not done ({bad} failed)" in capsys.readouterr().err
    assert not (tmp_path / "config.yaml").exists()
    assert main(["gather", f"run={tmp_path}", "partial=true"]) == 0
    assert bad not in (tmp_path / "config.yaml").read_text()


def test_a_job_that_runs_elsewhere_is_left_alone(
    toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jobs_module, "_LOSS_PATIENCE", 0.1)
    first, second = toy.tasks
    job = tmp_path / "jobs" / first
    job.mkdir(parents=True)
    command = jobs_of(toy.extract(toy_world_model, tmp_path, FEW), f"{first},{second}")
    with DirectoryLock(job):
        replace(jobs_module.JobRecord("extract", first, [first])).begun({}).write(job)
        assert main(command) == 1
        assert "is being written by process" in capsys.readouterr().err
        assert states(tmp_path) == {first: RUNNING, second: DONE}
        main(["status", f"run={tmp_path}"])
        assert f"process {os.getpid()} on" in capsys.readouterr().out
    assert states(tmp_path) == {first: STOPPED, second: DONE}  # its process is no more
    assert main(command) == 0
    assert states(tmp_path) == {first: DONE, second: DONE}


def test_a_killed_job_goes_on_where_it_was(toy, toy_world_model, one, tmp_path):
    first, second = toy.tasks
    words = toy.extract(toy_world_model, tmp_path, "group_size=1")
    command = jobs_of(words, f"{first},{second}")
    process = forked_command(command, tmp_path / "log")
    checkpoints = tmp_path / "jobs" / first / "out" / "groups" / first / "checkpoints"
    process.wait_until(lambda: list_steps(checkpoints))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert states(tmp_path) == {first: STOPPED, second: WAITING}
    assert main(command) == 0
    assert_same_policies(one, tmp_path, toy.tasks)


@pytest.mark.usefixtures("keyboard_interrupts")
@pytest.mark.parametrize(
    ("signum", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_a_signal_stops_the_job_and_begins_no_other(
    signum, code, toy, toy_world_model, tmp_path, monkeypatch
):
    def stopped(config):
        raise Interrupted(signum, "saved")

    kind = replace(KINDS["extract"], function=stopped)
    monkeypatch.setitem(KINDS, "extract", kind)
    assert main(jobs_of(toy.extract(toy_world_model, tmp_path), ",".join(toy.tasks))) == code
    assert states(tmp_path) == {toy.tasks[0]: STOPPED, toy.tasks[1]: WAITING}


@pytest.mark.slow
def test_several_runs_of_their_own_are_no_jobs(hydra, toy, toy_world_model, tmp_path):
    words = toy.extract(toy_world_model, tmp_path, f"tasks=[{toy.tasks[1]}]", FEW)
    assert main([*words, "-m", "seed=0,1", f"out={tmp_path}/${{seed}}"]) == 0
    assert all(is_checkpoint(tmp_path / str(seed) / toy.tasks[1]) for seed in (0, 1))


def test_a_damaged_record_is_named(toy, many, tmp_path):
    job = tmp_path / "jobs" / "walker-run"
    job.mkdir(parents=True)
    (job / "job.json").write_text("{")
    with pytest.raises(PwmError, match=r"job.json is damaged .* delete it to run its job anew"):
        read_records(tmp_path)
