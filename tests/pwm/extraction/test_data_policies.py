"""Q functions of recorded transitions, and the prior that actors stay near."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from offline_learner import (
    CONFIG,
    HELD,
    SUITE,
    assert_same_state,
    assert_two_parts_are_the_whole,
    iterate,
    latents,
    make_learner,
    make_q_inputs,
)
from torch import Tensor
from torch.func import functional_call

from configs import changed
from pwm.core.errors import PwmError
from pwm.extraction.config import ExtractConfig
from pwm.extraction.inputs import Inputs, QInputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.q_functions import QFunctions
from pwm.extraction.recorded_states import RecordedTransitions
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


# --- Q functions ----------------------------------------------------------------------------------


def test_an_update_of_q_is_that_of_the_plain_equations():
    """One step of TD3's critics by Adam, written out for each task and member apart."""
    learner = make_learner(q={"updates": 1, "tau": 0.25})
    given = make_q_inputs(learner, 1)
    recorded, noise = given
    before = {name: w.clone() for name, w in learner.q.online.state_dict().items()}
    step = (0.1 * noise[0]).clamp(-0.3, 0.3)
    with torch.no_grad():
        action = learner.actors(recorded.next_latent) + step
        action = action.clamp(-1, 1) * learner.actors.action_mask.unsqueeze(1)
        following = learner.q.target(torch.cat([recorded.next_latent, action], -1))
        target = recorded.reward + recorded.discount * following.min(1).values
    weights = {name: w.clone().requires_grad_() for name, w in before.items()}
    features = torch.cat([recorded.latent, recorded.action], -1)
    error = functional_call(learner.q.online, weights, (features,)) - target.unsqueeze(1)
    losses = error.square().mean((1, 2))
    adam = torch.optim.Adam(weights.values(), lr=1e-3, betas=(0.7, 0.95))
    losses.sum().backward()
    adam.step()
    loss = learner.q_update(given)["q_loss"]
    torch.testing.assert_close(loss, losses.detach())
    for name, weight in learner.q.online.state_dict().items():
        assert not torch.equal(weight, before[name])
        torch.testing.assert_close(weight, weights[name].detach())
        slow = 0.75 * before[name] + 0.25 * weight
        torch.testing.assert_close(learner.q.target.state_dict()[name], slow)


def test_q_finds_the_value_of_a_reward_that_never_changes():
    learner = make_learner(q={"lr": 2e-2, "tau": 0.4, "batch_size": 32})
    rows = learner.config.q.batch_size
    mask = learner.actors.action_mask.unsqueeze(1)
    for _ in range(150):
        state, action = latents(rows, 1), mask * (2 * torch.rand(2, rows, 2) - 1)
        reward = torch.tensor([[1.0], [-0.5]]).expand(2, rows)
        recorded = Transitions(state, action, reward, torch.full((2, rows), 0.9), state)
        learner.q_update(QInputs(recorded, learner.q_noise(1)))
    value = learner.q.value(latents(rows, 1), learner.actors(latents(rows, 1)))
    torch.testing.assert_close(value.mean(1), torch.tensor([10.0, -5.0]), rtol=0.05, atol=0)


def test_transitions_that_end_have_no_value_after_them():
    learner = make_learner(q={"lr": 0.0})
    recorded, noise = make_q_inputs(learner, 1)
    ends = recorded._replace(discount=torch.zeros_like(recorded.discount))
    losses = [learner.q_update(QInputs(ends, noise))["q_loss"]]
    other = ends._replace(next_latent=latents(4, 99))
    losses.append(learner.q_update(QInputs(other, noise))["q_loss"])
    assert torch.equal(*losses)


def test_q_functions_begin_at_what_the_data_say():
    learner = make_learner()
    with torch.no_grad():
        for parameter in learner.q.online.parameters():
            parameter.mul_(1e-3)
    learner.q.begin(torch.tensor([40.0, -3.0]))
    for net in (learner.q.online, learner.q.target):
        values = net(torch.cat([latents(5), torch.zeros(2, 5, 2)], -1))
        torch.testing.assert_close(
            values, torch.tensor([40.0, -3.0]).view(2, 1, 1).expand(2, 2, 5), atol=0.1, rtol=0
        )


def test_the_value_of_data_is_that_of_their_mean_reward():
    ends = torch.full((1, 8), 0.9**5)
    rewards = 2 * (1 - ends) / (1 - 0.9)  # five rewards of 2
    pools = SimpleNamespace(
        obs=torch.zeros(1, 8, 4), next_obs=torch.zeros(1, 8, 4), action=torch.zeros(1, 8, 2),
        reward=rewards, next_discount=ends,
    )  # fmt: skip
    recorded = RecordedTransitions(make_learner().model, pools, torch.tensor([0]), frozen=False)
    torch.testing.assert_close(recorded.mean_value(), torch.tensor([20.0]))


def test_without_members_there_are_no_q_functions():
    learner = make_learner(q={"members": 0})
    assert learner.q is None
    assert learner.config.steps == CONFIG.iterations


