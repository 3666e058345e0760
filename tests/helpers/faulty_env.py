"""Real simulations with faults on demand, importable in workers; and what does harm to workers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from pwm.core import worker_pool
from pwm.core.suites import Task


class Faulty(PendulumEnv):
    """Gymnasium's pendulum; a file ``<token>*`` makes one step fail as its name says, and is gone.

    Args:
        token: path of such files without ``.nan``, ``.raise``, ``.die`` or ``.hang``.
        cursed: a seed whose episodes always give NaN at their fifth step.
    """

    def __init__(self, token: str, cursed: int | None = None, render_mode: str | None = None):
        super().__init__(render_mode)
        self._token, self._cursed, self._seed, self._steps = token, cursed, None, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._seed, self._steps = seed, 0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> Any:
        self._steps += 1
        obs, reward, *rest = super().step(action)
        kind = next(filter(self._taken, ("nan", "raise", "die", "hang")), None)
        cursed = self._cursed is not None and self._seed == self._cursed and self._steps == 5
        if kind == "nan" or cursed:
            obs = obs * np.nan
        if kind == "raise":
            raise FloatingPointError("the simulation is unstable")
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        return obs, reward, *rest

    def _taken(self, kind: str) -> bool:
        """Whether there was such a file, and this process is the one that took it."""
        try:
            os.unlink(f"{self._token}.{kind}")
        except FileNotFoundError:
            return False
        return True


gymnasium.register("Faulty-v0", "faulty_env:Faulty")


def faulty_task(token: Path, cursed: int | None = None, length: int = 60) -> Task:
    kwargs = f'{{"token": "{token}", "cursed": {"null" if cursed is None else cursed}}}'
    return Task(
        "faulty", "gymnasium", 3, 1, length, 1, "faulty_env:Faulty-v0", kwargs, -1500.0, 0.0
    )


class Harm(threading.Thread):
    """Kills or stops random workers of this process at random moments until it is left.

    A worker that is stopped before its first sign of life is given up after 30 s.
    """

    def __init__(self, kinds: list[signal.Signals], every: float, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self._kinds, self._every, self._random = kinds, every, random.Random(seed)
        self._left = threading.Event()
        self.done = 0

    def run(self) -> None:
        while self._kinds and not self._left.wait(self._every * self._random.uniform(0.5, 1.5)):
            if workers := workers_of(os.getpid()):
                self._random.choice(workers).send_signal(self._kinds.pop())
                self.done += 1

    def __enter__(self) -> Harm:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(worker_pool, "_SECONDS_TO_START", 30.0)
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left.set()
        self.join()
        self._patch.undo()


def workers_of(pid: int) -> list[psutil.Process]:
    """Worker processes of a process that have begun to work."""
    found = []
    forked = {child.pid for child in multiprocessing.active_children()}
    for child in psutil.Process(pid).children():
        try:
            spawned = "spawn_main" in " ".join(child.cmdline())
            begun = child.cpu_times().user > (0.3 if spawned else 0.03)
            if begun and (spawned or child.pid in forked):
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
