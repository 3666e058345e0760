"""The planner: against references in NumPy, in lockstep, with either guide, and in evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stores import LARGE, SMALL, SUITE
from torch import Tensor

import envs
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task, get_task
from pwm.evaluation import model_sizes, mppi
from pwm.evaluation.agents import act_function
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.mppi import (
    Fit,
    Plan,
    Planner,
    PlannerConfig,
    PlanNoise,
    _choose,
    fit_elites,
    shifted,
)
from pwm.evaluation.mppi_agent import MPPIAgent
from pwm.evaluation.mppi_guides import ActorAndCritic, TDMPC2Guide
from pwm.evaluation.scores import Results
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.learner import ActorCriticLearner
from pwm.interop.import_checkpoint import ImportConfig, import_checkpoint
from pwm.models.actor_critic import ActorCriticSize, Actors, load_critic
from pwm.models.math import symexp, symlog
from pwm.models.policy import Policy, load_policy
from pwm.models.world_model import KIND, ModelSize, WorldModel, load_world_model, model_meta
from pwm.runtime.checkpoint import save_checkpoint
from pwm.runtime.seeding import stream_seed

CPU = torch.device("cpu")
FAST = PlannerConfig(samples=24, policy_trajectories=4, elites=6, iterations=3)
SIZE = ModelSize(
    encoder_dim=16, mlp_dim=16, latent_dim=16, task_dim=4, num_q=3, num_bins=21, vmin=-3, vmax=3
)
NETWORKS = ActorCriticSize(actor=[8], critic=[8], critics=2)


class Points:
    """A world model of points that actions push; the reward is minus ten distances to a goal.

    Latents are positions (2,), and task i's goal is GOALS[i]; task 0 has one action dimension.
    """

    SUITE = Suite(
        "points",
        (
            Task("line", "dmcontrol", 2, 1, 20),
            Task("plane", "dmcontrol", 2, 2, 20),
            Task("field", "dmcontrol", 2, 2, 20),
        ),
    )

    GOALS = torch.tensor([[0.4, 0.0], [0.6, -0.7], [-0.9, 0.2]])

    episodic = False

    def __init__(self) -> None:
        self.action_mask = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        self.most_rows = 0

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        return obs

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        self.most_rows = max(self.most_rows, z.shape[0] * z.shape[1])
        return z + action

    def symlog_reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        return -10 * (z + action - self.GOALS[task]).norm(dim=-1)


class Blind:
    """Proposes noise, and values where a plan ends by minus twenty distances to the goal."""

    reward_units = "symlog"
    discount = torch.tensor([0.9, 0.8, 0.95])

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        return torch.tanh(noise)

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        return -20 * (z - Points.GOALS[task]).norm(dim=-1)


def streams(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(count)]


def starts(count: int, actions: int = 2, horizon: int = 3) -> Tensor:
    return torch.zeros(count, horizon, actions)


def make_model(q_and_prior: bool = True, suite: Suite = SUITE) -> WorldModel:
    """A world model whose every output depends on its input."""
    torch.manual_seed(0)
    model = WorldModel(SIZE, suite, q_and_prior=q_and_prior)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def save_policies(
    model: WorldModel, out: Path, tasks: Sequence[Task] = (SMALL, LARGE), **settings: Any
) -> ActorCriticLearner:
    config = ActorCriticConfig(
        batch_size=8,
        horizon=4,
        networks=NETWORKS,
        critic=CriticConfig(scale_values=True),
        **settings,
    )
    learner = ActorCriticLearner(model, tasks, config, seed=3)
    for parameter in [*learner.actors.mean.parameters(), *learner.critics.parameters()]:
        parameter.data += 0.3 * torch.randn_like(parameter)
    for index, task in enumerate(tasks):
        policy = Policy.from_latent_actor(model, task, learner.actors, index, NETWORKS)
        policy.save(out / task.name, {}, learner.critic(index))
    return learner


def load_guide(model: WorldModel, directory: Path) -> ActorAndCritic:
    names = sorted(path.name for path in directory.iterdir())
    policies = {name: load_policy(directory / name) for name in names}
    return ActorAndCritic(model, policies, {name: load_critic(directory / name) for name in names})


# One iteration against NumPy


def test_elites_are_weighted_as_in_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    actions, value = rng.uniform(-1, 1, (4, 3, 20, 2)), rng.normal(size=(4, 20))
    config = replace(FAST, elites=7, temperature=0.8, min_std=0.3, max_std=0.6)
    fit = fit_elites(torch.from_numpy(actions), torch.from_numpy(value), config)
    for n in range(4):
        order = np.argsort(-value[n])[:7]
        weight = np.exp(0.8 * (value[n, order] - value[n].max()))
        weight /= weight.sum()
        mean = np.einsum("e,hea->ha", weight, actions[n][:, order])
        spread = np.einsum("e,hea->ha", weight, (actions[n][:, order] - mean[:, None]) ** 2)
        np.testing.assert_allclose(fit.weight[n], weight, atol=1e-12)
        np.testing.assert_allclose(fit.mean[n], mean, atol=1e-12)
        np.testing.assert_allclose(fit.std[n], np.clip(np.sqrt(spread), 0.3, 0.6), atol=1e-12)
    assert (fit.std == 0.3).any() or (fit.std == 0.6).any()


def test_a_decision_of_one_iteration_equals_a_plain_loop() -> None:
    config = replace(FAST, iterations=1, temperature=0.3)
    obs, task = torch.tensor([[0.1, -0.2], [0.5, 0.3], [-1.0, 0.0]]), torch.tensor([0, 1, 2])
    start = 0.3 * torch.randn(3, 3, 2, generator=streams(1)[0])
    plan = Planner(Points(), Blind(), config).plan(obs, task, start, streams(3))
    noise = PlanNoise.draw(streams(3), config, 2)
    for n in range(3):
        mask, goal = Points().action_mask[n].numpy(), Points.GOALS[n].numpy()
        gamma = float(Blind.discount[n])
        candidates, values = [], []
        for s in range(config.samples):
            if s < config.policy_trajectories:
                actions = np.tanh(noise.policy[n, :, s].numpy())
            else:
                drawn = noise.samples[n, 0, :, s - config.policy_trajectories].numpy()
                actions = np.clip(start[n].numpy() + config.max_std * drawn, -1, 1)
            actions = actions * mask
            z, total = obs[n].numpy(), np.float64(0.0)
            for t, action in enumerate(actions):
                total -= gamma**t * 10 * np.linalg.norm(z + action - goal)
                z = z + action
            candidates.append(actions)
            values.append(total - gamma**3 * 20 * np.linalg.norm(z - goal))
        order = np.argsort(values)[::-1][: config.elites]
        best = np.array(values)[order]
        weight = np.exp(0.3 * (best - best[0]))
        weight /= weight.sum()
        elites = np.array(candidates)[order]
        np.testing.assert_allclose(plan.mean[n], np.tensordot(weight, elites, 1), atol=1e-5)
        chosen = int((weight.cumsum() <= float(noise.choice[n])).sum())
        np.testing.assert_allclose(plan.action[n], elites[chosen, 0], atol=1e-6)


def test_elites_are_chosen_as_often_as_they_weigh() -> None:
    elites = torch.arange(3.0).view(1, 1, 3, 1).expand(3000, 1, 3, 1)
    weight = torch.tensor([[0.6, 0.3, 0.1]]).expand(3000, 3)
    uniform = torch.rand(3000, generator=streams(1)[0])
    uniform[0] = 1.0  # beyond a sum of weights that rounding left below one
    chosen = _choose(Fit(elites[:, :, 0], elites[:, :, 0], elites, weight), uniform)
    shares = torch.bincount(chosen.squeeze(1).long(), minlength=3) / 3000
    torch.testing.assert_close(shares, weight[0], atol=0.03, rtol=0)


# What it finds


def test_the_optimum_of_a_known_problem_is_found() -> None:
    task = torch.arange(120) % 3
    planner = Planner(Points(), Blind(), PlannerConfig())
    plan = planner.plan(torch.zeros(120, 2), task, starts(120), streams(120))
    best = (Points.GOALS * Points().action_mask)[task]  # one step reaches the goal
    assert (plan.action - best).abs().mean() < 0.06
    assert (plan.mean[:, 0] - best).abs().mean() < 0.04
    assert plan.mean[:, 1:].abs().mean() < 0.06  # and then it is best to stay


def test_acting_on_plans_collects_more_than_acting_at_random() -> None:
    points, planner = Points(), Planner(Points(), Blind(), FAST)
    generators = streams(1, seed=4)
    z = torch.tensor([[3.0, -2.0]])
    task, start = torch.tensor([1]), starts(1)
    planned = []
    for _ in range(8):
        plan = planner.plan(z, task, start, generators)
        planned.append(float(points.symlog_reward(z, plan.action, task)))
        z, start = z + plan.action, shifted(plan.mean)
    at_random = torch.rand(200, 8, 2, generator=generators[0]) * 2 - 1
    path = torch.tensor([3.0, -2.0]) + at_random.cumsum(1)
    returns = -10 * (path - Points.GOALS[1]).norm(dim=-1).sum(1)
    assert sum(planned) > float(returns.max())
    assert planned[-1] > 0.2 * planned[0]


def test_a_good_proposal_is_followed() -> None:
    class Needle(Points):
        def symlog_reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
            hit = (action - 0.123).abs().amax(-1) < 1e-6
            return 100.0 * hit

    class Knows(Blind):
        def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
            return torch.full_like(noise, 0.123)

    plan = Planner(Needle(), Knows(), FAST).plan(
        torch.zeros(1, 2), torch.tensor([1]), starts(1), streams(1)
    )
    torch.testing.assert_close(plan.action, torch.full((1, 2), 0.123))


def test_proposals_follow_the_policy_in_imagination() -> None:
    class Homing(Blind):
        def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
            return 0.5 * (Points.GOALS[task] - z)

    config = replace(FAST, policy_trajectories=FAST.samples, iterations=1)
    plan = Planner(Points(), Homing(), config).plan(
        torch.zeros(1, 2), torch.tensor([1]), starts(1), streams(1)
    )
    halves = torch.tensor([0.5, 0.25, 0.125]).unsqueeze(1)
    torch.testing.assert_close(plan.mean[0], halves * Points.GOALS[1])


# Lockstep


def test_together_equals_one_by_one_and_in_chunks() -> None:
    model = make_model().double()
    obs = torch.randn(7, SUITE.obs_dim, dtype=torch.float64, generator=streams(1)[0])
    task = torch.tensor([0, 1, 1, 0, 0, 1, 1])
    start = 0.1 * torch.randn(7, 3, 2, dtype=torch.float64, generator=streams(1)[0])
    planner = Planner(model, TDMPC2Guide(model), FAST)
    together = planner.plan(obs, task, start, streams(7))
    for rows in (1, 2 * FAST.samples + 1, 3 * FAST.samples):
        chunked = Planner(model, TDMPC2Guide(model), replace(FAST, max_rows=rows))
        for ours, theirs in zip(chunked.plan(obs, task, start, streams(7)), together, strict=True):
            torch.testing.assert_close(ours, theirs)
    for n in range(7):
        one = slice(n, n + 1)
        alone = planner.plan(obs[one], task[one], start[one], streams(7)[one])
        torch.testing.assert_close(alone.action, together.action[one])
        torch.testing.assert_close(alone.mean, together.mean[one])


def test_chunks_whose_results_the_next_one_overwrites(monkeypatch) -> None:
    """As those of a CUDA graph do."""
    points, config = Points(), replace(FAST, max_rows=2 * FAST.samples)
    given = torch.zeros(6, 2), torch.arange(6) % 3, starts(6)
    expected = Planner(points, Blind(), config).plan(*given, streams(6))
    planner, kept = Planner(points, Blind(), config), []

    def overwriting(*inputs: Any) -> Plan:
        plan = planner._plan(*inputs)
        kept[:] = kept or [tensor.clone() for tensor in plan]
        for own, tensor in zip(kept, plan, strict=True):
            own.copy_(tensor)
        return Plan(*kept)

    monkeypatch.setattr(planner, "_decide", overwriting)
    for ours, theirs in zip(planner.plan(*given, streams(6)), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("free", "times"), [(10**11, 4), (10**9, 1)])
def test_a_gpu_with_room_takes_four_times_as_many_rows(free, times, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    size = ModelSize(mlp_dim=1792)
    for device, rows in (("cuda", times * 16_384), ("cpu", 16_384)):
        model = SimpleNamespace(
            action_mask=SimpleNamespace(device=torch.device(device)), has_q=True, size=size
        )
        assert mppi._rows_at_once(model, PlannerConfig()) == rows


def test_on_a_cpu_planning_is_not_compiled_unless_it_is_asked_for() -> None:
    ways = {
        (device, compiled): replace(FAST, compile=compiled).acceleration(torch.device(device))
        for device in ("cpu", "cuda")
        for compiled in ("auto", "always", "never")
    }
    assert {key: how.compile for key, how in ways.items()} == {
        ("cpu", "auto"): "never",
        ("cuda", "auto"): "auto",
        **{(device, word): word for device in ("cpu", "cuda") for word in ("always", "never")},
    }


def test_outcomes_of_another_precision_are_not_taken_over() -> None:
    """Those of before there was the setting are float32's, as on a CPU they still are."""
    model = make_model()
    made = [
        planned(model, SUITE, replace(FAST, precision=precision)).identity(SMALL)
        for precision in ("auto", "float32", "bfloat16")
    ]
    assert made[0] == made[1] != made[2]
    assert "precision" not in made[0] and made[0]["planner"]["samples"] == FAST.samples
    assert not {"compile", "precision"} & made[0]["planner"].keys()