# --- the gradient of actors -----------------------------------------------------------------------


def loss_by_hand(learner, weights: dict[str, Tensor], start: Tensor, noise: Tensor, scale: Tensor):
    """The actors' loss step by step: imagined rewards, least Q at the end, and the prior's price.

    States that the prior is asked at are constants, taken along from the learner's own weights.
    """
    config, model, task = learner.config, learner.model, torch.tensor([[0], [1]])
    own, z, total = learner.actors, start, 0.0
    act = lambda features, *more: functional_call(own, weights, (features, *more))  # noqa: E731
    with torch.no_grad():
        states, at = [], start
        for t in range(config.horizon):
            states.append(at)
            at = model.next(at, own(at, noise[t]), task)
        states.append(at)
    for t in range(config.horizon):
        action = act(z, noise[t])
        total = total + config.discount**t * model.symlog_reward(z, action, task)
        z = model.next(z, action, task)
    last = learner.q.online(torch.cat([z, act(z)], -1)).min(1).values
    total = total + config.discount**config.horizon * last
    visited = torch.cat(states, 1)
    away = (act(visited) - learner.prior.actors(visited)).square().sum(-1).mean(1)
    price = learner.prior.weight * away / own.action_mask.sum(-1)
    return (-total.mean(1) / scale + price).sum()


def held_learner(**changes) -> ActorCriticLearner:
    learner = make_learner(double=True, prior=HELD, detach_actor_input=False, **changes)
    learner.prior.actors.double()
    with torch.no_grad():  # a prior that the actors have left
        for parameter in learner.prior.actors.parameters():
            parameter.add_(0.1)
    return learner


def test_actors_get_the_derivative_of_imagined_return_q_and_price():
    """Against central differences in several directions."""
    learner = held_learner()
    start = latents(6).double()
    noise = learner.noise()
    noise = noise._replace(action=noise.action.double())
    grads, _, metrics = learner._actor_gradients(Inputs(start, noise))
    weights = {n: p.detach().clone() for n, p in learner.actors.named_parameters()}
    for seed in range(8):
        torch.manual_seed(seed)
        way = {name: torch.randn_like(weight) for name, weight in weights.items()}
        ends = []
        for step in (1e-6, -1e-6):
            moved = {name: weight + step * way[name] for name, weight in weights.items()}
            with torch.no_grad():
                scale = metrics["return_scale"]
                ends.append(loss_by_hand(learner, moved, start, noise.action, scale))
        numeric = (ends[0] - ends[1]) / 2e-6
        analytic = sum((grad * part).sum() for grad, part in zip(grads, way.values(), strict=True))
        assert analytic.abs() > 1e-3
        torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_in_two_parts_is_that_of_the_whole(detach):
    learner = held_learner()
    learner.config.detach_actor_input = detach
    noise = learner.noise()
    inputs = Inputs(latents(6).double(), noise._replace(action=noise.action.double()))
    assert_two_parts_are_the_whole(learner, inputs)


# --- the prior ------------------------------------------------------------------------------------


def test_the_prior_is_the_actors_as_they_were_when_iterations_began():
    learner = make_learner(prior=HELD)
    before = {name: w.clone() for name, w in learner.actors.state_dict().items()}
    learner.begin_iterations()
    first, *_, last = iterate(learner, learner.config.warmup_steps, learner.config.warmup_steps + 4)
    assert torch.equal(first["prior_distance"], torch.zeros(2))
    assert (last["prior_distance"] > 0).all()
    for name, weight in before.items():
        assert torch.equal(learner.prior.actors.state_dict()[name], weight)
        assert name == "log_std" or not torch.equal(learner.actors.state_dict()[name], weight)


def test_the_price_follows_the_distance():
    prior = make_learner(prior=HELD).prior
    rise = math.exp(0.03)
    for away, factor in ((0.01, 1), (0.02, rise), (1, rise), (0, 1 / rise), (math.nan, 1)):
        prior.log_weight.zero_()
        prior.set_weight(torch.tensor([away, 0.01]))
        torch.testing.assert_close(prior.weight, torch.tensor([factor, 1.0]), rtol=1e-5, atol=0)


def test_a_relative_target_is_a_share_of_what_the_data_stray():
    held = {"weight": 10.0, "target": None, "relative_target": 0.1}
    learner = make_learner(prior=held)
    learner.begin_iterations(torch.tensor([0.4, 0.02]))
    learner.prior.log_weight.zero_()
    learner.prior.set_weight(torch.tensor([0.02, 0.003]))  # half of the first, above the second
    rates = torch.tensor([-0.5, 0.5])
    torch.testing.assert_close(learner.prior.weight, (0.03 * rates).exp())
    another = make_learner(prior=held)
    another.prior.load(learner.prior.tensors())
    torch.testing.assert_close(another.prior.target, torch.tensor([0.04, 0.002]))


def test_a_price_without_target_stays():
    learner = make_learner(prior={"weight": 0.5, "target": None})
    iterate(learner, 2, 5)
    torch.testing.assert_close(learner.prior.weight, torch.tensor([0.5, 0.5]))


