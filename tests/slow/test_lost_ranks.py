"""Ranks killed at random moments: torchrun starts all anew, and nothing is lost but time."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pwm.runtime.training_checkpoints import list_steps

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from torchrun import torchrun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = 10
STEPS = 600


def command(toy, out: Path, parallel: str) -> list[str]:
    words = [
        f"steps={STEPS}", "save_every=20", "q_and_prior=true", "model.num_q=3",
        f"parallel={parallel}", "log_every=5", "diagnose_every=200",
    ]  # fmt: skip
    return ["-m", "pwm.cli", *toy.pretrain(out, *words)]


def content(run: Path) -> dict[str, bytes]:
    files = [*list_steps(run / "checkpoints")[-1].glob("*.safetensors")]
    files += [run / "metrics.jsonl", run / "diagnostics.json"]
    return {path.name: path.read_bytes() for path in files}


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that torchrun started and that are still there."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies are such
            if "pwm.cli" in child.cmdline():
                found.append(child)
    return found


def newest_step(run: Path) -> int:
    return max((int(path.name[-9:]) for path in list_steps(run / "checkpoints")), default=0)


@pytest.fixture
def start():
    """Starts torchrun; whatever a test leaves of it is killed."""
    started: list[subprocess.Popen[str]] = []

    def by_torchrun(*words: list[str], **options: int) -> subprocess.Popen[str]:
        started.append(torchrun(*words, **options))
        return started[-1]

    yield by_torchrun
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()


def steps_logged(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_killed_ranks_are_started_again_and_the_end_is_the_same(parallel, toy, tmp_path, start):
    peace = start(command(toy, tmp_path / "peace", parallel))
    _, errors = peace.communicate()
    assert peace.returncode == 0, errors

    rng = random.Random(0)
    run = tmp_path / "killed"
    process = start(command(toy, run, parallel), restarts=KILLS)
    old: set[psutil.Process] = set()
    for kill in range(KILLS):
        while len(new := set(ranks_of(process)) - old) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        begun = newest_step(run)
        while kill % 3 and newest_step(run) == begun:  # the others die while they start
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3))
        rng.choice(sorted(new, key=lambda rank: rank.pid)).kill()
        old |= new
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert content(run) == content(tmp_path / "peace")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_signal_to_torchrun_saves_and_another_number_of_ranks_goes_on(
    parallel, toy, tmp_path, start
):
    process = start(command(toy, tmp_path / "run", parallel))
    while steps_logged(tmp_path / "run") < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert errors.count("pretraining saved at step") == 1
    assert f"saved at step {newest_step(tmp_path / 'run')} of {STEPS}" in errors
    more = start(command(toy, tmp_path / "run", parallel), ranks=1)
    _, errors = more.communicate()
    assert more.returncode == 0, errors
    assert newest_step(tmp_path / "run") == STEPS
