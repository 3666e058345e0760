from __future__ import annotations

import pytest
import torch

from pwm.core.suites import Suite, Task
from pwm.extraction.imagination import fold, imagine_step, imagined_reward
from pwm.models.stacked_deltas import StackedDeltas, each_with_its_own
from pwm.models.world_model import ModelSize, WorldModel

SUITE = Suite(
    "three",
    (
        Task("first", "dmcontrol", 3, 1, 20),
        Task("second", "metaworld", 5, 2, 20),
        Task("third", "dmcontrol", 4, 2, 20),
    ),
)


def make_model(task_dim: int) -> WorldModel:
    torch.manual_seed(0)
    size = ModelSize(encoder_dim=12, mlp_dim=24, latent_dim=16, task_dim=task_dim, num_bins=11)
    model = WorldModel(size, SUITE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.mark.parametrize("task_dim", [4, 0])
@pytest.mark.parametrize("ids", [[0, 1, 2], [2], [1, 1]])
def test_is_the_world_model_rearranged(task_dim, ids):
    """Values and gradients, in float64, where rounding hides nothing."""
    model, task_ids = make_model(task_dim), torch.tensor(ids)
    z = torch.rand(len(ids), 7, 16, dtype=torch.float64, requires_grad=True)
    action = torch.rand(len(ids), 7, 2, dtype=torch.float64, requires_grad=True)
    task = task_ids.unsqueeze(1)
    step = imagine_step(model, fold(model, task_ids), z, action)
    reward = imagined_reward(model, step.reward_features)
    torch.testing.assert_close(step.latent, model.next(z, action, task))
    torch.testing.assert_close(reward, model.symlog_reward(z, action, task))
    weights = torch.rand_like(step.latent)
    ours = torch.autograd.grad((step.latent * weights).sum() + reward.sum(), (z, action))
    total = (model.next(z, action, task) * weights).sum()
    plain = total + model.symlog_reward(z, action, task).sum()
    for a, b in zip(ours, torch.autograd.grad(plain, (z, action)), strict=True):
        assert a.abs().max() > 1e-3
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("parts", [["dynamics", "reward_head", "encoder"], ["reward_head"]])
@pytest.mark.parametrize("task_dim", [4, 0])
def test_layers_with_changes_of_each_task_are_those_of_its_own_model(task_dim, parts):
    """Values and gradients, in float64; the rewards of several steps at once, too."""
    model, ids = make_model(task_dim), torch.tensor([2, 0])
    alone = [make_model(task_dim) for _ in ids]
    for part in parts:
        for number, layer in model.get_submodule(part).named_children():
            outputs, inputs = layer.weight.shape
            into, out = (torch.randn(2, *s).double() for s in ((3, inputs), (outputs, 3)))
            layer.change = StackedDeltas(into, out, 0.3, each_with_its_own)
            for k, own in enumerate(alone):
                own.get_submodule(f"{part}.{number}").weight += 0.3 * out[k] @ into[k]
    model.requires_grad_(False)
    z = torch.rand(2, 7, 16, dtype=torch.float64, requires_grad=True)
    action = torch.rand(2, 7, 2, dtype=torch.float64, requires_grad=True)
    step = imagine_step(model, fold(model, ids), z, action)
    rewards = imagined_reward(model, torch.stack([step.reward_features] * 2))
    obs = torch.rand(2, 7, 5, dtype=torch.float64)
    encoded = model.encode(obs, ids.unsqueeze(1))
    ours = torch.autograd.grad(step.latent.square().sum() + rewards.sum(), (z, action))
    for k, own in enumerate(alone):
        task = ids[k]
        torch.testing.assert_close(encoded[k], own.encode(obs[k], task))
        latent, reward = (f(z[k], action[k], task) for f in (own.next, own.symlog_reward))
        torch.testing.assert_close(step.latent[k], latent)
        torch.testing.assert_close(rewards[:, k], torch.stack([reward] * 2))
        total = latent.square().sum() + 2 * reward.sum()
        for a, b in zip(ours, torch.autograd.grad(total, (z, action)), strict=True):
            assert a[k].abs().max() > 1e-3
            torch.testing.assert_close(a[k], b[k])


def test_a_model_that_changes_is_folded_anew():
    model, task_ids = make_model(4), torch.tensor([0, 2])
    z, action = torch.rand(2, 5, 16).double(), torch.rand(2, 5, 2).double()
    before = imagine_step(model, fold(model, task_ids), z, action).latent
    with torch.no_grad():
        model.dynamics[0].weight.mul_(1.5)
    after = imagine_step(model, fold(model, task_ids), z, action).latent
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model.next(z, action, task_ids.unsqueeze(1)))
