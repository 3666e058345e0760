from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from stores import LARGE, SMALL, SUITE, make_episode

from pwm.data.inspection import info, unscorable, verify
from pwm.data.pack_sample import SampleConfig, sample
from pwm.data.ranking import (
    _residual_by_episodes,
    _residual_by_features,
    best_first,
    success_known,
    surplus,
)
from pwm.data.store import EpisodeStore


@pytest.mark.parametrize("task", [SMALL, LARGE])
def test_of_like_starts_the_best_are_those_that_their_task_scores_highest(tmp_path, task):
    episodes = []
    for reward, succeeds in [(3, False), (1, True), (2, True), (9, False)]:
        episode = make_episode(task, 4, 0, "ou")
        success = np.array([True, True, True, succeeds])
        reward = np.full(4, reward, np.float32)
        episodes.append(dataclasses.replace(episode, reward=reward, success=success))
    found = best_first(_store(tmp_path, task, episodes), task.name).tolist()
    assert found == ([2, 1, 3, 0] if task.scored_by_success else [3, 0, 2, 1])


def test_an_unknown_success_is_neither_a_success_nor_a_failure(tmp_path):
    episodes = []
    for reward, success in [(9, False), (1, None), (3, None), (0, True)]:
        known = None if success is None else np.full(4, success)
        episode = dataclasses.replace(make_episode(LARGE, 4, 0, "ou"), success=known)
        episodes.append(dataclasses.replace(episode, reward=np.full(4, reward, np.float32)))
    store = _store(tmp_path, LARGE, episodes)
    assert best_first(store, LARGE.name).tolist() == [3, 2, 1, 0]
    assert success_known(store, LARGE.name).tolist() == [True, False, False, True]
    assert unscorable(store, LARGE) == "episodes whose success is not known"
    assert "50% ?" in list(info(store).columns[5].cells)
    again = store.episode(LARGE.name, 1)
    assert again.success is None
    assert store.episode(LARGE.name, 3).success.all()
    assert not list(verify(store))


def test_a_task_without_episodes_has_no_best(tmp_path):
    store = _store(tmp_path, SMALL, [make_episode(SMALL, 4)])
    assert best_first(store, LARGE.name).shape == (0,)


def test_a_lucky_start_does_not_make_an_episode_one_of_the_best(tmp_path):
    rng = np.random.default_rng(0)
    luck, skill = rng.uniform(-1, 1, 200), rng.uniform(0, 1, 200)
    outcome = skill - 4 * luck**2  # as where goals that are near pay from the start
    episodes = []
    for i in range(200):
        episode = make_episode(SMALL, 4, i, "ou")
        obs = np.array(episode.obs)
        obs[0] = luck[i]
        reward = np.full(4, outcome[i], np.float32)
        episodes.append(dataclasses.replace(episode, obs=obs, reward=reward))
    best = best_first(_store(tmp_path, SMALL, episodes), SMALL.name)[:20]
    luckiest = np.argsort(-outcome)[:20]
    assert skill[best].min() > 0.8 > skill[luckiest].min()
    assert np.abs(luck[best]).max() > 0.6 > np.abs(luck[luckiest]).max()


def test_of_a_sample_with_pieces_the_whole_ones_come_first(tmp_path):
    store = _store(tmp_path, SMALL, [make_episode(SMALL, 9, seed) for seed in range(12)])
    packed = tmp_path / "sample"
    sample(SampleConfig(data=str(store.path), out=str(packed), episodes=12, whole=2, rows=3))
    ranked = EpisodeStore.open(packed)
    found = ranked.episodes(SMALL.name)[best_first(ranked, SMALL.name)]
    assert found["is_piece"].tolist() == [0] * 2 + [1] * 10
    assert set(found["seed"][:2]) == set(best_first(store, SMALL.name)[:2])  # seeds are places
    returns = found["return"][2:].tolist()
    assert returns == sorted(returns, reverse=True)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), features=st.integers(0, 6))
def test_surplus_is_in_units_of_the_outcome(seed, n, features):
    rng = np.random.default_rng(seed)
    start, outcome = rng.normal(size=(n, features)), rng.normal(size=n)
    found = surplus(start, outcome)
    np.testing.assert_allclose(surplus(start, 5 * outcome + 3), 5 * found, atol=1e-9)
    alike = surplus(np.ones((n, features)), outcome)
    np.testing.assert_allclose(np.diff(np.sort(alike)), np.diff(np.sort(outcome)), atol=1e-9)


def test_surplus_is_what_the_start_does_not_explain():
    rng = np.random.default_rng(1)
    start, skill = rng.normal(size=(300, 4)), rng.exponential(size=300)
    outcome = 3 * start[:, 0] - start[:, 1] ** 2 + skill
    assert spearmanr(surplus(start, outcome), skill).statistic > 0.8
    assert spearmanr(outcome, skill).statistic < 0.5


def test_what_is_not_finite_comes_last():
    start = np.array([[0.0], [1.0], [np.inf], [2.0]])
    outcome = np.array([1.0, np.nan, 3.0, 2.0])
    found = surplus(start, outcome)
    assert np.isfinite(found).tolist() == [True, False, False, True]
    assert found[[1, 2]].tolist() == [-np.inf, -np.inf]
    assert surplus(start[:0], outcome[:0]).shape == (0,)
    assert surplus(start[2:3], outcome[2:3]).tolist() == [-np.inf]


def _store(tmp_path, task, episodes) -> EpisodeStore:
    with EpisodeStore.create(tmp_path / "data", SUITE) as store:
        store.add_source("test", {})
        store.append(task.name, episodes, "test")
    return EpisodeStore.open(tmp_path / "data")


def test_the_dual_form_is_the_same_regression():
    rng = np.random.default_rng(0)
    start, outcome = rng.standard_normal((30, 40)), rng.standard_normal(30)
    weight = rng.uniform(0.1, 0.9, 30)
    weight /= weight.sum()
    primal, dual = (
        residual_of(start)(outcome, weight)
        for residual_of in (_residual_by_features, _residual_by_episodes)
    )
    np.testing.assert_allclose(dual, primal, atol=1e-9)
    assert np.abs(primal).max() > 1e-3


def test_memory_does_not_grow_with_the_square_of_an_observation():
    """A matrix of all features of 27,648 entries would take 24 GB."""
    rng = np.random.default_rng(0)
    start, outcome = rng.standard_normal((20, 27_648)), rng.standard_normal(20)
    tracemalloc.start()
    result = surplus(start, outcome)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(result).all()
    assert peak < 4 * start.nbytes