def test_in_bfloat16_values_follow_those_in_float32() -> None:
    model = make_model()
    z, actions = torch.rand(4, 16), torch.rand(4, 3, 8, 2)
    task, noise = torch.tensor([[0], [1], [1], [0]]), torch.randn(4, 8, 2)
    values = []
    for precision in ("float32", "bfloat16"):
        planner = Planner(model, TDMPC2Guide(model), replace(FAST, precision=precision))
        with planner.accelerator.arithmetic():
            values.append(planner.value(z, actions, task, noise))
    assert values[1].dtype == torch.float32
    assert 0 < (values[1] - values[0]).abs().max() < 0.05 * values[0].abs().max()


def test_eighty_tasks_of_ten_episodes_stay_within_the_rows_that_are_allowed() -> None:
    points = Points()
    planner = Planner(points, Blind(), replace(FAST, max_rows=100 * FAST.samples + 5))
    plan = planner.plan(
        torch.zeros(800, 2), torch.arange(800) % 3, starts(800), streams(800, seed=1)
    )
    assert plan.action.shape == (800, 2)
    assert points.most_rows == 100 * FAST.samples
    assert len(torch.unique(plan.action[:, 0])) > 700


def test_unused_action_dimensions_are_zero_and_never_tried() -> None:
    tried: list[Tensor] = []

    class Watched(Points):
        def symlog_reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
            tried.append(action)
            return super().symlog_reward(z, action, task)

    plan = Planner(Watched(), Blind(), FAST).plan(
        torch.zeros(2, 2), torch.tensor([0, 1]), starts(2), streams(2)
    )
    assert (plan.action[0, 1], plan.mean[0, :, 1].abs().max()) == (0, 0)
    assert plan.action[1, 1] != 0
    assert all((action[0, :, 1] == 0).all() for action in tried)
    assert all(action.abs().max() <= 1 for action in tried)


