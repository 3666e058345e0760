from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from autocast import watch_backward
from torch import Tensor, nn
from torch.func import functional_call

from configs import changed
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.extraction import imagination
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.imagination import Imagined, ImaginedRollout
from pwm.extraction.inputs import Demonstrations, Inputs, Noise, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.math import symexp
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint
from pwm.runtime.kernels import mish

SUITE = Suite(
    "three",
    (
        Task("first", "dmcontrol", 3, 1, 20),
        Task("second", "metaworld", 5, 2, 20),
        Task("third", "dmcontrol", 4, 2, 20),
    ),
)
MODEL = ModelSize(
    encoder_dim=12, mlp_dim=12, latent_dim=16, task_dim=4, num_bins=11, vmin=-3, vmax=3
)
CONFIG = ActorCriticConfig(
    iterations=20,
    batch_size=6,
    horizon=4,
    discount=0.9,
    networks=ActorCriticSize(actor=[6, 5], critic=[5], critics=2),
    critic=CriticConfig(iterations=2, batches=3),
    detach_actor_input=False,
)


def make_model(seed: int = 0, episodic: bool = False, **sizes) -> WorldModel:
    torch.manual_seed(seed)
    model = WorldModel(dataclasses.replace(MODEL, **sizes), SUITE, episodic=episodic)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def make_learner(
    tasks=SUITE.tasks, seed: int = 0, model=None, models=(), **changes
) -> ActorCriticLearner:
    config = changed(CONFIG, **changes)
    learner = ActorCriticLearner(model or make_model(), tasks, config, seed, ensemble=models)
    with torch.no_grad():  # fresh networks are so near zero that little can be seen
        for k, task in enumerate(learner.tasks):
            torch.manual_seed(SUITE.id(task.name) + 100)
            for net in (learner.actors, learner.critics):
                for parameter in net.parameters():
                    own = parameter.view(len(learner.tasks), -1)[k]
                    own.add_(0.3 * torch.randn_like(own))
    return learner


def make_starts(pool: int = 50) -> Tensor:
    """(3, pool, latent): each task's own latents."""
    model = make_model()
    obs = torch.randn(3, pool, 5, generator=torch.Generator().manual_seed(5))
    return model.encode(obs, torch.arange(3).unsqueeze(1))


def iterate(learner: ActorCriticLearner, pools: Tensor, first: int, end: int) -> list[dict]:
    metrics = []
    for step in range(first, end):
        learner.set_progress(step)
        rows = learner.sample(pools.shape[1])
        start = torch.stack([pool[r] for pool, r in zip(pools, rows, strict=True)])
        metrics.append(learner.iteration(Inputs(start, learner.noise())))
    return metrics


def objective(
    learner: ActorCriticLearner, start: Tensor, noise: Tensor, **more
) -> tuple[Tensor, ImaginedRollout, dict[str, Tensor]]:
    """The actors' objective with given noise on the actions, (H, K, B, action_dim)."""
    return learner.actor_objective(Inputs(start, Noise(noise, torch.empty(0)), **more))


# --- the gradient of the actor loss through the world model --------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_actors_get_the_same_gradient_in_two_parts(detach, shown):
    """That of the actions and then of the weights is that of the whole loss."""
    learner = make_learner(model=make_model().double(), detach_actor_input=detach)
    learner.actors.double()
    learner.critics.double()
    learner.bc_weight = torch.tensor(0.7, dtype=torch.float64)
    start = make_starts(6).double()
    noise = learner.noise()
    noise = noise._replace(action=noise.action.double())
    demonstrations = Demonstrations(start, torch.rand(3, 6, 2).double()) if shown else None
    inputs = Inputs(start, noise, demonstrations)
    grads, _, metrics = learner._actor_gradients(inputs)
    learner.return_moments.zero_()
    loss, _, whole_metrics = learner.actor_objective(inputs)
    whole = torch.autograd.grad(loss.sum(), list(learner.actors.parameters()))
    for ours, theirs in zip(grads, whole, strict=True):
        assert theirs.abs().max() > 1e-6
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(metrics, whole_metrics)


