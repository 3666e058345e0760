"""Whole commands on the GPU, as a user gives them, and the tests that need one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu.facts import DEVICE, TINY, claim, say

ROOT = Path(__file__).resolve().parents[2]
RANKS = ("5M",)
_SHIPPED = ROOT / "checkpoints/mt80"
_TASKS = (
    "walker-walk,cheetah-run,cup-catch,finger-spin,mw-reach,mw-push,mw-button-press,mw-drawer-open"
)


def start(words: Sequence[str], output: int | None = None) -> subprocess.Popen[str]:
    """A command of the project; ``output`` is where its messages go."""
    command = [sys.executable, "-m", "pwm", *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=output, text=True)


def pretrain() -> None:
    """Pretraining stops by a signal and goes on over a change of horizon; its losses fall."""
    work = Path(tempfile.mkdtemp(prefix="pretrain-"))
    steps = 20 if TINY else 400
    words = [
        "pretrain", f"data={_SHIPPED / 'data'}", f"out={work / 'run'}", f"device={DEVICE}",
        f"steps={steps}", "model=tiny" if TINY else "model=5M", "warmup=10", "log_every=10",
        f"batch_size={80 if TINY else 1024}", "horizon.lengths=[4,16]", "horizon.starts=[0.0,0.5]",
        "save_every=100", f"diagnose_every={steps}",
    ]  # fmt: skip
    first, file = start(words), work / "run/metrics.jsonl"
    while first.poll() is None and _lines(file) < (1 if TINY else 6):
        time.sleep(0.1)
    if first.poll() is None:
        first.send_signal(signal.SIGTERM)
    claim("stops when asked", first.wait() in (143, 0), code=first.returncode)
    claim("goes on", start(words).wait() == 0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    claim("every step is logged once", [x["step"] for x in lines] == [*range(10, steps + 1, 10)])
    began, ended = lines[0]["reward_loss"], lines[-1]["reward_loss"]
    claim("the reward loss falls", ended < began, first=began, last=ended)
    shutil.rmtree(work)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def extract() -> None:
    """Eight tasks at once, after updates that only clone; a policy acts on the CPU."""
    import numpy as np

    work = Path(tempfile.mkdtemp(prefix="extract-"))
    words = [
        "extract", f"checkpoint={_SHIPPED / 'world_model'}", f"data={_SHIPPED / 'data'}",
        f"out={work / 'policies'}", f"device={DEVICE}", f"tasks=[{_TASKS}]", "log_every=10",
        f"learner.iterations={3 if TINY else 60}", "learner.bc.warmup_steps=10",
        "learner.bc.weight=1.0", f"learner.batch_size={8 if TINY else 256}", "save_every=30",
        f"pool={64 if TINY else 8192}",
    ]  # fmt: skip
    if TINY:
        words += ["learner.horizon=2", "learner.networks.actor=[8]", "learner.networks.critic=[8]"]
    began = time.perf_counter()
    process = start(words, subprocess.PIPE)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(f"{time.perf_counter() - began:6.1f} s  {line.rstrip()}")
    say("said", said[-20:])
    claim("ends", process.wait() == 0, seconds=round(time.perf_counter() - began, 1))
    claim("says that it builds", TINY or any("building kernels" in line for line in said))
    from pwm import load_policy

    policy = load_policy(work / "policies/walker-walk")
    action = policy.act(np.zeros((2, policy.task.obs_dim), np.float32))
    finite = np.isfinite(action).all() and action.shape == (2, policy.task.action_dim)
    claim("a policy acts on the CPU", finite)
    shutil.rmtree(work)


def gpu_tests() -> list[str]:
    """The files with tests that need a GPU."""
    mark = "mark." + "gpu"
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(f.relative_to(ROOT)) for f in files if mark in f.read_text()]


def tests(wanted: Sequence[str]) -> None:
    """The tests that need a GPU, each file apart."""
    for path in wanted:
        words = ["-n", "0", "-p", "no:cacheprovider", "-q", "-m", "gpu", path]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True
        )
        print(result.stdout[-6000:], result.stderr[-2000:], flush=True)
        last = (result.stdout.strip().splitlines() or [""])[-1]
        ran = result.returncode == 0 and (TINY or "passed" in last)
        claim(path, ran, code=result.returncode, said=last)


def ranks(wanted: Sequence[str]) -> None:
    """One rank under torchrun beside the plain loop."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    for model in wanted:
        words = ["--ranks", "1", "--device", DEVICE, "--models", "tiny" if TINY else model]
        words += ["--batch", "8" if TINY else "256", "--repeats", "2" if TINY else "5"]
        result = subprocess.run(
            [sys.executable, "scripts/weak_scaling.py", *words],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        print(result.stderr[-3000:], flush=True)
        ended = result.returncode == 0
        claim(model, ended, code=result.returncode, table=result.stdout.splitlines())
