"""What is imagined from an observation on, and in which world model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pwm
from pwm.core.errors import PwmError
from pwm.evaluation import predictions
from pwm.evaluation.predictions import Predictor, world_model_of

SHIPPED = Path(__file__).parents[3] / "checkpoints"
QUICK = SHIPPED / "quick"
TASK = "pendulum-swingup"
OBS = np.array([0.3, -0.9, 1.4], np.float32)


@pytest.fixture(scope="module")
def policy():
    return pwm.load_policy(QUICK / "policies" / TASK)


@pytest.fixture(scope="module")
def model():
    return pwm.load_world_model(QUICK / "world_model")


def test_a_prediction_is_the_world_models_along_the_policys_actions(model, policy):
    critic = pwm.load_critic(QUICK / "policies" / TASK)
    found = Predictor(model, policy, critic, horizon=5)(OBS)
    task = torch.tensor([model.suite.id(TASK)])
    padded = torch.nn.functional.pad(torch.from_numpy(OBS)[None], (0, model.suite.obs_dim - 3))
    with torch.no_grad():
        z, rewards = model.encode(padded, task), []
        values = [critic.values(z[None]).min()]
        for _ in range(5):
            action = policy.actor(z[None])[0]
            rewards.append(model.reward(z, action, task).squeeze())
            z = model.next(z, action, task)
            values.append(critic.values(z[None]).min())
    np.testing.assert_allclose(found.rewards, torch.stack(rewards), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.values, torch.stack(values), rtol=1e-4)
    assert Predictor(model, policy, None, horizon=5)(OBS).values is None


def test_rewards_after_a_predicted_end_do_not_count(model, policy, monkeypatch):
    whole = Predictor(model, policy, None, horizon=3)(OBS).rewards
    monkeypatch.setattr(model, "episodic", True)
    monkeypatch.setattr(model, "continuation", lambda z, task: torch.full(z.shape[:-1], 0.5))
    ending = Predictor(model, policy, None, horizon=3)(OBS).rewards
    np.testing.assert_allclose(ending, whole * [1, 0.5, 0.25], rtol=1e-5)


def test_the_world_model_beside_the_policies_is_found(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # elsewhere a quickstart may have left one of that name
    path = tmp_path / "run" / "policies" / TASK
    shutil.copytree(QUICK / "policies" / TASK, path)
    with pytest.raises(PwmError, match=r"from \(runs/quickstart/world_model, which is not here\)"):
        world_model_of(policy, path, None)
    shutil.copytree(QUICK / "world_model", tmp_path / "run" / "world_model")
    assert TASK in world_model_of(policy, path, None).suite.names


def test_the_world_model_that_the_record_names_comes_first(policy, tmp_path, monkeypatch):
    path = tmp_path / "policies" / TASK
    shutil.copytree(QUICK / "policies" / TASK, path)
    named = str(QUICK / "world_model")
    monkeypatch.setattr(predictions, "extracted_from", lambda path: named)
    shutil.copytree(SHIPPED / "mt30" / "world_model", tmp_path / "world_model")
    assert world_model_of(policy, path, None).size.latent_dim == 128


def test_another_world_model_is_refused(policy):
    with pytest.raises(PwmError, match="does not read this world model's latents"):
        world_model_of(policy, QUICK / "policies" / TASK, str(SHIPPED / "mt80" / "world_model"))