class Problem:
    """A learner in float64 with fixed starts and noise, and its loss as a function of the actor."""

    def __init__(self, episodic: bool = False, **changes) -> None:
        model = make_model(episodic=episodic).double()
        self.learner = make_learner(SUITE.tasks[:2], model=model, **changes)
        self.learner.actors.double()
        self.learner.critics.double()
        config = self.config = self.learner.config
        generator = torch.Generator().manual_seed(3)
        shape = (config.horizon, 2, config.batch_size, 2)
        self.noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.start = make_starts(config.batch_size)[:2].double()
        self.parameters = list(self.learner.actors.parameters())

    def analytic(self) -> Tensor:
        loss, imagined, metrics = objective(self.learner, self.start, self.noise)
        self.scale = metrics["return_scale"]
        self.latents = imagined.latents.detach()
        gradients = torch.autograd.grad(loss.sum(), self.parameters)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def loss(self, weights: Tensor, actor_inputs: Tensor | None) -> Tensor:
        """Minus the normalized return, step by step; the actor reads given latents or its own."""
        config, model, task = self.config, self.learner.model, torch.tensor([[0], [1]])
        actors, names = self.learner.actors, dict(self.learner.actors.named_parameters())
        parts = weights.split([parameter.numel() for parameter in names.values()])
        own = {n: part.view_as(names[n]) for n, part in zip(names, parts, strict=True)}
        z, total = self.start, torch.zeros(2, config.batch_size, dtype=torch.float64)
        alive = torch.ones_like(total)
        for t in range(config.horizon):
            features = z if actor_inputs is None else actor_inputs[t]
            action = functional_call(actors, own, (features, self.noise[t]))
            reward = model.symlog_reward(z, action, task)
            total = total + config.discount**t * alive * (
                symexp(reward) if config.reward_units == "real" else reward
            )
            z = model.next(z, action, task)
            if model.episodic:
                alive = alive * model.continuation(z, task)
        values = self.learner.critics(z)
        last = torch.minimum(values[:, 0], values[:, 1])
        total = total + config.discount**config.horizon * alive * last
        return (-total.mean(1) / self.scale).sum()

    @torch.no_grad()
    def numeric(self, actor_inputs: Tensor | None, step: float = 1e-6) -> Tensor:
        """Central differences in every single parameter."""
        weights = nn.utils.parameters_to_vector(self.parameters)
        steps = step * torch.eye(len(weights), dtype=torch.float64)
        losses = torch.vmap(lambda at: self.loss(at, actor_inputs))
        with pytest.MonkeyPatch.context() as patch:  # vmap does not take the library's own Mish
            patch.setattr(mish._RationalMish, "apply", nn.functional.mish)
            return (losses(weights + steps) - losses(weights - steps)) / (2 * step)


@pytest.mark.parametrize(
    ("episodic", "reward_units"), [(False, "symlog"), (False, "real"), (True, "symlog")]
)
def test_actor_gradient_is_the_derivative_of_the_imagined_return(episodic, reward_units):
    problem = Problem(episodic, reward_units=reward_units, horizon=2 if episodic else 4)
    analytic = problem.analytic()
    numeric = problem.numeric(None)
    assert analytic.norm() > 1e-2
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-7)


def test_with_detached_actor_input_the_gradient_is_that_of_the_surrogate():
    """The surrogate's actor reads recorded latents, constants; its dynamics are differentiated."""
    problem = Problem(detach_actor_input=True)
    analytic = problem.analytic()
    surrogate = problem.numeric(problem.latents)
    torch.testing.assert_close(analytic, surrogate, rtol=1e-5, atol=1e-7)
    full = problem.numeric(None)
    assert (analytic - full).norm() > 0.01 * full.norm()


def test_the_gradient_passes_through_more_than_one_step():
    """The last step's noise changes the first action's gradient only by way of the dynamics."""
    problem = Problem()
    action_noise = problem.noise.clone().requires_grad_(True)
    imagined = problem.learner.imagine(problem.start, action_noise)
    (gradient,) = torch.autograd.grad(imagined.rewards[-1].sum(), action_noise)
    assert all(gradient[t].abs().max() > 0 for t in range(problem.config.horizon))


