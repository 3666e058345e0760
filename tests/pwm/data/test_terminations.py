from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import LARGE, SMALL, SUITE, make_episode

from pwm.core.errors import PwmError
from pwm.data.problems import BadData
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.data.terminations import terminating_tasks
from pwm.data.windows.sampler import WindowSampler
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.architecture import is_to_be_episodic
from pwm.pretraining.data_warnings import Traits, data_warnings


def store_of(directory: Path, ends: bool) -> EpisodeStore:
    """Episodes of 12 steps, of which those of one task may terminate with their last step."""
    with EpisodeStore.create(directory, SUITE) as store:
        store.add_source("test", {})
        for task in (SMALL, LARGE):
            terminated = np.zeros(12, bool)
            terminated[-1] = ends and task is SMALL
            episodes = [
                replace(make_episode(task, 12, seed), terminated=terminated) for seed in range(3)
            ]
            store.append(task.name, episodes, "test")
    return EpisodeStore.open(directory)


@pytest.mark.parametrize("memory", [0, 2**20])
def test_windows_have_the_recorded_terminations_where_they_are_asked_for(tmp_path, memory):
    store = store_of(tmp_path, ends=True)
    assert WindowSampler(store, 4, 8, 0, memory=memory).batch(0).terminated is None
    sampler = WindowSampler(store, 4, 40, 0, memory=memory, terminations=True)
    batch = sampler.batch(0)
    assert batch.terminated is not None
    rows = {tuple(store.episode("small", i).obs[-1]) for i in range(3)}
    last = [[tuple(obs[:3].tolist()) in rows for obs in step] for step in batch.obs[1:].numpy()]
    is_small = (batch.task == SUITE.id("small")).numpy()
    np.testing.assert_array_equal(batch.terminated.numpy(), np.array(last) & is_small)
    assert batch.terminated.any()
    assert batch.part(slice(0, 40, 2)).terminated.shape == (4, 20)


def test_a_world_model_predicts_terminations_if_the_data_have_some(tmp_path):
    out, bad = tmp_path / "run", BadData()
    without = store_of(tmp_path / "without", ends=False), SUITE, bad, None
    ends = store_of(tmp_path / "ends", ends=True), SUITE, bad, None
    assert terminating_tasks(*ends) == ["small"]
    assert not is_to_be_episodic("auto", None, out, without)
    assert is_to_be_episodic("auto", None, out, ends)
    assert not is_to_be_episodic("never", None, out, ends)
    assert is_to_be_episodic("always", None, out, without)
    given = WorldModel(ModelSize(8, 1, 8, 8, 4), SUITE)
    assert not is_to_be_episodic("auto", given, out, ends)
    with pytest.raises(PwmError, match="has no termination head"):
        is_to_be_episodic("always", given, out, ends)


def test_a_world_model_that_does_not_predict_terminations_is_said_to_imagine_on(tmp_path):
    store = store_of(tmp_path, ends=True)
    lines = {
        episodic: data_warnings(
            store, SUITE, None, BadData(), Traits(ModelSize(), False, episodic), refuses=True
        )
        for episodic in (True, False)
    }
    assert not lines[True]
    (line,) = lines[False]
    assert "episodes of task small terminate" in line


def test_nothing_is_expected_after_a_termination(tmp_path):
    """Neither by the targets of recorded transitions nor by what cloning weighs rows with."""
    store = store_of(tmp_path, ends=True)
    pools = {name: StatePool.draw(store, name, 100, 0, ahead=2) for name in SUITE.names}
    at_end = {name: pool.reward == pool.return_to_go for name, pool in pools.items()}
    assert {name: int(rows.sum()) for name, rows in at_end.items()} == {"small": 4, "large": 4}
    assert (pools["small"].next_discount[at_end["small"]] == 0).all()
    assert (pools["large"].next_discount[at_end["large"]] > 0).all()
    for pool, rows in zip(pools.values(), at_end.values(), strict=True):
        assert (pool.next_discount[~rows] == np.float32(0.99**2)).all()
    np.testing.assert_allclose(pools["small"].steps_to_go, 100, rtol=1e-6)
    assert pools["large"].steps_to_go.max() < 12
