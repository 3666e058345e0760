"""Imagined rollouts that are cut where an ensemble disagrees, and those that end with a V."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from offline_learner import SIZE, SUITE, assert_same_state, assert_two_parts_are_the_whole
from torch import Tensor
from torch.func import functional_call

from configs import changed
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.losses import bootstrapped_return
from pwm.extraction.offline_settings import EnsembleConfig
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import WorldModel
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint

CONFIG = ActorCriticConfig(
    iterations=20,
    batch_size=6,
    horizon=4,
    discount=0.9,
    networks=ActorCriticSize(actor=[6, 5], critic=[5], critics=2),
    critic=CriticConfig(batches=1),
    ensemble=EnsembleConfig(uncertainty_coef=1.5, truncate_above=1.0),
    detach_actor_input=False,
)
Q = {"members": 2, "hidden": [7], "warmup_steps": 0}


def make_model(seed: int, episodic: bool = False) -> WorldModel:
    torch.manual_seed(seed)
    model = WorldModel(SIZE, SUITE, episodic=episodic)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.double().eval().requires_grad_(False)


def make_learner(tasks=SUITE.tasks, episodic: bool = False, **changes) -> ActorCriticLearner:
    """In float64, with limits that cut about half of the rollouts."""
    model, *others = (make_model(seed, episodic) for seed in range(3))
    learner = ActorCriticLearner(model, tasks, changed(CONFIG, **changes), 0, ensemble=others)
    for net in networks(learner):
        net.double()
        with torch.no_grad():  # fresh networks are so near zero that little can be seen
            for k, task in enumerate(learner.tasks):
                torch.manual_seed(SUITE.id(task.name) + 100)
                for parameter in net.parameters():
                    own = parameter.view(len(learner.tasks), -1)[k]
                    own.add_(0.3 * torch.randn_like(own))
    if learner.ends.limit is not None:
        learner.ends.limit.copy_(disagreement(learner, make_inputs(learner)).quantile(0.85, 1))
    return learner


@torch.no_grad()
def disagreement(learner: ActorCriticLearner, inputs: Inputs) -> Tensor:
    """(K, H B)."""
    given = inputs.start, inputs.noise.action, inputs.ensemble_start_latents
    return learner.imagine(*given).disagreement.transpose(0, 1).flatten(1)


def networks(learner: ActorCriticLearner) -> list:
    q, prior = learner.q, learner.prior
    nets = [learner.actors, learner.critics, *([q.online, q.target] if q else [])]
    return [*nets, *([prior.actors] if prior else [])]


def make_inputs(learner: ActorCriticLearner, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    start = [draw(2, 6, 2, 8).softmax(-1).flatten(2)[learner.task_ids] for _ in range(3)]
    noise = learner.noise()
    action = draw(4, 2, 6, 2)[:, learner.task_ids]
    return Inputs(start[0], noise._replace(action=action), ensemble_start_latents=tuple(start[1:]))


class Plain:
    """What the learner computes, rollout by rollout and step by step."""

    def __init__(self, learner: ActorCriticLearner, inputs: Inputs) -> None:
        self.learner, self.inputs = learner, inputs

    def value(self, z: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """(K, B) of states (K, B, latent)."""
        if self.learner.q is None:
            return self.learner.critics(z).min(1).values
        mode = functional_call(self.learner.actors, weights, (z,))
        return self.learner.q.online(torch.cat([z, mode], -1)).min(1).values

    def steps(self, weights: dict[str, Tensor]) -> tuple[list, list, list, list]:
        """Of H steps: rewards, disagreement and continuation, and of H + 1 states: values."""
        task = self.learner.task_ids.unsqueeze(1)
        models = self.learner.imagination._model, *self.learner.imagination._ensemble
        states = [self.inputs.start, *self.inputs.ensemble_start_latents]
        rewards, apart, goes_on, values = [], [], [], [self.value(states[0], weights)]
        for noise in self.inputs.noise.action:
            action = functional_call(self.learner.actors, weights, (states[0], noise))
            each = [m.symlog_reward(z, action, task) for m, z in zip(models, states, strict=True)]
            states = [m.next(z, action, task) for m, z in zip(models, states, strict=True)]
            mean = sum(each) / 3
            apart.append((sum((r - mean) ** 2 for r in each) / 3).sqrt())
            rewards.append(mean - 1.5 * apart[-1])
            stays = [
                m.continuation(z, task) for m, z in zip(models, states, strict=True) if m.episodic
            ]
            goes_on.append(sum(stays) / 3 if stays else torch.ones_like(mean))
            values.append(self.value(states[0], weights))
        return rewards, apart, goes_on, values

    def ends(self, apart: list[Tensor]) -> list[list[int]]:
        """By task and rollout, the steps that are taken before it is cut, or H."""
        limit, (tasks, batch) = self.learner.ends.limit, apart[0].shape
        return [
            [next((t for t in range(4) if apart[t][k, b] > limit[k]), 4) for b in range(batch)]
            for k in range(tasks)
        ]

    def returns(self, weights: dict[str, Tensor]) -> Tensor:
        """(K, B)."""
        rewards, apart, goes_on, values = self.steps(weights)
        found = torch.zeros_like(values[0])
        for k, ends in enumerate(self.ends(apart)):
            for b, end in enumerate(ends):
                alive = torch.ones(())
                for t in range(end):
                    found[k, b] += 0.9**t * alive * rewards[t][k, b]
                    alive = alive * goes_on[t][k, b]
                last = values[end][k, b] - (1.5 * apart[end][k, b] if end < 4 else 0)
                found[k, b] += 0.9**end * alive * last
        return found


def weights_of(learner: ActorCriticLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.actors.named_parameters()}


@pytest.mark.parametrize(
    "changes", [{}, {"q": Q}, {"episodic": True}, {"episodic": True, "q": Q}], ids=str
)
def test_actors_get_the_derivative_of_returns_that_end_at_the_cut(changes):
    """Values step by step, gradients against central differences in several directions."""
    learner = make_learner(**changes)
    inputs = make_inputs(learner)
    plain, weights = Plain(learner, inputs), weights_of(learner)
    grads, _, metrics = learner._actor_gradients(inputs)
    with torch.no_grad():
        returns, apart = plain.returns(weights), torch.stack(plain.steps(weights)[1])
    torch.testing.assert_close(metrics["imagined_return"], returns.mean(1))
    assert (apart - learner.ends.limit.view(2, 1)).abs().min() > 1e-4  # no step is at the limit
    ends = torch.tensor(plain.ends(apart))
    assert len(ends.unique()) > 2 and (ends == 4).any() and (ends < 4).any(1).all()
    torch.testing.assert_close(
        metrics["truncated_rollouts"], (ends < 4).double().mean(1), check_dtype=False
    )
    for seed in range(4):
        torch.manual_seed(seed)
        way = {name: torch.randn_like(weight) for name, weight in weights.items()}
        scale, sums = metrics["return_scale"], []
        for step in (1e-6, -1e-6):
            moved = {name: weight + step * way[name] for name, weight in weights.items()}
            with torch.no_grad():
                sums.append((-plain.returns(moved).mean(1) / scale).sum())
        analytic = sum((grad * part).sum() for grad, part in zip(grads, way.values(), strict=True))
        assert analytic.abs() > 1e-3
        torch.testing.assert_close(analytic, (sums[0] - sums[1]) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("of_q", [{}, Q])
def test_the_gradient_in_two_parts_is_that_of_the_whole(detach, of_q):
    learner = make_learner(q=of_q, detach_actor_input=detach, prior={"weight": 2.0})
    inputs = make_inputs(learner)
    assert_two_parts_are_the_whole(learner, inputs)


def test_no_action_after_the_cut_gets_a_gradient():
    learner = make_learner()
    inputs = make_inputs(learner)
    imagined = learner.imagination.roll_out(
        learner.actors, inputs.start, inputs.noise.action, inputs.ensemble_start_latents
    )
    ends = Plain(learner, inputs).ends(list(imagined.disagreement))
    cut, last = learner.ends.end(learner.actors, imagined)
    returns = bootstrapped_return(cut.rewards, last, 0.9, cut.continuation)
    for t, grad in enumerate(torch.autograd.grad(returns.sum(), imagined.actions)):
        for k in range(2):
            for b in range(6):  # the step that is not taken pays its price, and no later one does
                assert bool(grad[k, b].any()) == (t <= ends[k][b])


@pytest.mark.parametrize("of_q", [{}, Q])
def test_critics_learn_from_the_steps_that_are_taken(of_q):
    """The first critic loss and mean target, state by state from the definition."""
    learner = make_learner(q=of_q, optim={"actor_lr": 0.0, "lr_final": 0.0})
    inputs, lam = make_inputs(learner), learner.config.lam
    with torch.no_grad():
        plain = Plain(learner, inputs)
        rewards, apart, _, values = plain.steps(weights_of(learner))
        states = learner.imagine(inputs.start, inputs.noise.action, inputs.ensemble_start_latents)
        members = [learner.critics(z) for z in states.latents]
    errors, targets = [[], []], [[], []]
    for k, ends in enumerate(plain.ends(apart)):
        for b, end in enumerate(ends):
            running = values[end][k, b] - (1.5 * apart[end][k, b] if end < 4 else 0)
            for t in reversed(range(end)):
                mixed = (1 - lam) * values[t + 1][k, b] + lam * running
                running = rewards[t][k, b] + 0.9 * mixed
                wanted = values[t][k, b] if of_q else running
                targets[k].append(wanted)
                errors[k].append((members[t][k, :, b] - wanted).square().mean())
    learner.set_progress(0)
    metrics = learner.iteration(inputs)
    for name, parts in (("critic_loss", errors), ("value", targets)):
        wanted = torch.stack([torch.stack(part).mean() for part in parts])
        torch.testing.assert_close(metrics[name], wanted)


def test_without_a_step_taken_nothing_is_learned_of_values():
    learner = make_learner()
    learner.ends.set_limit(torch.full((2, 1), -1.0))
    before = {name: w.clone() for name, w in learner.critics.state_dict().items()}
    metrics = learner.iteration(make_inputs(learner))
    assert torch.equal(metrics["truncated_rollouts"], torch.ones(2, dtype=torch.float64))
    assert torch.equal(metrics["critic_loss"], torch.zeros(2, dtype=torch.float64))
    for name, weight in learner.critics.state_dict().items():
        assert torch.equal(weight, before[name])


def test_within_the_limit_nothing_changes():
    """Rollouts that nothing cuts are those of a learner without the setting."""
    cutting, plain = make_learner(), make_learner(ensemble={"truncate_above": None})
    cutting.ends.set_limit(torch.full((2, 1), torch.inf))
    made = [learner.iteration(make_inputs(learner)) for learner in (cutting, plain)]
    assert torch.equal(made[0].pop("truncated_rollouts"), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(*made)


def test_the_limit_is_a_multiple_of_the_disagreement_over_recorded_actions():
    learner = make_learner(ensemble={"truncate_above": 2.5})
    inputs = make_inputs(learner)
    latents, action = [inputs.start, *inputs.ensemble_start_latents], inputs.noise.action[0].tanh()
    learner.ends.set_limit(learner.imagination.disagreement(latents, action))
    models = learner.imagination._model, *learner.imagination._ensemble
    for k in range(2):
        rewards = [
            m.symlog_reward(z[k], action[k], torch.tensor(k))
            for m, z in zip(models, latents, strict=True)
        ]
        wanted = 2.5 * torch.stack(rewards).std(0, correction=0).mean()
        torch.testing.assert_close(learner.ends.limit[k].double(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("k", range(2))
def test_a_task_learns_the_same_alone_and_in_a_stack(k):
    stack, alone = make_learner(q=Q), make_learner(SUITE.tasks[k : k + 1], q=Q)
    for step in range(2):
        for learner in (stack, alone):
            learner.set_progress(step)
            learner.iteration(make_inputs(learner, step))
    for whole, single in ((stack.actors, alone.actors), (stack.critics, alone.critics)):
        for a, b in zip(whole.parameters(), single.parameters(), strict=True):
            torch.testing.assert_close(a.view(2, -1)[k], b.flatten(), rtol=2e-4, atol=2e-5)


def test_resuming_is_bit_exact(tmp_path):
    whole, half, resumed = (make_learner() for _ in range(3))
    for learner in (whole, half):
        learner.iteration(make_inputs(learner, 0))
    save_checkpoint(tmp_path / "half", "extraction", half.tensors(), {})
    resumed.ends.set_limit(torch.zeros(2, 1))  # everything must come from the checkpoint
    resumed.load(load_checkpoint(tmp_path / "half", "extraction"))
    for learner in (whole, resumed):
        learner.iteration(make_inputs(learner, 1))
    assert_same_state(whole, resumed)