def test_the_same_streams_decide_the_same() -> None:
    planner = Planner(Points(), Blind(), FAST)
    arguments = torch.zeros(3, 2), torch.arange(3), starts(3)
    first, again, other = (planner.plan(*arguments, streams(3, seed)) for seed in (0, 0, 1))
    assert torch.equal(first.action, again.action)
    assert torch.equal(first.mean, again.mean)
    assert (first.action[1:] != other.action[1:]).all()


# Warm start and episodes


def test_the_next_decision_starts_one_step_on() -> None:
    mean = torch.arange(12.0).view(2, 3, 2)
    expected = [[[2.0, 3.0], [4.0, 5.0], [0.0, 0.0]], [[8.0, 9.0], [10.0, 11.0], [0.0, 0.0]]]
    assert shifted(mean).tolist() == expected


def planned(model: WorldModel, suite: Suite, config: PlannerConfig = FAST) -> MPPIAgent:
    return MPPIAgent(Planner(model, TDMPC2Guide(model), config), suite, CPU, {})


def test_episodes_keep_their_own_plans() -> None:
    episodes = planned(make_model(), SUITE)
    seen: list[Tensor] = []
    decide = episodes.planner.plan

    def plan(obs: Tensor, task: Tensor, start: Tensor, streams: Any) -> Any:
        seen.append(start)
        return decide(obs, task, start, streams)

    episodes.planner.plan = plan  # type: ignore[method-assign]
    obs = {task: np.ones((2, task.obs_dim), np.float32) for task in (SMALL, LARGE)}
    small, large = (episodes.begin(task, [5, 6]) for task in (SMALL, LARGE))
    actions = episodes.act([(small, obs[SMALL]), (large, obs[LARGE])])
    assert [rows.shape for rows in actions] == [(2, 1), (2, 2)]
    episodes.act([(large, obs[LARGE])])
    assert all((start == 0).all() for start in seen[:2])
    assert seen[2].shape == (2, 3, 2)
    assert (seen[2][:, :2] != 0).all()
    assert (seen[2][:, 2] == 0).all()
    again = episodes.act([(episodes.begin(LARGE, [5, 6]), obs[LARGE])])[0]
    assert (seen[3] == 0).all()
    np.testing.assert_allclose(again, actions[1], atol=1e-4)


