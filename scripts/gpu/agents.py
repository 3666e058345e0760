"""Agents of several tasks that learn in one loop on the GPU, while the cores step simulators."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from gpu.commands import start
from gpu.facts import DEVICE, TINY, claim, first_calls, say, timed

from pwm.core.suites import get_suite
from pwm.runtime.acceleration import Acceleration
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.agents_replay import Transitions
from pwm.simulation.stacked_agents import Agents, first_state

_TASKS = ("walker-walk", "cheetah-run", "cup-catch", "finger-spin", "cartpole-swingup")
_SECONDS = 5 if TINY else 30
_SMALL = (
    "workers=1", "agents.envs_per_task=2", "agents.learning_starts=20", "agents.batch_size=8",
    "agents.net_arch=[8]", "agents.compile=never",
)  # fmt: skip


def check() -> None:
    """``collect=agents_gpu`` for a while: steps a second, and that it stops and goes on."""
    say("an update", _update())
    lacking = [name for name in ("mujoco", "dm_control") if find_spec(name) is None]
    claim("the simulators are installed", not lacking, lacking=lacking)
    if lacking:
        return
    tasks = _TASKS[-1:] if TINY else _TASKS
    out = Path(tempfile.mkdtemp(prefix="agents-")) / "data"
    words = [
        "collect", "collect=agents_gpu", f"suite=[{','.join(tasks)}]", f"out={out}",
        f"agents.device={DEVICE}", *(_SMALL if TINY else ()),
    ]  # fmt: skip
    code, seconds, said = _for_a_while(words)
    claim("stops when asked", code == 143, code=code, said=said[-3:])
    steps = _steps(out)
    fact = {"tasks": len(tasks), "steps": steps, "seconds": round(seconds, 1)}
    say("rate", fact | {"steps_s": round(steps / seconds), "said": said[-3:]})
    claim("simulators step", steps > 0)
    code, _, said = _for_a_while(words)
    claim("goes on", code == 143 and _steps(out) > steps, code=code, said=said[-3:])
    shutil.rmtree(out.parent)


def _update() -> dict[str, float]:
    """Milliseconds of an update of the agents of MT30, as ``collect=agents_gpu`` has them."""
    tasks = list(get_suite("mt30"))[: 2 if TINY else None]
    config = AgentsConfig(net_arch=[8] if TINY else [256, 256], batch_size=8 if TINY else 512)
    obs_dim = max(task.obs_dim for task in tasks)
    action_dim = max(task.action_dim for task in tasks)
    accelerator = Acceleration("never" if TINY else "auto").prepare(torch.device(DEVICE))
    states = [first_state(task, config, 0) for task in tasks]
    agents = Agents(tasks, obs_dim, action_dim, config, accelerator, states)
    count = len(tasks), config.batch_size
    columns = [torch.randn(*count, size, device=DEVICE) for size in (obs_dim, obs_dim, action_dim)]
    columns += [torch.randn(count, device=DEVICE), torch.zeros(count, device=DEVICE)]
    noise = torch.randn(2, *count, action_dim, device=DEVICE)
    call = partial(agents.update, Transitions(*columns), noise)
    first = first_calls(call)
    return first | timed(call, 5 if TINY else 100)


def _for_a_while(words: list[str]) -> tuple[int, float, list[str]]:
    """Exit code, seconds from the simulators' first step to a signal, and what was said."""
    process = start(words, subprocess.PIPE)
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line.rstrip())
        if line.startswith("The simulators have started"):
            break
    began = time.perf_counter()
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    seconds = time.perf_counter() - began
    said += process.stderr.read().splitlines()
    return process.wait(), seconds, said


def _steps(out: Path) -> int:
    """Steps of all tasks together, by their newest checkpoints."""
    steps = 0
    for task in out.glob(".agents/*/*"):
        newest = sorted(task.glob("step_*/checkpoint.json"))[-1]
        facts = json.loads(newest.read_text())["meta"]["episodes"]
        steps += facts["clock"] * facts["slots"]
    return steps
