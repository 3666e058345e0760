"""The offline benchmark from collecting to its tables, stopped on the way and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SHORT = "learner.batch_size=16 learner.horizon=4 learner.iterations=6 pool=256"
PLAN = {
    "tasks": {
        "pendulum-swingup": {"replay": 7, "medium": 6, "fixed": 2},
        "mw-reach": {"replay": 12, "medium": 10, "fixed": 2},
    },
    "kinds": ["mixed"],
    "seeds": 1,
    "episodes": 2,
    "points": 2,
    "pretrain": "model=tiny steps=40 batch_size=32 horizon.lengths=[3] warmup=10",
    "own": {"small_data": f"extract=small_data {SHORT}"},
    "cloning": {"updates": 40},
    "baselines": {name: {"updates": 20, "batch_size": 32} for name in ("td3bc", "iql", "rebrac")},
}


def test_it_is_stopped_and_goes_on_and_does_nothing_twice(tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    out = tmp_path / "out"
    words = [
        sys.executable, str(ROOT / "scripts" / "offline_benchmark.py"), f"out={out}", "workers=2",
        f"plan={tmp_path}/plan.yaml", f"digests={tmp_path}/digests.json",
    ]  # fmt: skip
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("data/mixed/*/manifest.json")):
        assert first.poll() is None, "it has ended before it was stopped"
        time.sleep(0.5)
    first.send_signal(signal.SIGTERM)
    assert "the same command goes on" in first.communicate(timeout=300)[1]
    assert first.returncode == 128 + signal.SIGTERM
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "td3bc, iql, rebrac are left out" in done.stdout
    assert "differ from those on record" not in done.stdout
    lines = [json.loads(text) for text in (out / "scores.jsonl").read_text().splitlines()]
    found = {(line["task"], line["method"]): line for line in lines}
    assert len(found) == len(lines) == 2 * 3
    assert all(0 <= line["score"] <= 100 for line in lines)
    ours = found["mw-reach", "small_data"]
    assert ours["updates"] == 6 and ours["model_seconds"] > 0
    assert ours["imagined_return"] is not None
    assert [updates for updates, _ in found["mw-reach", "bc"]["curve"]] == [10, 40]
    assert "| small_data |" in (out / "table.md").read_text()
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "0 jobs of learning to do" in again.stdout
    assert len((out / "scores.jsonl").read_text().splitlines()) == len(lines)