def test_random_numbers_follow_from_task_and_seed() -> None:
    line, plane, _ = Points.SUITE
    obs = np.zeros((2, 2), np.float32)

    def first(tasks: Sequence[Task], seeds: Sequence[int]) -> np.ndarray:
        planner = Planner(Points(), Blind(), FAST)
        episodes = MPPIAgent(planner, Points.SUITE, CPU, {})
        return episodes.act([(episodes.begin(task, seeds), obs) for task in tasks])[-1]

    alone = first([plane], [7, 8])
    assert (alone[0] != alone[1]).all()
    np.testing.assert_array_equal(alone, first([line, plane], [7, 8]))
    np.testing.assert_array_equal(alone[::-1], first([plane], [8, 7]))
    assert (alone != first([plane], [9, 10])).all()
    assert stream_seed(7, "plane") != stream_seed(7, "line") < 2**32


def test_on_a_gpu_all_that_wait_are_one_batch() -> None:
    episodes = planned(make_model(), SUITE)
    obs = {task: np.ones((2, task.obs_dim), np.float32) for task in SUITE}
    apart = episodes.act([(episodes.begin(task, [5, 6]), obs[task]) for task in SUITE])
    batches = []
    decide = episodes.planner.plan

    def plan(obs: Tensor, *others: Any) -> Any:
        batches.append(len(obs))
        return decide(obs, *others)

    episodes.planner.plan = plan  # type: ignore[method-assign]
    together = episodes._act([(episodes.begin(task, [5, 6]), obs[task]) for task in SUITE])
    assert batches == [4]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


