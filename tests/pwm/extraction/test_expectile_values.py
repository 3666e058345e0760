"""State values of recorded actions, which end targets and imagined rollouts (IQL)."""

from __future__ import annotations

import pytest
import torch
from offline_learner import (
    CONFIG,
    HELD,
    assert_same_state,
    iterate,
    latents,
    make_learner,
    make_q_inputs,
)
from torch import Tensor
from torch.func import functional_call

from configs import changed
from pwm.core.errors import PwmError
from pwm.extraction.inputs import Inputs, QInputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.losses import expectile_loss
from pwm.models.actor_critic import ActorCriticSize, Critics
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint


def make_expectile_learner(expectile: float = 0.7, **changes) -> ActorCriticLearner:
    q = {"expectile": expectile, **changes.pop("q", {})}
    learner = make_learner(q=q, **changes)
    state = learner.q.state.to(learner.q.online.value.dtype)
    with torch.no_grad():  # fresh networks are so near zero that little can be seen
        for k, task in enumerate(learner.tasks):
            torch.manual_seed(learner.model.suite.id(task.name) + 200)
            for parameter in state.parameters():
                own = parameter.view(len(learner.tasks), -1)[k]
                own.add_(0.3 * torch.randn_like(own))
    return learner


def test_an_update_is_that_of_the_plain_equations():
    """One step of V and then one of Q by Adam, row by row for each task."""
    learner = make_expectile_learner(q={"updates": 1, "tau": 0.25})
    q, given = learner.q, make_q_inputs(learner, 1)
    recorded, _ = given
    nets = {name: getattr(q, name) for name in ("online", "target", "state")}
    before = {
        name: {n: w.clone().requires_grad_() for n, w in net.state_dict().items()}
        for name, net in nets.items()
    }

    def step(name: str, features: Tensor, loss_of) -> Tensor:
        weights = before[name]
        found = functional_call(nets[name], weights, (features,))  # (K, members, B)
        losses = [
            torch.stack([loss_of(k, row, found[k, :, row]) for row in range(4)]).mean()
            for k in range(2)
        ]
        torch.stack(losses).sum().backward()
        torch.optim.Adam(weights.values(), lr=1e-3, betas=(0.7, 0.95)).step()
        return torch.stack(losses).detach()

    features = torch.cat([recorded.latent, recorded.action], -1)
    with torch.no_grad():
        least = q.target(features).min(1).values

    def of_state(k: int, row: int, value: Tensor) -> Tensor:
        above = least[k, row] > value[0]
        return (0.7 if above else 0.3) * (least[k, row] - value[0]) ** 2

    wanted = {"state_value_loss": step("state", recorded.latent, of_state)}
    with torch.no_grad():
        later = functional_call(q.state, before["state"], (recorded.next_latent,))[:, 0]

    def of_q(k: int, row: int, value: Tensor) -> Tensor:
        target = recorded.reward[k, row] + recorded.discount[k, row] * later[k, row]
        return ((value - target) ** 2).mean()

    wanted["q_loss"] = step("online", features, of_q)
    slow = {n: 0.75 * before["target"][n] + 0.25 * w.detach() for n, w in before["online"].items()}
    torch.testing.assert_close(learner.q_update(given), wanted)
    for name, expected in (("state", before["state"]), ("online", before["online"])):
        for n, weight in nets[name].state_dict().items():
            torch.testing.assert_close(weight, expected[n].detach())
    for n, weight in q.target.state_dict().items():
        torch.testing.assert_close(weight, slow[n].detach())


def test_the_loss_has_its_derivative():
    """Against central differences in a direction, and 0.5 is half the squared error."""
    torch.manual_seed(0)
    values = Critics(2, 3, ActorCriticSize([], [5], 1), 10.0).double()
    state, target = torch.randn(2, 6, 3).double(), 3 * torch.randn(2, 6).double()
    weights = {name: p.detach() for name, p in values.named_parameters()}
    way = {name: torch.randn_like(w) for name, w in weights.items()}

    def loss_at(step: float) -> Tensor:
        moved = {name: w + step * way[name] for name, w in weights.items()}
        call = lambda features: functional_call(values, moved, (features,))  # noqa: E731
        call.scale = 10.0
        return expectile_loss(call, state, target, 0.8).sum()

    loss = expectile_loss(values, state, target, 0.8)
    grads = torch.autograd.grad(loss.sum(), list(values.parameters()))
    analytic = sum((g * w).sum() for g, w in zip(grads, way.values(), strict=True))
    torch.testing.assert_close(
        analytic, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-8
    )
    squared = ((values(state)[:, 0] - target) / 10).square().mean(1)
    torch.testing.assert_close(expectile_loss(values, state, target, 0.5), squared / 2)