def test_bfloat16_is_of_the_forward_pass_alone():
    learner = make_learner(bc={"weight": 1.0, "warmup_steps": 1})
    learner.accelerator = Accelerator(torch.device("cpu"), bfloat16=True)
    start = make_starts(learner.config.batch_size)
    shown = Demonstrations(start, torch.zeros(3, learner.config.batch_size, 2))
    seen = watch_backward(learner.actors, learner.critics)
    learner.bc_update(shown)
    learner.iteration(Inputs(start, learner.noise(), shown))
    actors, critics = (len(list(net.parameters())) for net in (learner.actors, learner.critics))
    steps = learner.config.critic.iterations * learner.config.critic.batches
    assert len(seen) == 2 * actors - 1 + steps * critics  # cloning does not reach log_std
    assert not any(seen)


# --- tasks do not touch each other ---------------------------------------------------------------


def assert_task_equal(stack: ActorCriticLearner, k: int, alone: ActorCriticLearner) -> None:
    for ours, theirs in (
        (stack.actors, alone.actors),
        (stack.critics, alone.critics),
    ):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            own = a.view(len(stack.tasks), -1)[k]
            torch.testing.assert_close(own, b.flatten(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("k", range(3))
def test_a_task_learns_the_same_alone_and_in_a_stack(k):
    pools = make_starts()
    stack, alone = make_learner(), make_learner(SUITE.tasks[k : k + 1])
    before = [p.clone() for p in alone.actors.parameters()]
    together = iterate(stack, pools, 0, 5)
    single = iterate(alone, pools[k : k + 1], 0, 5)
    assert_task_equal(stack, k, alone)
    moved = zip(before, alone.actors.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in moved) > 1e-3
    for name in ("imagined_return", "return_scale", "critic_loss", "value"):
        torch.testing.assert_close(together[-1][name][k], single[-1][name][0], rtol=1e-3, atol=1e-4)


def test_fresh_networks_and_random_numbers_are_those_of_the_task_alone():
    model = make_model()
    stack = ActorCriticLearner(model, SUITE.tasks, CONFIG, seed=4)
    for k, task in enumerate(SUITE):
        alone = ActorCriticLearner(model, [task], CONFIG, seed=4)
        assert_task_equal(stack, k, alone)
    sampled, noise = stack.sample(1000), stack.noise()
    for k, task in enumerate(SUITE):
        alone = ActorCriticLearner(model, [task], CONFIG, seed=4)
        assert torch.equal(alone.sample(1000)[0], sampled[k])
        own = alone.noise()
        assert torch.equal(own.action[:, 0], noise.action[:, k])
        assert torch.equal(own.order, noise.order)


def test_seeds_and_tasks_have_different_streams():
    model = make_model()
    one = ActorCriticLearner(model, SUITE.tasks, CONFIG, seed=4)
    other = ActorCriticLearner(model, SUITE.tasks, CONFIG, seed=5)
    assert not torch.equal(one.sample(1000), other.sample(1000))
    noise = one.noise().action
    assert not torch.equal(noise[:, 0], noise[:, 1])
    weight = one.actors.mean[0].weight
    assert not torch.equal(weight[0], weight[1])
    assert not torch.equal(weight, other.actors.mean[0].weight)


def poison(model: WorldModel, task: int, value: float) -> WorldModel:
    """A world model that is broken for one task alone."""
    model.task_emb.weight[task] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_task_with_non_finite_gradients_does_not_touch_the_others(value):
    pools = make_starts()
    healthy = make_learner()
    poisoned = make_learner(model=poison(make_model(), 1, value))
    before = [p.clone() for p in poisoned.actors.parameters()]
    iterate(healthy, pools, 0, 4)
    metrics = iterate(poisoned, pools, 0, 4)
    assert not metrics[-1]["imagined_return"][1].isfinite()
    for ours, theirs in zip(poisoned.actors.parameters(), healthy.actors.parameters(), strict=True):
        assert ours.isfinite().all()
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
    for net in (poisoned.actors, poisoned.critics):
        assert all(p.isfinite().all() for p in net.parameters())
    for ours, old in zip(poisoned.actors.parameters(), before, strict=True):
        assert torch.equal(ours[1], old[1])


# --- one iteration, piece by piece ---------------------------------------------------------------


def grad_norms(module: nn.Module, tasks: int) -> Tensor:
    parts = [p.grad.reshape(tasks, -1) for p in module.parameters()]
    return torch.cat(parts, 1).norm(dim=1)


def one_iteration(learner: ActorCriticLearner) -> tuple[dict[str, Tensor], Tensor, Noise]:
    learner.set_progress(0)
    start = make_starts(learner.config.batch_size)[: len(learner.tasks)]
    noise = learner.noise()
    return learner.iteration(Inputs(start, noise)), start, noise


def test_gradients_are_clipped_task_by_task():
    free = make_learner(optim={"actor_grad_norm": 1e9, "critic_grad_norm": 1e9})
    metrics, *_ = one_iteration(free)
    norms = metrics["actor_grad_norm"]
    torch.testing.assert_close(norms, grad_norms(free.actors, 3))
    limit = norms.sort().values[:2].mean().item()
    clipped = make_learner(optim={"actor_grad_norm": limit, "critic_grad_norm": 1e-4})
    metrics, *_ = one_iteration(clipped)
    torch.testing.assert_close(metrics["actor_grad_norm"], norms)
    torch.testing.assert_close(grad_norms(clipped.actors, 3), norms.clamp(max=limit))
    assert norms.min() < limit < norms.max()
    torch.testing.assert_close(grad_norms(clipped.critics, 3), torch.full((3,), 1e-4))


@pytest.mark.parametrize("scale_values", [False, True])
def test_critics_learn_td_lambda_targets_of_the_least_member(scale_values):
    """The first critic loss and mean target, sample by sample from the definition."""
    learner = make_learner(critic={"scale_values": scale_values, "iterations": 1, "batches": 1})
    config, gamma, lam = learner.config, learner.config.discount, learner.config.lam
    start = make_starts(config.batch_size)
    noise = learner.noise()
    with torch.no_grad():
        imagined = learner.imagine(start, noise.action)
        values = learner.critics(imagined.latents.flatten(0, 0).transpose(0, 1).reshape(3, -1, 16))
    values = values.view(3, 2, config.horizon + 1, config.batch_size).double()
    targets = torch.zeros(3, config.horizon, config.batch_size, dtype=torch.float64)
    for k in range(3):
        for b in range(config.batch_size):
            running = values[k, :, -1, b].min()
            for t in reversed(range(config.horizon)):
                following = values[k, :, t + 1, b].min()
                mixed = (1 - lam) * following + lam * running
                running = targets[k, t, b] = imagined.rewards[t, k, b].double() + gamma * mixed
    errors = values[:, :, :-1] - targets.unsqueeze(1)
    scale = 10.0 if scale_values else 1.0
    assert learner.critics.scale == pytest.approx(scale)
    learner.set_progress(0)
    metrics = learner.iteration(Inputs(start, noise))
    wanted = (errors / scale).square().mean((1, 2, 3))
    torch.testing.assert_close(metrics["critic_loss"].double(), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        metrics["value"].double(), targets.mean((1, 2)), rtol=1e-4, atol=1e-5
    )


def test_critics_approach_their_targets():
    learner = make_learner(
        optim={"actor_lr": 0.0, "critic_lr": 1e-2, "lr_final": 1e-2}, discount=0.5
    )
    start, noise = make_starts(CONFIG.batch_size), learner.noise()
    losses = []
    for _ in range(25):
        learner.set_progress(0)
        losses.append(learner.iteration(Inputs(start, noise))["critic_loss"])
    assert (losses[-1] < 0.3 * losses[0]).all()


def test_orders_are_permutations_of_all_states():
    order = make_learner().noise().order
    assert order.shape == (2, 24)
    for row in order:
        assert row.sort().values.tolist() == list(range(24))
    assert not torch.equal(order[0], order[1])


def test_returns_are_normalized_by_their_running_deviation():
    learner = make_learner(return_decay=1.0)
    starts, returns = make_starts(CONFIG.batch_size), []
    for _ in range(3):
        noise = learner.noise().action
        imagined = learner.imagine(starts, noise)
        discounts = 0.9 ** torch.arange(4).view(-1, 1, 1)
        bootstrap = learner.critics(imagined.latents[-1]).amin(1)
        returns.append((imagined.rewards * discounts).sum(0) + 0.9**4 * bootstrap)
        loss, _, metrics = objective(learner, starts, noise)
        seen = torch.cat(returns, 1)
        scale = seen.std(1, correction=0).clamp(min=1e-2)
        torch.testing.assert_close(metrics["return_scale"], scale)
        torch.testing.assert_close(metrics["imagined_return"], returns[-1].mean(1))
        torch.testing.assert_close(loss, -returns[-1].mean(1) / scale)


def test_cloning_adds_the_mean_squared_distance_of_used_dimensions():
    learner = make_learner(bc={"weight": 0.7, "weight_final": 0.7})
    learner.set_progress(0)
    starts, noise = make_starts(CONFIG.batch_size), learner.noise().action
    shape = (3, CONFIG.batch_size, 2)
    demonstrated = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    demonstrated[0, :, 1] = 0  # the first task has one action dimension
    demonstrations = Demonstrations(starts, demonstrated)
    plain, *_ = objective(make_learner(), starts, noise)
    cloning, _, metrics = objective(learner, starts, noise, demonstrations=demonstrations)
    mode = learner.actors(starts)
    wanted = torch.stack(
        [
            (mode[k, :, :used] - demonstrated[k, :, :used]).square().mean()
            for k, used in ((0, 1), (1, 2), (2, 2))
        ]
    )
    torch.testing.assert_close(metrics["bc_loss"], wanted)
    torch.testing.assert_close(cloning - plain, 0.7 * wanted)


# --- an ensemble of world models, and recorded transitions ---------------------------------------


def make_ensemble() -> list[WorldModel]:
    return [make_model(1), make_model(2, latent_dim=8, mlp_dim=10)]


def ensemble_starts(count: int = CONFIG.batch_size) -> tuple[Tensor, ...]:
    """The states of make_starts in the other models."""
    obs = torch.randn(3, count, 5, generator=torch.Generator().manual_seed(5))
    return tuple(model.encode(obs, torch.arange(3).unsqueeze(1)) for model in make_ensemble())


def test_cloning_alone_approaches_what_was_shown_and_leaves_all_else():
    learner = make_learner(bc={"warmup_steps": 150, "lr": 2e-2}, optim={"lr_final": 1e-3})
    before = {name: t.clone() for name, t in learner.critics.state_dict().items()}
    log_std, moments = learner.actors.log_std.detach().clone(), learner.return_moments.clone()
    starts = make_starts(CONFIG.batch_size)
    mask = learner.actors.action_mask.unsqueeze(1)
    demonstrated = Demonstrations(starts, 0.8 * torch.sin(9 * starts[..., : mask.shape[-1]]) * mask)
    errors = []
    for step in range(150):
        learner.set_progress(step)
        metrics = learner.bc_update(demonstrated)
        errors.append(metrics["bc_loss"])
    assert (errors[-1] < 0.1 * errors[0]).all()
    assert metrics["actor_grad_norm"].shape == (3,)
    assert torch.equal(learner.actors.log_std, log_std)
    assert torch.equal(learner.return_moments, moments)
    for name, tensor in learner.critics.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("reward_units", ["symlog", "real"])
def test_an_ensemble_s_reward_is_its_mean_less_its_disagreement(reward_units):
    """Rewards and actor gradients against every model's rollout of its own, step by step."""
    changes = {"reward_units": reward_units, "ensemble": {"uncertainty_coef": 1.5}}
    learner = make_learner(models=make_ensemble(), **changes)
    start, starts_there = make_starts(CONFIG.batch_size), ensemble_starts()
    noise = learner.noise().action
    ours = learner.imagine(start, noise, starts_there).rewards
    tasks, worlds = torch.arange(3).unsqueeze(1), [make_model(), *make_ensemble()]
    states, plain = [start, *starts_there], []
    for step_noise in noise:
        action = learner.actors(states[0], step_noise)
        rewards = [m.symlog_reward(z, action, tasks) for m, z in zip(worlds, states, strict=True)]
        if reward_units == "real":
            rewards = [symexp(reward) for reward in rewards]
        states = [m.next(z, action, tasks) for m, z in zip(worlds, states, strict=True)]
        mean = (rewards[0] + rewards[1] + rewards[2]) / 3
        variance = sum((reward - mean) ** 2 for reward in rewards) / 3
        plain.append(mean - 1.5 * variance.sqrt())
    torch.testing.assert_close(ours, torch.stack(plain), rtol=1e-4, atol=1e-5)
    parameters = list(learner.actors.parameters())
    gradients = torch.autograd.grad(ours.sum(), parameters)
    wanted = torch.autograd.grad(torch.stack(plain).sum(), parameters)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_an_ensemble_s_continuation_is_its_mean():
    models = [make_model(seed, episodic=True) for seed in (0, 1)]
    learner = make_learner(model=models[0], models=models[1:])
    task = learner.task_ids.unsqueeze(1)
    latents = [make_starts(6), make_starts(6).flip(1)]
    noise = learner.noise().action
    found = learner.imagine(latents[0], noise, latents[1:]).continuation
    assert found is not None
    for step in range(len(noise)):
        action = learner.actors(latents[0], noise[step])
        latents = [m.next(z, action, task) for m, z in zip(models, latents, strict=True)]
        each = [m.continuation(z, task) for m, z in zip(models, latents, strict=True)]
        torch.testing.assert_close(found[step], (each[0] + each[1]) / 2)
        assert (each[0] - each[1]).abs().max() > 1e-3


def test_models_that_agree_are_one_model():
    learner = make_learner(models=[make_model()], ensemble={"uncertainty_coef": 5.0})
    starts, noise = make_starts(CONFIG.batch_size), learner.noise().action
    loss, imagined, _ = objective(learner, starts, noise, ensemble_start_latents=(starts,))
    plain, alone, _ = objective(make_learner(), starts, noise)
    torch.testing.assert_close(imagined.rewards, alone.rewards, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss, plain, rtol=1e-3, atol=1e-3)
    gradients = torch.autograd.grad(loss.sum(), list(learner.actors.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def make_transitions() -> Transitions:
    draw = torch.Generator().manual_seed(8)
    latents = make_starts(2 * CONFIG.batch_size)
    facts = torch.rand(2, 3, CONFIG.batch_size, generator=draw)
    action = torch.zeros(3, CONFIG.batch_size, 2)
    return Transitions(latents[:, ::2], action, facts[0], facts[1], latents[:, 1::2])


def test_critics_learn_from_recorded_transitions_in_proportion():
    """The first critic loss is a mix of the imagined one and one-step errors by definition."""
    start, real = make_starts(CONFIG.batch_size), make_transitions()
    once = {"iterations": 1, "batches": 1}
    plain, mixed = make_learner(critic=once), make_learner(critic={"real_ratio": 0.3, **once})
    noise, _ = plain.noise(), mixed.noise()
    plain.set_progress(0), mixed.set_progress(0)
    with torch.no_grad():
        following = mixed.critics(real.next_latent).amin(1)
        errors = mixed.critics(real.latent) - (real.reward + real.discount * following).unsqueeze(1)
    imagined = plain.iteration(Inputs(start, noise))["critic_loss"]
    ours = mixed.iteration(Inputs(start, noise, transitions=real))["critic_loss"]
    torch.testing.assert_close(ours, 0.7 * imagined + 0.3 * errors.square().mean((1, 2)))


@pytest.mark.parametrize("k", range(3))
def test_with_all_remedies_a_task_learns_the_same_alone_and_in_a_stack(k):
    given = {"critic": {"real_ratio": 0.5}, "bc": {"weight": 0.3}, "models": make_ensemble()}
    stack, alone = make_learner(**given), make_learner(SUITE.tasks[k : k + 1], **given)
    start, starts_there, real = (
        make_starts(CONFIG.batch_size),
        ensemble_starts(),
        make_transitions(),
    )
    demonstrated = Demonstrations(
        real.latent, 0.5 * stack.actors.action_mask.unsqueeze(1).expand(-1, 6, -1)
    )
    own = slice(k, k + 1)
    for step in range(4):
        stack.set_progress(step), alone.set_progress(step)
        stack.iteration(Inputs(start, stack.noise(), demonstrated, real, starts_there))
        alone.iteration(
            Inputs(
                start[own],
                alone.noise(),
                Demonstrations(*(part[own] for part in demonstrated)),
                Transitions(*(part[own] for part in real)),
                tuple(part[own] for part in starts_there),
            )
        )
    assert_task_equal(stack, k, alone)


def test_the_frozen_model_gets_no_gradient():
    learner = make_learner()
    one_iteration(learner)
    assert all(p.grad is None for p in learner.model.parameters())


def test_schedules():
    learner = make_learner(
        iterations=10, optim={"actor_lr": 1e-3, "critic_lr": 2e-3, "lr_final": 1e-4},
        bc={"weight": 1.0, "weight_final": 0.5},
    )  # fmt: skip
    weights = []
    for iteration in (0, 10, 5):
        learner.set_progress(iteration)
        weights.append(float(learner.bc_weight))
    assert weights == pytest.approx([1.0, 0.5, 0.75])
    assert float(learner.actor_optimizer.param_groups[0]["lr"]) == pytest.approx(5.5e-4)
    assert float(learner.critic_optimizer.param_groups[0]["lr"]) == pytest.approx(1.05e-3)
    assert learner.actor_optimizer.param_groups[0]["betas"] == (0.7, 0.95)


def test_cloning_alone_has_a_schedule_of_its_own_before_that_of_the_iterations():
    learner = make_learner(
        iterations=10, optim={"actor_lr": 1e-3, "lr_final": 1e-4},
        bc={"warmup_steps": 4, "lr": 9e-3, "weight": 1.0, "weight_final": 0.5},
    )  # fmt: skip
    rates, weights = [], []
    for step in (0, 2, 4, 9, 14):
        learner.set_progress(step)
        rates.append(float(learner.actor_optimizer.param_groups[0]["lr"]))
        weights.append(float(learner.bc_weight))
    assert rates == pytest.approx([9e-3, 4.55e-3, 1e-3, 5.5e-4, 1e-4])
    assert weights[2:] == pytest.approx([1.0, 0.75, 0.5])
    assert learner.config.steps == 14


def test_metrics_are_one_a_task_without_gradient():
    metrics, *_ = one_iteration(make_learner())
    assert {"imagined_return", "return_scale", "actor_grad_norm", "critic_loss", "value",
            "policy_std"} <= set(metrics)  # fmt: skip
    for value in metrics.values():
        assert value.shape == (3,)
        assert not value.requires_grad


def test_resuming_is_bit_exact(tmp_path):
    pools = make_starts()
    whole = make_learner()
    iterate(whole, pools, 0, 6)
    half = make_learner()
    iterate(half, pools, 0, 3)
    save_checkpoint(tmp_path / "half", "extraction", half.tensors(), {})
    resumed = make_learner(seed=9)  # everything must come from the checkpoint
    resumed.load(load_checkpoint(tmp_path / "half", "extraction"))
    iterate(resumed, pools, 3, 6)
    ours, theirs = whole.tensors(), resumed.tensors()
    for group, items in ours.items():
        for name, tensor in items.items():
            assert torch.equal(tensor, theirs[group][name]), f"{group}/{name}"


def test_one_tasks_critic_can_be_taken_out():
    learner = make_learner()
    latents = make_starts(7)
    values = learner.critics(latents)
    for k in range(3):
        critic = learner.critic(k)
        torch.testing.assert_close(critic.values(latents[k : k + 1])[0], values[k])
        assert (critic.reward_units, critic.discount) == ("symlog", 0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"reward_units": "dollars"},
        {"iterations": 0},
        {"batch_size": 0},
        {"horizon": 0},
        {"critic": {"batches": 5}},
        {"critic": {"batches": 0}},
        {"critic": {"iterations": 0}},
        {"discount": 1.0, "critic": {"scale_values": True}},
        {"discount": 1.5},
        {"discount": -0.1},
        {"lam": 1.1},
        {"optim": {"actor_lr": -1e-3}},
        {"optim": {"critic_lr": float("nan")}},
        {"optim": {"betas": [0.9]}},
        {"optim": {"betas": [0.9, 1.0]}},
        {"optim": {"actor_grad_norm": 0.0}},
        {"bc": {"top_fraction": 0.0}},
        {"bc": {"weight": -1.0}},
        {"return_decay": 0.0},
        {"return_decay": 1.1},
        {"networks": ActorCriticSize(actor=[8, 0], critic=[8])},
        {"networks": ActorCriticSize(actor=[8], critic=[8], critics=0)},
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(changes):
    with pytest.raises(PwmError) as caught:
        changed(CONFIG, **changes).validate()
    message = str(caught.value)
    assert "\n" not in message
    (named, value) = next(iter(changes.items()))
    assert (
        all(name in message for name in (named, *value))
        if isinstance(value, dict)
        else (any(name in message for name in changes) or "networks" in changes)
    )


def test_the_default_settings_are_valid():
    ActorCriticConfig().validate()


# --- it learns -----------------------------------------------------------------------------------


class PointMass(nn.Module):
    """A differentiable toy in place of a world model: move to each task's own goal."""

    episodic = False

    def __init__(self) -> None:
        super().__init__()
        self.suite = SUITE
        self.size = SimpleNamespace(latent_dim=2)
        self.bins = torch.zeros(1)
        self.goals = torch.tensor([[1.0, 0.0], [-0.5, 0.5], [0.0, -1.0]])

    def step(self, z: Tensor, action: Tensor) -> Imagined:
        following = z + 0.3 * action
        return Imagined(following, following - self.goals.unsqueeze(1))


def imagine_in_the_toy(monkeypatch) -> None:
    toy = {
        "fold": lambda model, task_ids: None,
        "imagine_step": lambda model, first, z, action: model.step(z, action),
        "imagined_reward": lambda model, offset: -offset.square().sum(-1),
    }
    for name, function in toy.items():
        monkeypatch.setattr(imagination, name, function)


@pytest.mark.slow
@pytest.mark.parametrize("detach", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_learns_to_reach_goals_in_a_toy_model(detach, monkeypatch):
    imagine_in_the_toy(monkeypatch)
    learner = ActorCriticLearner(
        PointMass(),
        SUITE.tasks,
        changed(
            CONFIG, iterations=40, batch_size=16, horizon=8, detach_actor_input=detach,
            optim={"actor_lr": 1e-2, "critic_lr": 1e-2}, critic={"batches": 4},
        ),
        seed=0,
    )  # fmt: skip
    pools = torch.rand(3, 200, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metrics = iterate(learner, pools, 0, 40)
    z = pools.clone()
    with torch.no_grad():
        for _ in range(30):
            z = z + 0.3 * learner.actors(z)
    # The first task moves along one axis only.
    error = (z - learner.model.goals.unsqueeze(1))[..., :1].abs().mean((1, 2))
    assert (error < 0.15).all(), error
    early = torch.stack([m["imagined_return"] for m in metrics[:5]]).mean(0)
    late = torch.stack([m["imagined_return"] for m in metrics[-5:]]).mean(0)
    assert (late > early + 0.5).all()


def test_learns_nothing_at_learning_rate_zero():
    learner = make_learner(optim={"actor_lr": 0.0, "critic_lr": 0.0, "lr_final": 0.0})
    before = {k: v.clone() for k, v in learner.actors.state_dict().items()}
    iterate(learner, make_starts(), 0, 3)
    assert all(torch.equal(before[k], v) for k, v in learner.actors.state_dict().items())
