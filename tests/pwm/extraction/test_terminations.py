"""From data with terminations to imagined returns that stop at them, in a small toy world."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from configs import changed
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.windows.batch import Batch
from pwm.extraction.config import ActorCriticConfig, ExtractConfig
from pwm.extraction.extract import _ensemble
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.losses import bootstrapped_return
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import KIND, ModelSize, WorldModel, model_meta
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.checkpoint import save_checkpoint

SUITE = Suite("cliff", (Task("cliff", "gymnasium", 8, 1, 50, env_id="Cliff-v0"),))
SIZE = ModelSize(24, 1, 32, 32, 0, num_bins=21, vmin=-3, vmax=3)
HORIZON, PUSH, EDGE = 3, 0.6, 1.0
DISCOUNT = 0.9


def observed(x: Tensor) -> Tensor:
    """(..., 8): how far the point is past places along the line."""
    return torch.tanh(3 * (x.unsqueeze(-1) - torch.linspace(-2, EDGE + PUSH, 8)))


def windows(size: int, generator: torch.Generator) -> Batch:
    """A point on a line, which actions push; past the edge it has fallen, and the episode is over.

    Every step pays 1. As in recorded episodes, a window ends where the point falls, which it does
    in about a third of them.
    """
    action = torch.rand(HORIZON, size, 1, generator=generator) * 2 - 1
    share, falls = torch.rand(2, 1, size, generator=generator)
    action[-1].abs_()
    x = torch.where(falls < 0.35, EDGE + share * PUSH * action[-1, :, 0], 3 * share - 2)
    back = PUSH * action[..., 0].flip(0).cumsum(0).flip(0)
    x = torch.cat([x - back, x])
    good = (x[:-1] < EDGE).all(0)
    x, action = x[:, good], action[:, good]
    terminated = x[1:] >= EDGE
    obs = observed(x)
    reward = torch.ones_like(x[1:])
    task = torch.zeros(x.shape[1], dtype=torch.long)
    return Batch(obs, action, reward, task, terminated)


@cache
def learned() -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE, episodic=True)
    config = LearnerConfig(steps=100, lr=1e-2, lr_final=5e-4, warmup=10, encoder_lr_scale=1.0)
    learner = WorldModelLearner(model, config, torch.tensor([DISCOUNT]))
    generator = torch.Generator().manual_seed(0)
    for step in range(config.steps):
        learner.set_learning_rate(step)
        learner.update(windows(96, generator))
    return model.eval().requires_grad_(False)


def encoded(x: Tensor) -> Tensor:
    """Latents (n, latent) of points (n,)."""
    return learned().encode(observed(x), torch.zeros(len(x), dtype=torch.long))


def make_learner(**changes) -> ActorCriticLearner:
    config = changed(
        ActorCriticConfig(),
        batch_size=64,
        horizon=HORIZON,
        discount=DISCOUNT,
        networks=ActorCriticSize(actor=[16], critic=[16]),
        reward_units="real",
        **changes,
    )
    return ActorCriticLearner(learned(), SUITE.tasks, config, 0)


@pytest.mark.parametrize("steps", range(1, HORIZON + 1))
def test_falls_are_foreseen_from_any_distance(steps):
    """Though windows of recorded episodes have them in their last row alone."""
    model, x = learned(), torch.linspace(-1.9, 0.95, 60)
    z, task = encoded(x), torch.zeros(60, dtype=torch.long)
    for _ in range(steps):
        z = model.next(z, torch.ones(60, 1), task)
    landed = x + steps * PUSH
    falls = model.continuation(z, task) < 0.5
    right = falls == (landed >= EDGE)
    assert right[(landed - EDGE).abs() > 0.3].all()
    assert right.float().mean() > 0.85


@torch.no_grad()
def pushes_right(learner: ActorCriticLearner) -> ActorCriticLearner:
    """Its actor takes the largest action everywhere, and its critics value nothing."""
    for parameter in (*learner.actors.mean.parameters(), *learner.critics.parameters()):
        parameter.zero_()
    learner.actors.mean[-1].bias.fill_(5.0)
    return learner


def test_the_imagined_return_stops_where_the_episode_does():
    learner = pushes_right(make_learner())
    steps_to_fall = torch.arange(1, HORIZON + 2)  # the last does not within the horizon
    x = EDGE - PUSH * (steps_to_fall - 0.5)
    noise = torch.zeros(HORIZON, 1, len(x), 1)
    imagined = learner.imagine(encoded(x).unsqueeze(0), noise)
    assert imagined.continuation is not None
    last = torch.zeros(1, len(x))
    returns = bootstrapped_return(imagined.rewards, last, DISCOUNT, imagined.continuation)[0]
    wanted = (1 - DISCOUNT ** steps_to_fall.clamp(max=HORIZON)) / (1 - DISCOUNT)
    torch.testing.assert_close(returns, wanted, atol=0.4, rtol=0)
    unaware = bootstrapped_return(imagined.rewards, last, DISCOUNT)[0]
    assert unaware[0] > wanted[0] + 1  # it goes on after the fall


def test_actors_learn_not_to_fall():
    learner = make_learner(iterations=40, optim={"actor_lr": 1e-2, "critic_lr": 5e-3})
    generator = torch.Generator().manual_seed(3)
    survival = []
    for step in range(40):
        learner.set_progress(step)
        x = torch.rand(64, generator=generator) * 0.6 + 0.3
        metrics = learner.iteration(Inputs(encoded(x).unsqueeze(0), learner.noise()))
        survival.append(float(metrics["imagined_survival"]))
    assert survival[0] < 0.8
    assert survival[-1] > 0.95


def test_of_an_ensemble_all_predict_terminations_or_none(tmp_path):
    model = learned()
    other = WorldModel(SIZE, SUITE)
    for name, own in (("model", model), ("other", other)):
        save_checkpoint(tmp_path / name, KIND, {"model": own.state_dict()}, model_meta(own))
    checkpoint, further = str(tmp_path / "model"), [str(tmp_path / "other")]
    config = ExtractConfig(checkpoint, "data", "out", ensemble=further)
    with pytest.raises(PwmError, match="one alone predicts terminations"):
        _ensemble(config, model, [])
