from __future__ import annotations

import numpy as np
import pytest
import torch

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.extraction.behavior_cloning import CloningConfig, clone, saved_clones
from pwm.models.policy import load_policy

SUITE = get_suite("reacher-easy,pendulum-swingup")
CONFIG = CloningConfig(updates=400, batch_size=64, pool=2000, lr=3e-3, hidden=[32])


def expert(task_name: str, obs: np.ndarray) -> np.ndarray:
    action_dim = SUITE[task_name].action_dim
    return np.tanh(obs[:, :action_dim] - 0.5 * obs[:, -action_dim:]).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Good episodes follow an expert, the others do the opposite."""
    path = tmp_path_factory.mktemp("cloning") / "store"
    rng = np.random.default_rng(0)
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {})
        for task in SUITE:
            episodes = []
            for i in range(30):
                obs = (3 + 2 * rng.standard_normal((41, task.obs_dim))).astype(np.float32)
                sign = 1 if i % 3 == 0 else -1
                reward = np.full(40, float(sign), np.float32)
                false = np.zeros(40, bool)
                action = sign * expert(task.name, obs[:-1])
                episodes.append(Episode(obs, action, reward, false, false))
            store.append(task.name, episodes, "test")
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def cloned(store):
    return clone(store, SUITE.tasks, 0.3, CONFIG, seed=0)


def error(policy, task) -> float:
    obs = (3 + 2 * np.random.default_rng(1).standard_normal((500, task.obs_dim))).astype(np.float32)
    return float(np.abs(policy.act(obs) - expert(task.name, obs)).mean())


def test_cloning_the_best_follows_the_expert(cloned):
    assert set(cloned) == set(SUITE.names)
    for task in SUITE:
        assert cloned[task.name].task == task
        assert error(cloned[task.name], task) < 0.15


def test_cloning_everything_follows_the_crowd(store):
    everything = clone(store, SUITE.tasks, 1.0, CONFIG, seed=0)
    for task in SUITE:
        assert error(everything[task.name], task) > 0.4


def test_the_seed_alone_decides(store, cloned):
    torch.manual_seed(5)
    again = clone(store, SUITE.tasks, 0.3, CONFIG, seed=0)
    other = clone(store, SUITE.tasks, 0.3, CONFIG, seed=1)
    obs = np.zeros((1, 6), np.float32)
    wanted = cloned["reacher-easy"].act(obs)
    np.testing.assert_array_equal(again["reacher-easy"].act(obs), wanted)
    assert not np.array_equal(other["reacher-easy"].act(obs), wanted)


def test_a_wrong_share_is_refused(store):
    with pytest.raises(PwmError, match="share of the episodes"):
        clone(store, SUITE.tasks, 0.0, CONFIG, seed=0)


def test_saved_clones_are_made_once_for_the_same_data_and_settings(store, tmp_path):
    few = CloningConfig(updates=3, batch_size=8, pool=50, hidden=[8])

    def save(**changes) -> dict[str, int]:
        paths = saved_clones(tmp_path, store, SUITE.tasks, config=few, **changes)
        assert list(paths) == [task.name for task in SUITE]
        return {name: (path / "checkpoint.json").stat().st_mtime_ns for name, path in paths.items()}

    first = save(best=1.0, seed=0)
    obs = np.ones((4, 6), np.float32)
    wanted = clone(store, SUITE.tasks, 1.0, few, 0)["reacher-easy"].act(obs)
    np.testing.assert_array_equal(load_policy(tmp_path / "reacher-easy").act(obs), wanted)
    assert save(best=1.0, seed=0) == first
    assert save(best=0.5, seed=0) != first
    assert save(best=1.0, seed=0) != first