# Guides


def test_value_of_prior_and_q_is_the_discounted_reward_and_the_mean_q() -> None:
    model = make_model()
    guide = TDMPC2Guide(model)
    generator = streams(1)[0]
    z = model.encode(torch.randn(2, 5, generator=generator), torch.tensor([0, 1]))
    actions = torch.rand(2, 3, 4, 2, generator=generator) * 2 - 1
    noise = torch.randn(2, 4, 2, generator=generator)
    value = Planner(model, guide, FAST).value(z, actions, torch.tensor([[0], [1]]), noise)
    for n, task in enumerate(SUITE):
        task_id = torch.tensor(n)
        for s in range(4):
            latent, total = z[n], 0.0
            for t in range(3):
                total += task.discount**t * float(model.reward(latent, actions[n, t, s], task_id))
                latent = model.next(latent, actions[n, t, s], task_id)
            last, _ = model.sample_prior(latent, task_id, noise[n, s])
            total += task.discount**3 * float(model.q(latent, last, task_id).mean())
            assert float(value[n, s]) == pytest.approx(total, rel=1e-4)


def test_nothing_counts_after_a_termination() -> None:
    """As in TD-MPC2, a termination that is less likely than not counts as none."""

    class Cliff(Points):
        episodic = True

        def continuation(self, z: Tensor, task: Tensor) -> Tensor:
            return torch.where(z[..., 0] > 1.5, 0.1, torch.where(z[..., 0] > 0.5, 0.6, 1.0))

    task, noise = torch.tensor([[1]]), torch.zeros(1, 2, 2)
    actions = torch.zeros(1, 3, 2, 2)
    actions[0, :, 1, 0] = 1.0  # the second candidate walks to 1, 2 and 3
    ends, goes_on = (
        Planner(world(), Blind(), FAST).value(torch.zeros(1, 2), actions, task, noise)[0]
        for world in (Cliff, Points)
    )
    assert ends[0] == goes_on[0]
    first, second = (-10 * (torch.tensor([x, 0.0]) - Points.GOALS[1]).norm() for x in (1.0, 2.0))
    assert float(ends[1]) == pytest.approx(float(first + 0.8 * second))
    assert float(goes_on[1]) < float(ends[1]) - 10