@pytest.mark.parametrize(("expectile", "wanted"), [(0.5, 0.5), (0.9, 0.9)])
def test_the_value_is_that_expectile_of_what_actions_are_worth(expectile, wanted):
    """Of two actions worth 0 and 1, each taken half of the time, V is the expectile."""
    learner = make_expectile_learner(expectile, q={"lr": 2e-2, "tau": 0.4, "batch_size": 32})
    state = latents(1).expand(2, 32, -1)
    action = torch.zeros(2, 32, 2)
    action[:, ::2, 0] = 1.0
    ends = torch.zeros(2, 32)
    recorded = Transitions(state, action, action[..., 0], ends, state)
    for step in range(60):
        learner.q.optimizer.param_groups[0]["lr"].fill_(5e-2 * 0.95**step)
        learner.q_update(QInputs(recorded, torch.zeros(1, 2, 32, 2)))
    value = learner.q.state_value(latents(1))
    torch.testing.assert_close(value, torch.full((2, 1), wanted), atol=0.05, rtol=0)


@pytest.mark.parametrize("detach", [False, True])
def test_rollouts_end_with_the_state_value(detach):
    """The actors' gradient of imagined rewards and V, against central differences."""
    learner = make_expectile_learner(double=True, detach_actor_input=detach, horizon=2)
    start, noise = latents(6).double(), learner.noise()
    noise = noise._replace(action=noise.action.double())
    grads, imagined, metrics = learner._actor_gradients(Inputs(start, noise))
    task = torch.tensor([[0], [1]])
    weights = {n: p.detach().clone() for n, p in learner.actors.named_parameters()}

    def loss(moved: dict[str, Tensor]) -> Tensor:
        z, total = start, 0.0
        for t in range(2):
            seen = imagined.latents[t].detach() if detach else z
            action = functional_call(learner.actors, moved, (seen, noise.action[t]))
            total = total + 0.9**t * learner.model.symlog_reward(z, action, task)
            z = learner.model.next(z, action, task)
        total = total + 0.9**2 * learner.q.state(z)[:, 0]
        return (-total.mean(1) / metrics["return_scale"]).sum()

    for seed in range(3):
        torch.manual_seed(seed)
        way = {name: torch.randn_like(weight) for name, weight in weights.items()}
        with torch.no_grad():
            ends = [
                loss({name: w + step * way[name] for name, w in weights.items()})
                for step in (1e-6, -1e-6)
            ]
        analytic = sum((g * w).sum() for g, w in zip(grads, way.values(), strict=True))
        assert analytic.abs() > 1e-3
        torch.testing.assert_close(analytic, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_the_saved_critic_learns_the_state_value():
    learner = make_expectile_learner()
    imagined = learner.imagine(latents(6), learner.noise().action)
    states, values, _ = learner._critic_targets(imagined)
    torch.testing.assert_close(values, learner.q.state(states)[:, 0])


@pytest.mark.parametrize("k", range(2))
def test_a_task_learns_the_same_alone_and_in_a_stack(k):
    stack, own = make_expectile_learner(), slice(k, k + 1)
    alone = make_expectile_learner(tasks=stack.tasks[own])
    for step in range(2):
        start, q = latents(6, step), make_q_inputs(stack, 2, step)
        theirs = QInputs(Transitions(*(part[own] for part in q.transitions)), alone.q_noise(2))
        for learner in (stack, alone):
            learner.set_progress(step + 2)
        stack.iteration(Inputs(start, stack.noise(), q=q))
        alone.iteration(Inputs(start[own], alone.noise(), q=theirs))
    for whole, single in ((stack.q.state, alone.q.state), (stack.actors, alone.actors)):
        for a, b in zip(whole.parameters(), single.parameters(), strict=True):
            torch.testing.assert_close(a.view(2, -1)[k], b.flatten(), rtol=2e-4, atol=2e-5)


def test_fresh_values_of_a_task_do_not_depend_on_its_neighbors():
    model, config = make_learner().model, changed(CONFIG, q={"expectile": 0.7})
    tasks = model.suite.tasks
    stacked, alone = (
        ActorCriticLearner(model, some, config, 0).q.state for some in (tasks, tasks[1:])
    )
    for a, b in zip(stacked.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a.view(2, -1)[1], b.flatten())


def test_resuming_is_bit_exact(tmp_path):
    whole, half = (make_expectile_learner(prior=HELD) for _ in range(2))
    for learner in (whole, half):
        learner.begin_iterations()
    made = iterate(whole, 2, 4)
    assert made[-1]["state_value_loss"].shape == (2,)
    iterate(half, 2, 3)
    save_checkpoint(tmp_path / "half", "extraction", half.tensors(), {})
    resumed = make_expectile_learner(seed=9, prior=HELD)  # all must come from the checkpoint
    resumed.load(load_checkpoint(tmp_path / "half", "extraction"))
    iterate(resumed, 3, 4)
    assert_same_state(whole, resumed)


@pytest.mark.parametrize("changes", [{"expectile": 0.0}, {"expectile": 1.0}])
def test_values_that_cannot_work_are_refused(changes):
    with pytest.raises(PwmError, match=r"q\.expectile="):
        changed(CONFIG, q=changes).validate()


def test_there_is_no_expectile_of_no_q_functions():
    with pytest.raises(PwmError, match=r"members=0 has none; give members=2"):
        changed(CONFIG, q={"members": 0, "expectile": 0.7}).validate()
