from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pwm
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.models.actor_critic import (
    ActorCriticSize,
    Actors,
    Critics,
    TaskCritic,
    action_masks,
    load_critic,
)
from pwm.models.policy import Policy, load_policy
from pwm.models.world_model import ModelSize, WorldModel

NARROW = Task("narrow", "dmcontrol", 3, 1, 20)
WIDE = Task("wide", "metaworld", 5, 2, 20)
SUITE = Suite("pair", (NARROW, WIDE))
MODEL = ModelSize(encoder_dim=12, mlp_dim=16, latent_dim=16, task_dim=4, num_bins=11)
SIZE = ActorCriticSize(actor=[10, 6], critic=[9], critics=3)


def randomized(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
def test_the_mean_deviation_is_of_what_acts():
    actors = Actors(3, torch.tensor([[1.0, 1.0], [1.0, 0.0]]), ActorCriticSize([4], []))
    with torch.no_grad():
        actors.log_std.copy_(torch.tensor([[0.0, -9.0], [-0.5, 3.0]]))
    floor = math.exp(actors.min_log_std)
    torch.testing.assert_close(actors.mean_std(), torch.tensor([(1 + floor) / 2, math.exp(-0.5)]))


def test_a_device_that_is_not_there_is_a_sentence(tmp_path):
    for load in (load_policy, load_critic, pwm.load_world_model):
        with pytest.raises(PwmError, match="device=cuda was asked for"):
            load(tmp_path, device="cuda")


def make_world_model(normalize_obs: bool = True) -> WorldModel:
    model = randomized(WorldModel(MODEL, SUITE, normalize_obs=normalize_obs))
    if normalize_obs:
        model.obs_mean[0, :3], model.obs_scale[0, :3] = 1.5, 2.0
        model.obs_mean[1], model.obs_scale[1] = -0.5, 0.3
    return model


def make_actors(inputs: int = 16) -> Actors:
    return randomized(Actors(inputs, action_masks([NARROW, WIDE], 2), SIZE))


def latent_policy(index: int, normalize_obs: bool = True):
    """A policy, and the world model and actors that it is made of."""
    model, actors = make_world_model(normalize_obs), make_actors()
    task = SUITE.tasks[index]
    return Policy.from_latent_actor(model, task, actors, index, SIZE), model, actors


def observation_policy() -> Policy:
    mean, scale = torch.tensor([1.0, 2, 3, 0, 0]), torch.tensor([1.0, 0.5, 2, 1, 1])
    return Policy.from_observation_actor(NARROW, mean, scale, make_actors(5), 0, SIZE)


# --- actors and critics --------------------------------------------------------------------------


def test_action_masks():
    assert action_masks([NARROW, WIDE], 3).tolist() == [[1, 0, 0], [1, 1, 0]]


def test_actors_mode_and_sample():
    actors = make_actors()
    features, noise = torch.randn(2, 7, 16), torch.randn(2, 7, 2)
    mode, sample = actors(features), actors(features, noise)
    assert mode.shape == sample.shape == (2, 7, 2)
    assert sample.abs().max() <= 1
    mean = actors.mean(features)
    std = actors.log_std.clamp(min=-1.427).exp()
    for k in range(2):
        used = [1, 2][k]
        torch.testing.assert_close(mode[k, :, :used], torch.tanh(mean[k])[:, :used])
        wanted = torch.tanh(mean[k] + noise[k] * std[k])[:, :used]
        torch.testing.assert_close(sample[k, :, :used], wanted)
    assert mode[0, :, 1].eq(0).all()
    assert sample[0, :, 1].eq(0).all()


def test_actors_standard_deviation_has_a_floor():
    actors = Actors(4, torch.ones(1, 2), SIZE)
    assert actors.log_std.eq(-1.0).all()
    with torch.no_grad():
        actors.log_std.fill_(-9.0)
        torch.nn.init.zeros_(actors.mean[-1].weight)
    ones = torch.ones(1, 1, 2)
    assert actors(torch.randn(1, 1, 4), ones)[0, 0, 0].item() == pytest.approx(
        np.tanh(np.exp(-1.427)), rel=1e-5
    )


def test_actors_of_a_stack_are_independent():
    actors = make_actors()
    features = torch.randn(2, 3, 16)
    changed = features.clone()
    changed[0] += 1
    assert torch.equal(actors(features)[1], actors(changed)[1])


def test_critics_give_every_members_value_scaled():
    latent = torch.randn(2, 4, 16)
    critics = randomized(Critics(2, 16, SIZE, scale=100.0))
    values = critics(latent)
    assert values.shape == (2, 3, 4)
    direct = critics.value(latent).squeeze(-1)
    torch.testing.assert_close(values.flatten(0, 1), 100 * direct)
    alone = critics(latent[1:].expand(2, -1, -1))[1]
    torch.testing.assert_close(values[1], alone)


# --- Policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("normalize_obs", [False, True])
def test_policy_is_encoder_then_actor(index, normalize_obs):
    policy, model, actors = latent_policy(index, normalize_obs)
    task = SUITE.tasks[index]
    obs = torch.randn(9, task.obs_dim)
    padded = F.pad(obs, (0, 5 - task.obs_dim))
    z = model.encode(padded, torch.full((9,), index))
    wanted = actors(z.expand(2, -1, -1))[index, :, : task.action_dim]
    torch.testing.assert_close(policy.act(obs), wanted)


def test_policy_of_an_observation_actor():
    mean, scale = torch.tensor([1.0, 2, 3, 0, 0]), torch.tensor([1.0, 0.5, 2, 1, 1])
    actors = make_actors(5)
    policy = Policy.from_observation_actor(NARROW, mean, scale, actors, 0, SIZE)
    obs = torch.randn(6, 3)
    features = (F.pad(obs, (0, 2)) - mean) / scale
    wanted = actors(features.expand(2, -1, -1))[0, :, :1]
    torch.testing.assert_close(policy.act(obs), wanted)


def test_policy_does_not_change_with_what_it_was_made_of():
    policy, model, actors = latent_policy(1)
    obs = torch.randn(4, 5)
    before = policy.act(obs)
    randomized(model), randomized(actors)
    model.obs_mean += 1
    assert torch.equal(policy.act(obs), before)
    assert not any(p.requires_grad for p in policy.parameters())


@pytest.mark.parametrize("index", [0, 1])
def test_act_on_numpy_and_torch_single_and_batched(index):
    policy, *_ = latent_policy(index)
    task = SUITE.tasks[index]
    obs = np.random.default_rng(0).standard_normal((4, 3, task.obs_dim))
    batched = policy.act(obs)
    assert isinstance(batched, np.ndarray)
    assert batched.dtype == np.float32
    assert batched.shape == (4, 3, task.action_dim)
    assert np.abs(batched).max() <= 1
    single = policy.act(obs[1, 2])
    assert single.shape == (task.action_dim,)
    np.testing.assert_allclose(single, batched[1, 2], rtol=1e-5, atol=1e-6)
    tensor = policy.act(torch.from_numpy(obs))
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    np.testing.assert_array_equal(tensor.numpy(), batched)


def test_act_takes_what_simulators_return():
    policy, *_ = latent_policy(0)
    obs = np.arange(6, dtype=np.float64)
    read_only = obs.astype(np.float32)
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = policy.act(obs[:3])
        np.testing.assert_array_equal(policy.act(read_only[:3]), wanted)
        np.testing.assert_array_equal(policy.act(obs[2::-1]), policy.act(obs[2::-1].copy()))
        assert policy.act([0.0, 1.0, 2.0]).tolist() == wanted.tolist()


def test_act_may_be_written_into():
    policy, *_ = latent_policy(1)
    action = policy.act(np.zeros(5, np.float32))
    action += 1
    assert not np.array_equal(policy.act(np.zeros(5, np.float32)), action)


@pytest.mark.parametrize("shape", [(4,), (2,), (5, 4), ()])
def test_wrong_observation_sizes_are_refused(shape):
    policy, *_ = latent_policy(0)
    with pytest.raises(PwmError, match=re.escape(f"size 3, got an array of shape {shape}")):
        policy.act(np.zeros(shape))


def test_act_with_noise():
    torch.manual_seed(0)  # other weights may leave few actions away from the bounds
    policy, *_ = latent_policy(1)
    obs = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)
    clean = policy.act(obs)
    noisy = policy.act(obs, noise=0.05, rng=np.random.default_rng(1))
    again = policy.act(obs, noise=0.05, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(noisy, again)
    inside = np.abs(clean) < 0.8
    assert (noisy - clean)[inside].std() == pytest.approx(0.05, rel=0.1)
    wild = policy.act(obs, noise=5.0)
    assert np.abs(wild).max() == 1
    assert not np.array_equal(wild, policy.act(obs, noise=5.0))


@pytest.mark.parametrize("make", [lambda: latent_policy(0)[0], observation_policy])
def test_a_saved_policy_opens_equal(make, tmp_path):
    policy = make()
    policy.save(tmp_path / "narrow", {"command": "test"})
    loaded = pwm.load_policy(tmp_path / "narrow")
    obs = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.act(obs), policy.act(obs))
    assert loaded.task == policy.task
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded.save(tmp_path / "again", {"command": "test"})
    for file in (tmp_path / "narrow").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_a_critic_is_saved_beside_a_policy(tmp_path):
    policy, *_ = latent_policy(1)
    critic = TaskCritic(randomized(Critics(1, 16, SIZE, scale=50.0)), "symlog", 0.9)
    policy.save(tmp_path / "p", critic=critic)
    loaded, latent = load_critic(tmp_path / "p"), torch.randn(1, 4, 16)
    assert torch.equal(loaded.values(latent), critic.values(latent))
    assert (loaded.reward_units, loaded.discount) == ("symlog", 0.9)
    assert not any(p.requires_grad for p in loaded.values.parameters())
    obs = np.zeros((2, 5), np.float32)
    np.testing.assert_array_equal(load_policy(tmp_path / "p").act(obs), policy.act(obs))
    observation_policy().save(tmp_path / "cloned")
    with pytest.raises(PwmError, match="without its critic"):
        load_critic(tmp_path / "cloned")


def test_a_world_model_is_no_policy(tmp_path):
    with pytest.raises(PwmError, match="not a checkpoint"):
        load_policy(tmp_path)
    policy = observation_policy()
    policy.save(tmp_path / "p")
    with pytest.raises(PwmError, match="holds policies, and a world model is wanted"):
        pwm.load_world_model(tmp_path / "p")
