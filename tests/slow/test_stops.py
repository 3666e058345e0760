"""The whole line as a real process, stopped in each of its stages and given again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import digests

import pwm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(pwm.__file__).parent.parent
TASKS = ("pendulum-swingup", "reacher-easy")

WORDS = [
    "quickstart", "out=run", "device=cpu", f"collect.suite=[{','.join(TASKS)}]",
    "collect.episodes=60", "collect.workers=2", "pretrain.steps=600", "pretrain.batch_size=16",
    "pretrain.save_every=100000", "extract.learner.iterations=60", "extract.learner.batch_size=16",
    "extract.save_every=100000", "evaluate.episodes=4", "evaluate.workers=2",
    "evaluate.cloning.updates=200", "evaluate.baselines=[random,bc]",
]  # fmt: skip

# When a stage has something to lose: what it writes while it works.
BEGUN: dict[str, Callable[[Path], bool]] = {
    "collect": lambda run: (run / "data" / TASKS[0] / "rows.bin").exists(),
    "pretrain": lambda run: _lines(run / "world_model" / "metrics.jsonl") > 2,
    "extract": lambda run: any(_lines(p) for p in run.glob("policies/groups/*/metrics.jsonl")),
    "evaluate": lambda run: any(run.glob("cloned/*/*/checkpoint.json")),
}


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def start(directory: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pwm.cli", *WORDS],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(directory: Path) -> None:
    process = start(directory)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def stop_in(stage: str, directory: Path, signum: int) -> None:
    process = start(directory)
    while not BEGUN[stage](directory / "run"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signum, errors
    assert "he same command goes on from there" in " ".join(errors.split())
    assert "Traceback" not in errors


def content(run: Path) -> dict[str, str]:
    """Everything that follows from the settings: no records of time, and no commits' bounds."""
    files = digests(
        run,
        "data/*/*.bin",
        "world_model/checkpoints/step_000000600/*.safetensors",
        "world_model/metrics.jsonl",
        "policies/**/*.safetensors",
        "policies/groups/*/metrics.jsonl",
    )
    results = json.loads((run / "results.json").read_text())
    return files | {"results": json.dumps(results["tasks"], sort_keys=True)}


def test_stopped_in_every_stage_it_ends_the_same(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    finish(tmp_path / "whole")
    for number, stage in enumerate(BEGUN):
        stop_in(stage, tmp_path / "parts", (signal.SIGTERM, signal.SIGINT)[number % 2])
    finish(tmp_path / "parts")
    whole = content(tmp_path / "whole" / "run")
    assert len(whole) > 10
    assert content(tmp_path / "parts" / "run") == whole