def test_a_distance_is_held():
    """An actor that is pulled away by another loss settles at the target, whatever the pull."""
    learner = make_learner(prior={"weight": 0.1, "target": 0.02}, q={"members": 0})
    actors, prior, states = learner.actors, learner.prior, latents(20)
    away = torch.tensor([[[0.9, 0.0]], [[-0.9, 0.9]]])
    adam = torch.optim.Adam(actors.parameters(), lr=3e-3)
    distances = []
    for _ in range(200):
        mode = actors(states)
        pull = (mode - away).square().mean((1, 2)) * torch.tensor([5.0, 0.5])
        distance = prior.distance(mode, states)
        adam.zero_grad()
        (pull + prior.weight * distance).sum().backward()
        adam.step()
        prior.set_weight(distance.detach())
        distances.append(distance.detach())
    held = torch.stack(distances[-20:]).mean(0)
    assert ((held / 0.02 - 1).abs() < 0.5).all()
    assert prior.weight[0] > 4 * prior.weight[1]


# --- of both --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(2))
def test_a_task_learns_the_same_alone_and_in_a_stack(k):
    stack, alone = make_learner(prior=HELD), make_learner(SUITE.tasks[k : k + 1], prior=HELD)
    own = slice(k, k + 1)
    for learner in (stack, alone):
        learner.begin_iterations()
    for step in range(2, 5):
        start, q = latents(6, step), make_q_inputs(stack, 2, step)
        theirs = QInputs(Transitions(*(part[own] for part in q.transitions)), alone.q_noise(2))
        torch.testing.assert_close(theirs.noise, q.noise[:, own])
        for learner in (stack, alone):
            learner.set_progress(step)
        stack.iteration(Inputs(start, stack.noise(), q=q))
        alone.iteration(Inputs(start[own], alone.noise(), q=theirs))
    for whole, single in (
        (stack.actors, alone.actors),
        (stack.q.online, alone.q.online),
        (stack.critics, alone.critics),
    ):
        for a, b in zip(whole.parameters(), single.parameters(), strict=True):
            mine = a.view(2, -1)[k]
            torch.testing.assert_close(mine, b.flatten(), rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(stack.prior.weight[own], alone.prior.weight)


def test_fresh_networks_of_a_task_do_not_depend_on_its_neighbors():
    nets = [
        ActorCriticLearner(make_learner().model, tasks, CONFIG, 0).q.target
        for tasks in (SUITE.tasks, SUITE.tasks[1:])
    ]
    for stacked, alone in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(stacked.view(2, -1)[1], alone.flatten())


def test_resuming_is_bit_exact(tmp_path):
    whole, half = make_learner(prior=HELD), make_learner(prior=HELD)
    for learner in (whole, half):
        learner.begin_iterations()
    iterate(whole, 2, 6)
    iterate(half, 2, 4)
    save_checkpoint(tmp_path / "half", "extraction", half.tensors(), {})
    resumed = make_learner(seed=9, prior=HELD)  # everything must come from the checkpoint
    resumed.load(load_checkpoint(tmp_path / "half", "extraction"))
    iterate(resumed, 4, 6)
    assert_same_state(whole, resumed)


def test_the_saved_critic_learns_the_least_q_of_the_actors_mode():
    learner = make_learner()
    start, noise = latents(6), learner.noise()
    imagined = learner.imagine(start, noise.action)
    states, values, _ = learner._critic_targets(imagined)
    assert torch.equal(states, imagined.latents[:-1].detach().transpose(0, 1).flatten(1, 2))
    features = torch.cat([states, learner.actors(states)], -1)
    torch.testing.assert_close(values, learner.q.online(features).min(1).values)


@pytest.mark.parametrize(
    "changes",
    [
        {"prior": {"weight": -1.0}},
        {"prior": {"weight": 1.0, "target": 0.0}},
        {"q": {"members": -1}},
        {"q": {"tau": 0.0}},
        {"q": {"tau": 1.5}},
        {"q": {"updates": 0}},
        {"q": {"batch_size": 0}},
        {"q": {"pool": 0}},
        {"q": {"hidden": [0]}},
    ],
)
def test_values_that_cannot_work_are_refused(changes):
    (block,) = changes
    with pytest.raises(PwmError, match=rf"{block}\.\w+="):
        changed(CONFIG, **changes).validate()


def test_a_prior_of_random_networks_is_refused(tmp_path):
    config = ExtractConfig(checkpoint="a", data="b", out=str(tmp_path / "c"))
    config.learner.prior.weight = 1.0
    with pytest.raises(PwmError, match=r"which are random here; clone first with learner\.bc"):
        config.validate()
    config.init = "policies"
    config.validate()


def test_members_are_stacked():
    q = QFunctions(3, 3, 2, CONFIG, Accelerator(CPU))
    assert q.online(torch.zeros(3, 4, 5)).shape == (3, 2, 4)
    assert q.value(torch.zeros(3, 4, 3), torch.zeros(3, 4, 2)).shape == (3, 4)