def test_prior_proposes_its_own_samples() -> None:
    model = make_model()
    task, noise = torch.tensor([[0], [1]]), torch.randn(2, 6, 2, generator=streams(1)[0])
    z = torch.rand(2, 6, SIZE.latent_dim, generator=streams(1)[0])
    proposed = TDMPC2Guide(model).propose(z, task, noise)
    for n in range(2):
        own, _ = model.sample_prior(z[n], torch.tensor(n), noise[n])
        torch.testing.assert_close(proposed[n], own)


@pytest.mark.parametrize("order", [(SMALL, LARGE), (LARGE, SMALL)])
def test_saved_actors_and_critics_act_and_value_as_learned(
    tmp_path: Path, order: tuple[Task, Task]
) -> None:
    model = make_model(q_and_prior=False)
    learner = save_policies(model, tmp_path, order, discount=0.97)
    guide = load_guide(model, tmp_path)
    z = torch.rand(5, 6, SIZE.latent_dim, generator=streams(1)[0])
    noise = torch.randn(5, 6, 2, generator=streams(1)[0])
    rows = torch.tensor([1, 0, 1, 1, 0])  # positions in order
    task = torch.tensor([[SUITE.id(order[int(row)].name)] for row in rows])
    proposed, value = guide.propose(z, task, noise), guide.value(z, task, noise)
    for n, row in enumerate(rows.tolist()):
        both = z[n].expand(2, 6, -1)
        torch.testing.assert_close(
            proposed[n], learner.actors(both, noise[n].expand(2, -1, -1))[row]
        )
        torch.testing.assert_close(value[n], learner.critics(both).amin(1)[row])
    assert guide.reward_units == "symlog"
    assert guide.discount.tolist() == pytest.approx([0.97] * 2)
    assert value.abs().max() > 1


def test_rewards_are_summed_in_the_units_of_the_value() -> None:
    class Real(Blind):
        reward_units = "real"

    z, task, noise = torch.zeros(1, 2), torch.tensor([[1]]), torch.zeros(1, 1, 2)
    actions = torch.tensor([[[[1.0, 1.0]]]])
    reward = Points().symlog_reward(z, actions[0, 0], torch.tensor([1]))
    end = 0.8 * Blind().value(z + 1, torch.tensor([1]), noise)
    values = [
        Planner(Points(), guide, FAST).value(z, actions, task, noise) for guide in (Blind(), Real())
    ]
    assert float(values[0]) == pytest.approx(float(reward + end))
    assert float(values[1]) == pytest.approx(float(symexp(reward) + end))
    assert float(symlog(values[1] - end)) == pytest.approx(float(reward), rel=1e-5)


