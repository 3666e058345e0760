"""Differentiable simulators of robots on the GPU: their gradients, their speed, and learning."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from gpu.commands import start
from gpu.facts import DEVICE, TINY, claim, memory, part, say, synchronize

PARTS = ("gradients", "rate", "learning")
_ROBOTS = ("ant",) if TINY else ("hopper", "ant", "anymal", "humanoid", "humanoid_muscles")
_WORLDS = (2,) if TINY else (64, 1024, 8192)
_CONTROL_STEPS = 4
_RUNS = {"ant": ("pwm", "shac"), "humanoid_muscles": ("pwm",)}
_STEPS = 100 if TINY else 200_000


def check(wanted: Sequence[str]) -> None:
    """Whatever of it is wanted."""
    lacking = [name for name in ("warp", "newton") if find_spec(name) is None]
    claim("the simulator is installed", not lacking, lacking=lacking)
    if lacking:
        return
    for name in wanted:
        {"gradients": gradients, "rate": rate, "learning": learning}[name]()


def gradients() -> None:
    """The adjoint against finite differences."""
    from locomotion_gradients import compare

    for robot in _ROBOTS:
        with part(robot):
            began = time.perf_counter()
            found = compare(robot, steps=_CONTROL_STEPS, seed=0, checks=20, device=DEVICE)
            facts = {"correlation": found.correlation, "median_error": found.median_error}
            seconds = round(time.perf_counter() - began, 1)
            claim(f"gradients of {robot}", found.correlation > 0.99, seconds=seconds, **facts)


def rate() -> None:
    """Control steps a second of all worlds together, without and with derivatives."""
    from pwm.locomotion.catalog import make_simulation

    for robot in _ROBOTS:
        for worlds in _WORLDS:
            with part(f"{robot} x {worlds}"):
                simulation = make_simulation(robot, num_envs=worlds, device=DEVICE)
                shape = worlds, simulation.action_size
                simulation.reset()
                forward = _rate(simulation, torch.zeros(shape, device=DEVICE), 16)
                action = torch.zeros(shape, device=DEVICE, requires_grad=True)
                both = _rate(simulation, action, 16)
                say(f"{robot} x {worlds}", {"forward": forward, "both": both, **memory()})


def _rate(simulation, action, steps: int) -> int:  # type: ignore[no-untyped-def]
    for repeat in range(2):
        if repeat:
            synchronize()
            began = time.perf_counter()
        simulation.detach()
        with torch.set_grad_enabled(action.requires_grad):
            rewards = [simulation.step(action).reward for _ in range(steps)]
        if action.requires_grad:
            torch.stack(rewards).sum().backward()
        synchronize()
    return round(len(action) * steps / (time.perf_counter() - began))


def learning() -> None:
    """``pwm compare`` side by side, each method as far as it comes."""
    work = Path(tempfile.mkdtemp(prefix="locomotion-"))
    running = {}
    for robot, methods in _RUNS.items():
        for method in methods:
            out = work / f"{robot}-{method}"
            words = [
                "compare", f"tasks={robot}", f"methods=[{method}]", f"steps={_STEPS}", "seeds=1",
                f"out={out}", f"device={DEVICE}", "evaluations=4", "episodes=4",
                *(["compare=small"] if TINY else []),
            ]  # fmt: skip
            running[out] = start(words)
    for out, process in running.items():
        code = process.wait()
        curves = [json.loads(file.read_text()) for file in out.rglob("curve.json")]
        for curve in curves:
            curve["returns"] = [round(sum(r) / len(r), 1) for r in curve["returns"]]
        claim(f"{out.name} learns to its end", code == 0, curves=curves)
    shutil.rmtree(work)
