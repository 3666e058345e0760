from __future__ import annotations

import numpy as np
import pytest
import torch
from stores import SUITE, coded_store

from pwm.data.windows.sampler import WindowSampler
from pwm.models.math import symlog
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining import surprise
from pwm.pretraining.losses import roll_out
from pwm.pretraining.surprise import prediction_errors

SIZE = ModelSize(
    encoder_dim=8, mlp_dim=8, latent_dim=8, task_dim=2, num_bins=11, encoder_layers=1
)  # fmt: skip


@pytest.fixture(scope="module")
def sampler(tmp_path_factory) -> WindowSampler:
    """Episodes of one window each, but for two that are too short."""
    lengths = {"small": [4, 4, 2, 4], "large": [3, 4, 4]}
    store = coded_store(tmp_path_factory.mktemp("surprise") / "store", lengths)
    return WindowSampler(store, 4, 8, 0, split="all")


def test_errors_are_those_of_the_episodes_windows_in_units_of_their_tasks_mean(sampler):
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE)
    torch.nn.init.normal_(model.reward_head[-1].weight)
    found = prediction_errors(model, sampler, seed=1)
    assert found[[2, 4]].tolist() == [1.0, 1.0]
    for episodes in ([0, 1, 3], [5, 6]):
        batch, bad = sampler.of_episodes(np.array(episodes), np.random.default_rng(0))
        assert not bad.any()
        with torch.no_grad():
            latents, targets, _ = roll_out(model, batch)
            rewards = model.symlog_reward(latents[:-1], batch.action, batch.task)
        of_latents = ((latents[1:] - targets) ** 2).sum(-1).mean(0)
        of_rewards = (rewards - symlog(batch.reward)).abs().mean(0)
        relative = of_latents / of_latents.mean() + of_rewards / of_rewards.mean()
        assert found[episodes] == pytest.approx(relative.numpy() / 2, rel=1e-4)
        assert found[episodes].std() > 0


def test_of_very_many_episodes_some_are_measured_and_the_others_count_as_the_mean(
    sampler, monkeypatch
):
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE)
    monkeypatch.setattr(surprise, "_EPISODES", 2)
    found = prediction_errors(model, sampler, seed=1)
    assert np.array_equal(found, prediction_errors(model, sampler, seed=1))
    assert np.count_nonzero(found[[0, 1, 3]] == 1) == 1
    assert found.min() > 0


def test_a_bad_window_does_not_count(sampler, monkeypatch):
    read = sampler.of_episodes

    def one_bad(episodes, rng):
        batch, bad = read(episodes, rng)
        batch.obs[:, episodes == 0] = float("nan")
        return batch, bad | (episodes == 0)

    monkeypatch.setattr(sampler, "of_episodes", one_bad)
    torch.manual_seed(0)
    found = prediction_errors(WorldModel(SIZE, SUITE), sampler, seed=1)
    assert found[0] == 1.0
    assert np.isfinite(found).all()