def test_an_imported_model_plans_for_all_its_tasks(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "data" / "tdmpc2_mt30_tiny_new.pt"
    import_checkpoint(ImportConfig(str(file), "mt30", str(tmp_path / "model")))
    model = load_world_model(tmp_path / "model")
    episodes = planned(model, model.suite)
    waiting = [
        (episodes.begin(task, [0, 1]), np.ones((2, task.obs_dim), np.float32))
        for task in model.suite
    ]
    for task, rows in zip(model.suite, episodes.act(waiting), strict=True):
        assert rows.shape == (2, task.action_dim)
        assert (np.abs(rows) <= 1).all()


# What is refused


def test_a_world_model_without_values_is_refused() -> None:
    with pytest.raises(PwmError, match="no Q ensemble and policy prior"):
        TDMPC2Guide(make_model(q_and_prior=False))


def test_a_policy_without_critic_is_refused(tmp_path: Path) -> None:
    actors = Actors(3, torch.ones(1, 1), NETWORKS)
    cloned = Policy.from_observation_actor(
        SMALL, torch.zeros(3), torch.ones(3), actors, 0, NETWORKS
    )
    cloned.save(tmp_path / "small")
    with pytest.raises(PwmError, match="without its critic"):
        load_critic(tmp_path / "small")


def test_policies_of_another_world_model_are_refused(tmp_path: Path) -> None:
    model = make_model()
    save_policies(model, tmp_path)
    other = make_model()
    next(other.encoder.parameters()).data += 0.01
    with pytest.raises(PwmError, match=r"policy of \w+ does not read this world model's latents"):
        load_guide(other, tmp_path)


def test_policies_extracted_with_unlike_settings_are_refused(tmp_path: Path) -> None:
    model = make_model()
    save_policies(model, tmp_path, (SMALL,))
    save_policies(model, tmp_path, (LARGE,), reward_units="real")
    with pytest.raises(PwmError, match="different networks, discounts or reward units"):
        load_guide(model, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"horizon": 0}, "at least 1"),
        ({"max_rows": 0}, "at least 1"),
        ({"elites": 25}, "at most samples=24"),
        ({"policy_trajectories": 25}, "at most samples=24"),
        ({"min_std": 0.0}, "min_std=0.0 must be above 0"),
        ({"min_std": 3.0}, "min_std=3.0 must be at most max_std=2.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PwmError, match=message):
        Planner(Points(), Blind(), replace(FAST, **wrong))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "planner"}, "checkpoint=DIR"),
        ({"policy": "some", "baselines": ["planner"]}, "checkpoint=DIR"),
        ({"policy": "planner+actor", "checkpoint": "m"}, "policies=DIR"),
        ({"policy": "some", "policies": "others"}, "already names some"),
        ({"policy": "some", "baselines": ["plan"]}, "unknown baseline plan"),
        (
            {"policy": "planner", "checkpoint": "m", "planner": replace(FAST, elites=99)},
            "planner.elites=99 must be at most samples=24",
        ),
    ],
)
def test_evaluations_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PwmError, match=message):
        EvaluateConfig(out="unused", **settings).validate()


# In evaluation


