from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from pwm.core import worker_pool
from pwm.core.suites import Suite, Task, get_suite
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore

# Several tests run side by side on few cores, and one thread makes sums repeat bit for bit.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Examples are the same in every run; a slow machine is no failure.
settings.register_profile(
    "pwm",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("pwm")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules of slow tests alone, whose imports take seconds, are read where those run."""
    slow = Path(__file__).parent / "slow"
    return True if collection_path == slow and config.option.markexpr == "not slow" else None


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage():
    """Collections of garbage pass over what is imported, some hundred thousand objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _disks_are_not_waited_for():
    """What was written survives processes that are killed here, and no machine loses its power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


@pytest.fixture(autouse=True)
def _no_leaks():
    """A test leaves the global random stream and the default dtype as it found them."""
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    yield
    torch.set_rng_state(state)
    torch.set_default_dtype(dtype)


class ForkedStart:
    """Workers begin with what this process has imported.

    A user's workers begin with nothing, and then take seconds to import torch and simulators.
    """

    active = sys.platform == "linux"
    _workers: ClassVar = weakref.WeakSet()
    _work = staticmethod(worker_pool._work)
    _start = worker_pool._Worker._start

    @classmethod
    def start(cls, worker: worker_pool._Worker) -> None:
        if not cls.active:
            return cls._start(worker)
        import envs.dmcontrol
        import envs.metaworld  # noqa: F401 - once for all workers

        cls._workers.add(worker)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker_pool, "_CONTEXT", multiprocessing.get_context("fork"))
            patch.setattr(worker_pool, "_work", cls._forked_work)
            return cls._start(worker)

    @classmethod
    def _forked_work(cls, *arguments: Any) -> None:
        for worker in cls._workers:  # inherited; open, they would hide that the caller hangs up
            worker.connection.close()
        cls._work(*arguments)


@pytest.fixture(scope="session", autouse=True)
def _forked_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_pool._Worker, "_start", lambda worker: ForkedStart.start(worker))
        yield


@pytest.fixture(autouse=True)
def _spawned_workers(request, monkeypatch):
    """Those of a test that is marked ``spawned`` start as a user's do."""
    if request.node.get_closest_marker("spawned"):
        monkeypatch.setattr(ForkedStart, "active", False)


@pytest.fixture
def keyboard_interrupts():
    """Python's own handler, which a process started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Toy:
    """Made-up data of two tasks with learnable dynamics, and commands that take seconds on it.

    The tasks are real ones, so that every command takes them and simulators play them, but with
    episodes of 50 steps; the data's episodes are invented.

    Attributes:
        tasks: their names.
        data: the store's directory.
    """

    tasks = ("reacher-easy", "pendulum-swingup")

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        real = get_suite(self.tasks)
        suite = Suite(real.name, tuple(replace(task, episode_length=50) for task in real))
        with EpisodeStore.create(self.data, suite) as store:
            store.add_source("toy", {"whole_episodes": True})
            for task in suite:
                store.append(task.name, [_toy_episode(task, i) for i in range(24)], "toy")

    def pretrain(self, out: Path, *overrides: str) -> list[str]:
        """The words of a pretraining command of 24 updates."""
        return [
            "pretrain", f"data={self.data}", f"out={out}", "device=cpu", "steps=24",
            "batch_size=8", "horizon.lengths=[1,2]", "horizon.starts=[0.0,0.5]", "warmup=2",
            "model=tiny", "model.encoder_dim=16", "model.mlp_dim=16", "model.latent_dim=16",
            "model.num_bins=21", "log_every=1", "save_every=10", "diagnose_every=1000",
            *overrides,
        ]  # fmt: skip

    def extract(self, world_model: Path, out: Path, *overrides: str) -> list[str]:
        """The words of an extraction command of 12 iterations."""
        return [
            "extract", f"data={self.data}", f"checkpoint={world_model}", f"out={out}",
            "device=cpu", "pool=64", "log_every=1", "save_every=5", "learner.iterations=12",
            "learner.batch_size=8", "learner.horizon=3", "learner.networks.actor=[8]",
            "learner.networks.critic=[8]", "learner.networks.critics=2",
            "learner.critic.iterations=1", "learner.critic.batches=2",
            "learner.bc.weight=0.1", *overrides,
        ]  # fmt: skip


def _toy_episode(task: Task, seed: int, steps: int = 30) -> Episode:
    """The state drifts towards the actions, and is rewarded for being near the origin."""
    rng = np.random.default_rng([seed, task.obs_dim])
    push = np.random.default_rng(task.obs_dim).standard_normal((task.obs_dim, task.action_dim))
    action = np.clip(rng.normal(rng.uniform(-0.5, 0.5), 0.5, (steps, task.action_dim)), -1, 1)
    obs = np.empty((steps + 1, task.obs_dim))
    obs[0] = rng.standard_normal(task.obs_dim)
    for t in range(steps):
        obs[t + 1] = 0.9 * obs[t] + 0.4 * push @ action[t]
    reward = 2 * np.exp(-np.square(obs[1:]).sum(1) / task.obs_dim)
    false = np.zeros(steps, bool)
    return Episode(
        obs.astype(np.float32),
        action.astype(np.float32),
        reward.astype(np.float32),
        false,
        reward > 1.5,
        "toy",
        seed,
    )


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_world_model(toy, tmp_path_factory) -> Path:
    """A finished pretraining run on the toy data; not to be written into."""
    from pwm.cli.main import main

    out = tmp_path_factory.mktemp("toy_world_model") / "run"
    assert main(toy.pretrain(out)) == 0
    return out
