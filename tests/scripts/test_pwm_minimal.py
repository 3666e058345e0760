"""The method in one file: short, the library's arithmetic, and a program that runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from reference import pwm_minimal
from reference.pwm_minimal import Actor, Constants, Critics, extract, main, pretrain
from torch import Tensor, nn

from pwm.core.suites import get_suite
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs, Noise
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner

TASK = "pendulum-swingup"
STEPS = 4
CONSTANTS = Constants(
    latent=32,
    hidden=24,
    bins=(-10, 10, 21),
    horizon=5,
    batch_size=16,
    updates=STEPS,
    lr=3e-4,
    lr_final=3e-5,
    warmup=2,
    iterations=STEPS,
    policy_hidden=(24, 16),
    policy_lr=5e-4,
)


def test_it_has_at_most_300_lines():
    assert len(Path(pwm_minimal.__file__).read_text().splitlines()) <= 300


def library_model() -> WorldModel:
    """A world model of one task with random weights and normalization."""
    torch.manual_seed(0)
    size = ModelSize(encoder_dim=24, mlp_dim=24, latent_dim=32, task_dim=0, num_bins=21)
    model = WorldModel(size, get_suite(TASK), normalize_obs=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.obs_mean.normal_()
    model.obs_scale.uniform_(0.5, 2)
    return model


def copy_of(model: WorldModel, c: Constants) -> pwm_minimal.WorldModel:
    """The same in the one file's class."""
    copy = pwm_minimal.WorldModel(model.suite.obs_dim, model.suite.action_dim, c)
    for name in ("encoder", "dynamics", "reward_head"):
        assign(getattr(copy, name), getattr(model, name).parameters())
    copy.obs_mean, copy.obs_std = model.obs_mean[0].clone(), model.obs_scale[0].clone()
    return copy


@torch.no_grad()
def assign(net: nn.Module, values: Iterable[Tensor]) -> None:
    """Give a network the values of another that has its weights in the same order."""
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.copy_(value)


def farthest(net: nn.Module, values: Iterable[Tensor]) -> float:
    """The largest difference between a network's weights and some values."""
    pairs = zip(net.parameters(), values, strict=True)
    return max(float((ours - value).abs().max().detach()) for ours, value in pairs)


def test_pretraining_ends_in_the_weights_of_the_library(toy):
    model, c = library_model(), CONSTANTS
    reference, first = copy_of(model, c), copy_of(model, c)
    with EpisodeStore.open(toy.data) as store:
        windows = WindowSampler(store, c.horizon, c.batch_size, 0, suite=model.suite)
        batches = [windows.batch(step) for step in range(STEPS)]
    discount = torch.tensor([model.suite[TASK].discount])
    learner = WorldModelLearner(model, LearnerConfig(steps=STEPS, warmup=2), discount)
    for step, batch in enumerate(batches):
        learner.set_learning_rate(step)
        learner.update(batch)
    losses = list(pretrain(reference, batches, c))
    assert len(losses) == STEPS
    for name in ("encoder", "dynamics", "reward_head"):
        net = getattr(reference, name)
        assert farthest(net, getattr(model, name).parameters()) < 5e-6
        assert farthest(net, getattr(first, name).parameters()) > 1e-4


@pytest.mark.parametrize("detach", [True, False])
def test_extraction_ends_in_the_weights_of_the_library(detach):
    model = library_model().eval().requires_grad_(False)
    c = Constants(**vars(CONSTANTS) | {"detach_actor_input": detach, "critic_batches": 5})
    config = ActorCriticConfig(
        iterations=STEPS,
        batch_size=c.batch_size,
        horizon=c.horizon,
        networks=ActorCriticSize(actor=[24, 16], critic=[24, 16]),
        critic=CriticConfig(batches=c.critic_batches),
        detach_actor_input=detach,
    )
    learner = ActorCriticLearner(model, model.suite.tasks, config, seed=0)
    copy, actor, critics = copy_of(model, c), Actor(model.suite.action_dim, c), Critics(c)
    assign(actor.mean, [weight[0] for weight in learner.actors.mean.parameters()])
    for member, critic in enumerate(critics):
        assign(critic, [weight[member] for weight in learner.critics.parameters()])
    starts = torch.rand(STEPS, c.batch_size, 4, 8).softmax(-1).flatten(2)

    torch.manual_seed(1)
    for step, start in enumerate(starts):
        action = torch.randn(c.horizon, 1, c.batch_size, model.suite.action_dim)
        order = torch.randperm(c.horizon * c.batch_size)
        learner.set_progress(step)
        noise = Noise(action, order.unsqueeze(0))
        learner.iteration(Inputs(start.unsqueeze(0), noise))
    torch.manual_seed(1)
    returns = list(extract(copy, actor, critics, starts, c))

    assert len(returns) == STEPS
    assert farthest(actor, [weight[0] for weight in learner.actors.parameters()]) < 5e-6
    for member, critic in enumerate(critics):
        theirs = [weight[member] for weight in learner.critics.parameters()]
        assert farthest(critic, theirs) < 5e-6
    obs = torch.randn(8, model.suite.obs_dim)
    latent = model.encode(obs, torch.zeros((), dtype=torch.int64))
    torch.testing.assert_close(latent, copy.encode(obs))
    torch.testing.assert_close(actor(latent), learner.actors(latent.unsqueeze(0))[0])


@pytest.mark.slow
def test_the_program_learns(toy, capsys):
    main(
        [
            str(toy.data), "--task", TASK, "--latent", "32", "--hidden", "32", "--horizon", "2",
            "--batch_size", "16", "--updates", "101", "--iterations", "101", "--episodes", "1",
            "--policy_hidden", "32,16", "--warmup", "10",
        ]
    )  # fmt: skip
    said = capsys.readouterr().out
    losses = [float(x) for x in re.findall(r"^update \d+: world model loss ([\d.]+)$", said, re.M)]
    returns = [float(x) for x in re.findall(r"imagined return ([\d.]+)$", said, re.M)]
    assert len(losses) == 2 and losses[1] < 0.5 * losses[0]
    assert len(returns) == 2 and returns[1] > returns[0]
    assert re.search(r"^mean return of 1 episodes: random [\d.]+, policy [\d.]+$", said, re.M)