PENDULUM = replace(get_task("pendulum-swingup"), episode_length=6)
REACH = replace(get_task("mw-reach"), episode_length=4)
SIMULATED = Suite("simulated", (PENDULUM, REACH))
FALLS = Task(
    "falls", "gymnasium", 4, 1, 50, 1, "InvertedPendulum-v5",
    '{"frame_skip": 1, "reset_noise_scale": 0.1}', 0.0, 50.0,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory with a world model of two simulated tasks, and policies."""
    model = make_model(suite=SIMULATED)
    save_checkpoint(tmp_path / "model", KIND, {"model": model.state_dict()}, model_meta(model))
    save_policies(model, tmp_path / "policies", SIMULATED.tasks)
    return tmp_path


def settings(run: Path, **changes: Any) -> EvaluateConfig:
    common: dict[str, Any] = {
        "checkpoint": str(run / "model"),
        "out": str(run / "out"),
        "workers": 1,
        "device": "cpu",
    }
    return EvaluateConfig(**common | {"episodes": 2, "planner": FAST} | changes)


@pytest.mark.slow
def test_planners_beside_extracted_policies(run: Path) -> None:
    methods = ["random", "planner", "planner+actor"]
    results = evaluate(settings(run, policy=str(run / "policies"), baselines=methods))
    assert list(results.methods) == ["extracted", "planner+actor", "planner", "random"]
    names = ["pendulum-swingup", "mw-reach"]
    assert all(list(score.tasks) == names for score in results.methods.values())
    returns = [score.tasks["mw-reach"].returns for score in results.methods.values()]
    assert len(set(returns)) == 4
    assert results.settings["planner"] == asdict(FAST)
    assert results.settings["world_model"] == "0.0M"
    times = json.loads((run / "out" / "decision_times.json").read_text())
    assert set(times) == {"extracted", *methods}
    assert times["planner"] > times["random"] > 0
    assert Results.load(run / "out" / "results.json") == results


@pytest.mark.parametrize(
    "policy", [pytest.param("planner", marks=pytest.mark.slow), "planner+actor"]
)
def test_a_planner_alone_and_twice_the_same(run: Path, policy: str) -> None:
    policies = str(run / "policies") if policy == "planner+actor" else None
    for out in ("a", "b"):
        results = evaluate(settings(run, policy=policy, policies=policies, out=str(run / out)))
        assert (results.method, results.settings["policy"]) == (policy, policy)
        assert set(results.task_names) == set(SIMULATED.names)
    first, second = ((run / out / "results.json").read_bytes() for out in ("a", "b"))
    assert first == second


@pytest.mark.slow
def test_episodes_that_terminate_leave_the_others_to_go_on(tmp_path: Path) -> None:
    model = make_model(suite=Suite("one", (FALLS,)))
    save_checkpoint(tmp_path / "model", KIND, {"model": model.state_dict()}, model_meta(model))
    results = evaluate(settings(tmp_path, policy="planner", episodes=4, workers=1))
    survived = []
    env = envs.make_env(FALLS)
    for seed in results.seeds:
        act = act_function(planned(model, model.suite), FALLS, [seed])
        obs, _ = env.reset(seed=seed)
        total, terminated, truncated = 0.0, False, False
        while not (terminated or truncated):
            obs, reward, terminated, truncated, _ = env.step(act(obs[None])[0])
            total += reward  # one for every step before the fall
        assert terminated
        survived.append(total)
    assert results.policy.tasks["falls"].returns == tuple(survived)
    assert len(set(survived)) > 1, survived


def test_size_of_the_world_model_is_told_as_published() -> None:
    tiny = ModelSize(encoder_dim=256, mlp_dim=256, latent_dim=128, task_dim=16)
    large = ModelSize(encoder_dim=1792, encoder_layers=3, mlp_dim=1792, latent_dim=768)
    names = [model_sizes._millions(size, 39, 4) for size in (tiny, ModelSize(), large)]
    assert names == ["0.3M", "5M", "48M"]


def test_one_policy_is_planned_for(run: Path) -> None:
    results = evaluate(
        settings(run, policy=str(run / "policies" / "mw-reach"), baselines=["planner+actor"])
    )
    assert results.task_names == ("mw-reach",)


def test_a_task_that_the_world_model_lacks_is_refused(run: Path) -> None:
    other = replace(PENDULUM, name="other-swingup")
    model = make_model(suite=Suite("other", (other, REACH)))
    save_checkpoint(run / "other", KIND, {"model": model.state_dict()}, model_meta(model))
    with pytest.raises(PwmError, match="'pendulum-swingup' is not in suite"):
        evaluate(
            settings(
                run,
                policy=str(run / "policies"),
                checkpoint=str(run / "other"),
                baselines=["planner"],
            )
        )
