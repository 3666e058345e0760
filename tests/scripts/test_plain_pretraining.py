"""The fast pretraining update, eager and compiled, against the reference's equations."""

from __future__ import annotations

import pytest
import torch
from benchmarks.plain_pretraining import PlainPretraining

from pwm.core.suites import get_suite
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.losses import PriorNoise
from pwm.runtime.acceleration import Acceleration

SUITE = get_suite("quick")
SIZE = ModelSize(
    encoder_dim=16, mlp_dim=32, latent_dim=32, task_dim=8, num_q=4, num_bins=21, dropout=0.0
)


def make_learner(q_and_prior: bool, acceleration: Acceleration) -> WorldModelLearner:
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE, q_and_prior)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    discount = torch.tensor([task.discount for task in SUITE])
    accelerator = acceleration.prepare(torch.device("cpu"))
    return WorldModelLearner(model, LearnerConfig(), discount, accelerator)


def make_batch(horizon: int = 4, size: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(horizon + 1, size, SUITE.obs_dim, generator=generator)
    action = torch.rand(horizon, size, SUITE.action_dim, generator=generator) * 2 - 1
    reward = 5 * torch.randn(horizon, size, generator=generator)
    return Batch(obs, action, reward, torch.arange(size) % len(SUITE))


def differences(q_and_prior: bool, acceleration: Acceleration) -> dict[str, float]:
    """Largest difference of each network's weights after two updates of both."""
    learner = make_learner(q_and_prior, acceleration)
    plain, batch = PlainPretraining(learner), make_batch()
    plain.lr = learner.set_learning_rate(learner.config.warmup - 1)
    for seed in range(2):
        torch.manual_seed(seed)
        noise = learner._noise(batch) if q_and_prior else None
        torch.manual_seed(seed)
        learner.update(batch)
        plain.update(batch, noise)
    model = learner.model
    pairs = [
        ("encoder", model.encoder, plain.model.encoder),
        ("dynamics", model.dynamics, plain.model.dynamics),
        ("reward", model.reward_head, plain.model.reward_head),
        ("embedding", model.task_emb, plain.model.embedding),
    ]
    if q_and_prior:
        pairs += [
            ("prior", model.prior, plain.prior),
            ("q", model.q_ensemble, plain.q),
            ("target", model.q_target, plain.q_target),
        ]
    return {name: _largest(ours, theirs) for name, ours, theirs in pairs}


def _largest(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    return max(
        float((a.detach() - b.detach()).abs().max())
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_an_update_is_that_of_the_plain_equations(q_and_prior):
    found = differences(q_and_prior, Acceleration("never", "float32"))
    assert all(value < 5e-6 for value in found.values()), found


@pytest.mark.slow
def test_a_compiled_update_is_that_of_the_plain_equations():
    found = differences(True, Acceleration("always", "float32"))
    assert all(value < 5e-6 for value in found.values()), found


def test_the_drawn_members_alone_give_what_all_give():
    learner = make_learner(True, Acceleration("never", "float32"))
    model, members = learner.model, torch.tensor([2, 0])
    z, action = torch.rand(3, 6, 32), torch.rand(3, 6, SUITE.action_dim)
    task = torch.arange(6) % len(SUITE)
    for logits in (model.q_logits, model.target_q_logits):
        some, every = logits(z, action, task, members), logits(z, action, task)
        torch.testing.assert_close(some, every[members])


def test_noise_has_the_shapes_of_an_update():
    noise = make_learner(True, Acceleration("never", "float32"))._noise(make_batch())
    assert isinstance(noise, PriorNoise)
    assert noise.members.shape == (4,)
    for pair in noise.members.view(2, 2):
        assert pair[0] != pair[1]
