from __future__ import annotations

import numpy as np
import pytest

from pwm.core.suites import Suite, Task
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.pretraining.normalization import observation_moments, widened_moments

TASK = Task("small", "dmcontrol", 3, 1, 20)
SUITE = Suite("small", (TASK,))


def store_with(path, obs: np.ndarray) -> EpisodeStore:
    steps = len(obs) - 1
    none = np.zeros(steps, bool)
    episode = Episode(obs, np.zeros((steps, 1)), np.zeros(steps), none, none)
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("made", {})
        store.append("small", [episode] * 2, "made")
    return EpisodeStore.open(path)


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    """Standard normal observations."""
    obs = np.random.default_rng(0).standard_normal((4000, 3))
    return store_with(tmp_path / "data", obs)


def test_moments_that_fit_stay_bit_for_bit(store):
    mean = np.float32([[0.3, -0.3, 0.0]])
    std = np.float32([[0.7, 1.0, 5.0]])
    new_mean, new_std = widened_moments(store, SUITE, mean, std)
    np.testing.assert_array_equal(new_mean, mean)
    np.testing.assert_array_equal(new_std, std)


def test_entries_that_the_data_outgrew_get_todays_moments(store):
    mean = np.float32([[0.0, 50.0, 0.3]])
    std = np.float32([[0.01, 10.0, 1.0]])  # hardly moved before; was elsewhere; fits
    new_mean, new_std = widened_moments(store, SUITE, mean, std)
    today = observation_moments(store, SUITE)
    np.testing.assert_array_equal(new_mean[0, :2], today[0][0, :2])
    np.testing.assert_array_equal(new_std[0, :2], today[1][0, :2])
    assert (new_mean[0, 2], new_std[0, 2]) == (np.float32(0.3), np.float32(1.0))


def test_tasks_without_data_and_padding_keep_theirs(store):
    other = Task("other", "dmcontrol", 4, 1, 20)
    suite = Suite("two", (other, TASK))
    mean, std = np.full((2, 4), 9.0, np.float32), np.full((2, 4), 0.5, np.float32)
    mean[1, 3], std[1, 3] = 0.0, 1.0  # padding
    new_mean, new_std = widened_moments(store, suite, mean, std)
    assert (new_mean[0] == 9.0).all() and (new_std[0] == 0.5).all()
    assert (new_mean[1, :3] < 1.0).all()
    assert (new_mean[1, 3], new_std[1, 3]) == (0.0, 1.0)
