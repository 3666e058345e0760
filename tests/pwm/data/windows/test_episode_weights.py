from __future__ import annotations

import numpy as np
import pytest
import torch
from stores import coded_store

from pwm.core.errors import PwmError
from pwm.data.windows.episode_weights import SamplingConfig, episode_weights
from pwm.data.windows.sampler import WindowSampler

LENGTHS = {"small": [6, 6, 10, 6], "large": [3, 12, 5]}
WINDOWS = {"small": [3, 3, 7, 3], "large": [0, 9, 2]}  # of 4 rows
ERRORS = np.array([1.0, 4.0, 1.0, 1.0, 9.0, 1.0, 3.0])  # the fifth has no window


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return coded_store(tmp_path_factory.mktemp("weights") / "store", LENGTHS)


def sampler_of(store, balance: str = "task") -> WindowSampler:
    return WindowSampler(store, 4, 256, 3, split="all", balance=balance)


def shares(sampler: WindowSampler) -> dict[str, np.ndarray]:
    """The share of a task's drawn windows by episode."""
    found = {name: np.zeros(len(lengths)) for name, lengths in LENGTHS.items()}
    for step in range(60):
        batch = sampler.batch(step)
        for name, task in (("small", 0), ("large", 1)):
            episodes = batch.obs[0, batch.task == task, 1].int().numpy()
            found[name] += np.bincount(episodes, minlength=len(LENGTHS[name]))
    return {name: counts / counts.sum() for name, counts in found.items()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            SamplingConfig(recency=0.5, half_life=1),
            # half of them by 3 x 1/8, 3 x 1/4, 7 x 1/2 and 3 x 1, and of 9 x 1/2 and 2 x 1
            {"small": [0.1184, 0.1430, 0.4482, 0.2905], "large": [0, 0.7552, 0.2448]},
        ),
        (
            SamplingConfig(surprise=1.0),  # 3 x 1, 3 x 4, 7 x 1 and 3 x 1; 9 x 1 and 2 x 3
            {"small": [0.12, 0.48, 0.28, 0.12], "large": [0, 0.6, 0.4]},
        ),
    ],
)
def test_windows_are_drawn_as_often_as_their_episodes_shares_say(store, config, expected):
    sampler = sampler_of(store)
    sampler.weigh(sampler.episode_weights(config, ERRORS))
    found = shares(sampler)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=0.02)
    by_rows = sampler_of(store, "rows")
    by_rows.weigh(by_rows.episode_weights(config, ERRORS))
    assert shares(by_rows)["small"] == pytest.approx(expected["small"], abs=0.02)


def test_weighted_batches_follow_from_seed_and_step_and_go_back_to_plain_ones(store):
    one, two = sampler_of(store), sampler_of(store)
    plain = one.batch(5)
    weights = one.episode_weights(SamplingConfig(recency=0.3, surprise=0.3), ERRORS)
    for sampler in (one, two):
        sampler.weigh(weights)
    two.batch(2)
    assert torch.equal(one.batch(5).obs, two.batch(5).obs)
    assert not torch.equal(one.batch(5).obs, plain.obs)
    one.weigh(None)
    assert torch.equal(one.batch(5).obs, plain.obs)


def test_even_weights_say_the_same_for_all_windows_and_the_oldest_keep_a_chance():
    windows = np.array(WINDOWS["small"])
    even = episode_weights(SamplingConfig(), windows, np.ones(4))
    assert even == pytest.approx(np.full(4, 1 / 16))
    many = np.full(100_000, 500)
    oldest = episode_weights(SamplingConfig(recency=1.0, half_life=5), many, np.ones(len(many)))
    assert oldest.min() > 0 and (np.diff(np.cumsum(many * oldest)) > 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"recency": 0.7, "surprise": 0.4}, "add up to 1 at most"),
        ({"recency": -0.1}, "recency=-0.1"),
        ({"half_life": 0.0}, "half_life=0"),
    ],
)
def test_shares_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(PwmError, match=message):
        SamplingConfig(**wrong).validate()
