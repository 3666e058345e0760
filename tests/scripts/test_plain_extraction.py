"""The fast extraction, eager, compiled and in bfloat16, against the reference's equations."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from benchmarks.plain_extraction import PlainExtraction

from pwm.core.suites import get_suite
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs, Noise
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
    critic=CriticConfig(iterations=2, batches=2),
)


def make_model() -> WorldModel:
    torch.manual_seed(0)
    size = ModelSize(encoder_dim=16, mlp_dim=32, latent_dim=32, task_dim=8, num_bins=21)
    model = WorldModel(size, SUITE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def draw_noise(config: ActorCriticConfig, action_dim: int) -> Noise:
    """What the reference draws from the global stream in an iteration."""
    states = config.horizon * config.batch_size
    action = torch.randn(config.horizon, 1, config.batch_size, action_dim)
    return Noise(
        action, torch.stack([torch.randperm(states) for _ in range(config.critic.iterations)])
    )


def difference(detach: bool, acceleration: Acceleration) -> tuple[float, float]:
    """Largest differences of actor and critic weights after three iterations of both."""
    config = dataclasses.replace(CONFIG, detach_actor_input=detach)
    accelerator = acceleration.prepare(torch.device("cpu"))
    learner = ActorCriticLearner(make_model(), SUITE.tasks[:1], config, 0, accelerator)
    plain = PlainExtraction(learner)
    start = torch.rand(1, 16, 4, 8, generator=torch.Generator().manual_seed(1)).softmax(-1)
    for i in range(3):
        torch.manual_seed(i)
        noise = draw_noise(config, SUITE.action_dim)
        torch.manual_seed(i)
        learner.set_progress(i)
        learner.iteration(Inputs(start.flatten(2), noise))
        plain.iteration(start.flatten(2)[0])
    of_actor = [
        (ours[0] - theirs).abs().max()
        for ours, theirs in zip(learner.actors.parameters(), plain.actor.parameters(), strict=True)
    ]
    of_critics = [
        (ours - theirs).abs().max()
        for ours, theirs in zip(
            learner.critics.parameters(), plain.critics.parameters(), strict=True
        )
    ]
    return torch.stack(of_actor).max().item(), torch.stack(of_critics).max().item()


@pytest.mark.parametrize("detach", [True, False])
def test_an_iteration_is_that_of_the_plain_equations(detach):
    actor, critic = difference(detach, Acceleration("never", "float32"))
    assert actor < 2e-6
    assert critic < 2e-6


@pytest.mark.slow
def test_a_compiled_iteration_is_that_of_the_plain_equations():
    actor, critic = difference(True, Acceleration("always", "float32"))
    assert actor < 2e-6
    assert critic < 2e-6


def test_the_gradient_in_bfloat16_is_that_of_float32_to_two_digits():
    gradients = []
    for precision in ("float32", "bfloat16"):
        accelerator = Acceleration("never", precision).prepare(torch.device("cpu"))
        learner = ActorCriticLearner(make_model(), SUITE.tasks[:2], CONFIG, 0, accelerator)
        start = torch.rand(2, 16, 4, 8, generator=torch.Generator().manual_seed(1)).softmax(-1)
        with accelerator.arithmetic():
            loss, *_ = learner.actor_objective(Inputs(start.flatten(2), learner.noise()))
        parts = torch.autograd.grad(loss.sum(), list(learner.actors.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    exact, rounded = gradients
    assert 0 < (rounded - exact).norm() < 0.03 * exact.norm()
