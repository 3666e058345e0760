"""Remedies for little data under torch.compile, which takes minutes."""

from __future__ import annotations

import pytest
import torch

from pwm.core.suites import get_suite
from pwm.extraction.config import ActorCriticConfig, BCConfig, CriticConfig
from pwm.extraction.inputs import Demonstrations, Inputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.acceleration import Acceleration

SUITE = get_suite("quick")
CONFIG = ActorCriticConfig(
    iterations=10,
    batch_size=16,
    horizon=5,
    networks=ActorCriticSize(actor=[24, 16], critic=[24], critics=3),
    critic=CriticConfig(iterations=2, batches=2, real_ratio=0.3),
    bc=BCConfig(weight=0.5),
)


def make_model(seed: int, latent: int) -> WorldModel:
    torch.manual_seed(seed)
    size = ModelSize(encoder_dim=16, mlp_dim=32, latent_dim=latent, task_dim=8, num_bins=21)
    model = WorldModel(size, SUITE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_remedies_are_eager_ones():
    """An ensemble of unequal models, cloning and recorded transitions, two iterations."""
    model, other = make_model(0, 32), make_model(1, 16)
    torch.manual_seed(2)
    z, next_z = torch.rand(2, 2, 16, 4, 8).softmax(-1).flatten(3)
    starts_there = (torch.rand(2, 16, 2, 8).softmax(-1).flatten(2),)
    real = Transitions(
        z, torch.zeros(2, 16, SUITE.action_dim), torch.rand(2, 16), torch.full((2, 16), 0.9), next_z
    )
    demonstrated = Demonstrations(next_z, torch.rand(2, 16, SUITE.action_dim))
    weights = []
    for compiling in ("never", "always"):
        accelerator = Acceleration(compiling, "float32").prepare(torch.device("cpu"))
        learner = ActorCriticLearner(model, SUITE.tasks[:2], CONFIG, 0, accelerator, [other])
        for step in range(2):
            learner.set_progress(step)
            learner.iteration(Inputs(z, learner.noise(), demonstrated, real, starts_there))
        both = [*learner.actors.parameters(), *learner.critics.parameters()]
        weights.append(torch.cat([parameter.flatten() for parameter in both]))
    eager, compiled = weights
    assert (compiled - eager).abs().max() < 2e-6
