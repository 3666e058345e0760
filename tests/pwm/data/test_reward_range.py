from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import LARGE, SMALL, SUITE, make_episode

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.reward_range import outside_of_bins
from pwm.data.store import EpisodeStore
from pwm.models.world_model import ModelSize
from pwm.pretraining.data_warnings import Traits, data_warnings

TRAITS = Traits(ModelSize(), has_q=False, episodic=True)
BINS = (-10.0, 10.0)  # of symlog: rewards up to 22,025


def store_of(directory: Path, rewards: np.ndarray) -> EpisodeStore:
    """Two episodes for training and one held out of one task, and small rewards of another."""
    steps = len(rewards)
    with EpisodeStore.create(directory, SUITE) as store:
        store.add_source("test", {})
        episode = replace(make_episode(SMALL, steps), reward=rewards.astype(np.float32))
        store.append(SMALL.name, [episode] * 3, "test")
        store.append(LARGE.name, [make_episode(LARGE, steps)] * 3, "test")
    return EpisodeStore.open(directory)


def clamped(store: EpisodeStore, refuses: bool) -> list[str]:
    return data_warnings(store, SUITE, None, BadData(), TRAITS, refuses)


def test_the_share_outside_and_the_settings_with_room_are_named(tmp_path):
    rewards = np.full(40, -62_718.0)
    rewards[:10] = 1.0
    store = store_of(tmp_path, rewards)
    (found,) = outside_of_bins(store, SUITE, BINS, BadData())
    assert (found.task, found.what, found.share) == (SMALL.name, "rewards", 0.75)
    assert (found.low, found.high) == (-62_718.0, 1.0)
    assert found.remedy == "model.vmin=-12"
    assert not outside_of_bins(store, SUITE, (-12.0, 10.0), BadData())
    with pytest.raises(PwmError, match=r"small: 75\.00% of the rewards.*model\.vmin=-12"):
        clamped(store, refuses=True)
    assert len(clamped(store, refuses=False)) == 1  # a run that goes on


def test_under_one_percent_is_a_warning(tmp_path):
    rewards = np.zeros(200)
    rewards[7] = 30_000.0
    (line,) = clamped(store_of(tmp_path, rewards), refuses=True)
    assert "0.50% of the rewards" in line
    assert "model.vmax=11" in line


def test_rewards_at_the_bounds_are_inside(tmp_path):
    assert not clamped(store_of(tmp_path, np.array([-22_025.0, 0.0, 22_025.0])), refuses=True)


def test_values_of_a_q_ensemble_are_sums_of_rewards(tmp_path):
    store = store_of(tmp_path, np.full(100, 1000.0))
    assert not outside_of_bins(store, SUITE, BINS, BadData())
    discounts = {SMALL.name: 0.99, LARGE.name: 0.99}
    (found,) = outside_of_bins(store, SUITE, BINS, BadData(), discounts=discounts)
    to_go = 1000 * (1 - 0.99 ** np.arange(1, 101)) / 0.01
    assert found.what == "discounted returns"
    assert found.high == pytest.approx(to_go.max())
    assert found.share == pytest.approx((to_go > 22_025).mean())


def test_pretraining_refuses_before_it_begins(toy, tmp_path, capsys):
    from pwm.cli.main import main

    with (
        EpisodeStore.open(toy.data) as source,
        EpisodeStore.create(tmp_path / "data", source.suite) as store,
    ):
        store.add_source("test", {})
        for task in source.suite.names:
            episodes = [source.episode(task, i) for i in range(4)]
            large = [replace(e, reward=e.reward - 50_000) for e in episodes]
            store.append(task, large, "test")
    words = toy.pretrain(tmp_path / "run", f"data={tmp_path / 'data'}")
    assert main(words) == 1
    assert "100.00% of the rewards lie outside" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_observations_as_large_as_images_are_said_not_to_be_encoded(tmp_path):
    suite = Suite("seen", (replace(SMALL, obs_dim=27_648), LARGE))
    with EpisodeStore.create(tmp_path, suite) as store:
        store.add_source("test", {})
        for task in suite:
            store.append(task.name, [make_episode(task, 3, i) for i in range(3)], "test")
    store = EpisodeStore.open(tmp_path)
    (line,) = data_warnings(store, suite, None, BadData(), TRAITS, refuses=True)
    assert "task small has observations of 27,648 entries" in line
    assert "no encoder of images" in line
