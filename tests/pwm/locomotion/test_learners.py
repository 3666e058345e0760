"""The learners: the gradient of SHAC's loss, exact resuming, and learning on a toy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from pwm.cli.main import config_directory
from pwm.core.errors import PwmError
from pwm.extraction.config import (
    ActorCriticConfig,
    BCConfig,
    CriticConfig,
    PriorConfig,
    QConfig,
)
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.learner import episode_returns
from pwm.locomotion.methods import MethodSettings, make_learner, require_methods
from pwm.locomotion.online import OnlineConfig, n_step
from pwm.locomotion.shac import Shac, ShacConfig
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.policy import load_policy
from pwm.models.world_model import ModelSize, load_world_model
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint

SIZE = ActorCriticSize(actor=[16], critic=[16], critics=2)
SETTINGS = MethodSettings(
    pwm=OnlineConfig(
        num_envs=4,
        horizon=4,
        first_steps=32,
        model_updates=2,
        model_batch=8,
        model=ModelSize(16, 1, 16, 16, 0, simnorm_dim=8),
        policy=ActorCriticConfig(
            batch_size=8, networks=SIZE, critic=CriticConfig(iterations=1, batches=2)
        ),
    ),
    shac=ShacConfig(num_envs=4, horizon=6, networks=SIZE, critic_iterations=1),
)
OURS = ["shac", "pwm"]
OF_REPLAY = replace(
    SETTINGS.pwm,
    policy_updates=2,
    imagined_steps=2,
    policy=replace(
        SETTINGS.pwm.policy,
        q=QConfig(members=2, hidden=[16], batch_size=8),
        critic=CriticConfig(iterations=1, batches=2, real_ratio=0.5, real_steps=3),
    ),
)


def learner(method, task="pendulum", steps=200, seed=0, settings=SETTINGS):
    simulation = make_simulation(task, num_envs=settings.of(method).num_envs)
    return make_learner(method, simulation, settings, steps, seed)


def test_the_gradient_of_shacs_loss_is_that_of_finite_differences():
    torch.set_default_dtype(torch.float64)
    shac = Shac(make_simulation("double_pendulum", num_envs=3), SETTINGS.shac, 100, 0)
    noise, begun = shac.draw_noise(), shac.simulation.state()

    def loss():
        shac.simulation.load_state(begun)
        return shac.loss(shac.roll_out(noise)[0])

    parameters = list(shac.actors.parameters())
    grads = torch.autograd.grad(loss(), parameters)
    directions = [torch.randn_like(grad) for grad in grads]
    sides = []
    with torch.no_grad():
        for sign in (1, -2):  # there, and from there as far to the other side
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * 1e-6 * direction
            sides.append(float(loss()))
    expected = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize("method", [*OURS, "pwm, values of the replay"])
def test_a_learner_that_is_loaded_goes_on_bit_for_bit(method, tmp_path):
    settings = SETTINGS if method in OURS else replace(SETTINGS, pwm=OF_REPLAY)
    make = partial(learner, method.split(",")[0], settings=settings)
    whole = make()
    whole.iteration()
    save_checkpoint(tmp_path / "saved", "locomotion", whole.tensors(), {})
    expected = [whole.iteration() for _ in range(2)]
    other = make()
    other.load(load_checkpoint(tmp_path / "saved", "locomotion"))
    assert [other.iteration() for _ in range(2)] == expected
    assert other.steps == whole.steps
    seen = whole.simulation.reset(0)
    assert torch.equal(other.act(seen), whole.act(seen))


@pytest.mark.parametrize("method", OURS)
def test_what_is_saved_acts_as_the_learner_does(method, tmp_path):
    trained = learner(method)
    trained.iteration()
    trained.save(tmp_path)
    seen = trained.simulation.reset(0)
    acts = load_policy(tmp_path / "policy").act(seen)
    assert torch.allclose(acts, trained.act(seen), atol=1e-5)
    if method == "pwm":
        assert load_world_model(tmp_path / "world_model").episodic


def test_runs_of_one_seed_are_equal_and_of_another_not():
    same = [learner("shac", seed=seed).iteration()["loss"] for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def test_evaluation_plays_the_same_episodes_whatever_was_played_before():
    evaluation = make_simulation("pendulum", num_envs=3, seed=8)
    shac = learner("shac")
    first = episode_returns(shac, evaluation)
    evaluation.step(torch.zeros(3, 1))
    assert torch.equal(episode_returns(shac, evaluation), first)
    assert len(set(first.tolist())) == 3


def test_pwm_learns_where_an_episode_is_one_decision():
    pwm = learner("pwm", "ball_wall")
    metrics = pwm.iteration()
    assert pwm.steps == 32 + 4 * 4
    assert metrics["imagined_survival"] <= 1


def test_every_update_of_a_policy_is_of_its_own_and_the_last_has_the_last_rate():
    pwm = learner("pwm", settings=replace(SETTINGS, pwm=OF_REPLAY), steps=64)
    of_policy, iteration, rates = pwm.of_policy, pwm.of_policy.iteration, []

    def recorded(inputs):
        rates.append(float(of_policy.actor_optimizer.param_groups[0]["lr"]))
        assert inputs.transitions.reward.shape == (1, 8)
        assert inputs.q.transitions.latent.shape == (1, 2 * 8, 16)
        assert len(inputs.noise.action) == 2
        return iteration(inputs)

    of_policy.iteration = recorded
    for _ in range(2):
        assert pwm.iteration()["q_loss"] > 0
    assert len(rates) == 4 and rates == sorted(rates, reverse=True) and len(set(rates)) == 4


def test_transitions_over_several_steps_end_where_their_episode_did():
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 0.0]])
    terminated = torch.tensor([[False, False], [False, True], [False, True]])
    summed, counts = n_step(reward, terminated, 0.5)
    assert summed.tolist() == [1 + 1 + 1, 1 + 1]
    assert counts.tolist() == [0.125, 0.0]


@pytest.mark.parametrize(
    "policy",
    [ActorCriticConfig(bc=BCConfig(weight=1.0)), ActorCriticConfig(prior=PriorConfig(weight=1.0))],
)
def test_what_needs_recorded_data_is_refused(policy):
    with pytest.raises(PwmError, match="need recorded data, of which pwm has none here"):
        replace(SETTINGS.pwm, policy=policy).validate()


def test_shac_refuses_a_simulator_without_gradients():
    simulation = make_simulation("pendulum", num_envs=4)
    simulation.differentiable = False
    with pytest.raises(PwmError, match="pendulum cannot be differentiated"):
        Shac(simulation, SETTINGS.shac, 100, 0)


def test_gradients_that_are_never_finite_are_an_error(monkeypatch):
    shac = learner("shac")
    monkeypatch.setattr(Shac, "loss", lambda self, rollout: rollout.rewards.sum() * float("nan"))
    for _ in range(19):
        shac.iteration()
    with pytest.raises(PwmError, match=r"not finite 20 times.*shac\.horizon"):
        shac.iteration()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pmw"], "there is no method pmw; did you mean 'pwm'"),
        ([], "no method was named"),
        (["pwm", "pwm"], "named twice"),
    ],
)
def test_methods_that_cannot_be_compared_are_refused(names, message):
    with pytest.raises(PwmError, match=message):
        require_methods(names)


@pytest.mark.parametrize(
    ("block", "change"), [("shac", {"horizon": 0}), ("pwm", {"model_batch": 0}), ("ppo", {"lr": 0})]
)
def test_settings_of_a_method_are_named_with_it(block, change):
    settings = replace(SETTINGS, **{block: replace(SETTINGS.of(block), **change)})
    (name,) = change
    with pytest.raises(PwmError, match=rf"^{block}\.{name}="):
        settings.validate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "steps", "gain"),
    [("pwm", 12_000, 40), ("shac", 40_000, 40), ("ppo", 40_000, 20), ("sac", 12_000, 40)],
)
def test_every_method_learns_to_swing_a_pendulum_up(method, steps, gain):

    small = OmegaConf.load(config_directory() / "compare" / "small.yaml")
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(MethodSettings), small))
    trained = learner(method, steps=steps, settings=settings)
    evaluation = make_simulation("pendulum", num_envs=16)
    before = episode_returns(trained, evaluation).mean()
    while trained.steps < steps:
        trained.iteration()
    assert episode_returns(trained, evaluation).mean() > before + gain
