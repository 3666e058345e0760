"""Agents in one stack of networks: each is as it would be alone, and learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from pwm.core.suites import Task
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.seeding import stream
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.agents_replay import Replay, Transitions
from pwm.simulation.stacked_agents import Agents, Draws, first_state

CONFIG = AgentsConfig(net_arch=[16, 16], batch_size=8, compile="never")
TASKS = [
    Task(name, "gymnasium", obs_dim, action_dim, 10, 1, "E-v0", "{}", 0.0, 1.0)
    for name, obs_dim, action_dim in (("wide", 5, 1), ("deft", 2, 3), ("middling", 3, 2))
]


def agents(tasks: Sequence[Task], config: AgentsConfig = CONFIG, states=None) -> Agents:
    obs_dim, action_dim = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    accelerator = Acceleration(config.compile).prepare(torch.device("cpu"))
    states = states or [first_state(task, config, seed=3) for task in tasks]
    return Agents(tasks, obs_dim, action_dim, config, accelerator, states)


def replay(tasks: Sequence[Task], steps: int = 20) -> Replay:
    """Random transitions, those of a task the same whichever tasks there are."""
    obs_dim, action_dim = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    made = Replay(len(tasks), steps, obs_dim, action_dim, torch.device("cpu"))
    for k, task in enumerate(tasks):
        rng = np.random.default_rng(TASKS.index(task))
        obs, after = rng.normal(2, 3, (2, steps, task.obs_dim))
        action = rng.uniform(-1, 1, (steps, task.action_dim))
        rows = made.row(obs, after, action, rng.normal(size=steps), rng.random(steps) < 0.2)
        made.fill(k, np.arange(steps), rows, steps)
    return made


def trained(tasks: Sequence[Task], updates: int = 5) -> tuple[Agents, np.ndarray]:
    stack, data = agents(tasks), replay(tasks)
    action_dim = max(task.action_dim for task in tasks)
    generators = [stream(3, task.name) for task in tasks]
    draws = Draws(generators, [task.action_dim for task in tasks], action_dim)
    rows = torch.arange(len(tasks))
    for _ in range(updates):
        batch = data.take(rows, draws.indices(20, CONFIG.batch_size))
        stack.observe(batch.obs)
        stack.update(batch, draws.noise(2, CONFIG.batch_size).transpose(0, 1).contiguous())
    return stack, stack.act(batch.obs, draws.noise(CONFIG.batch_size))


def test_an_agent_in_a_stack_is_the_one_that_it_would_be_alone():
    stack, actions = trained(TASKS)
    for k, task in enumerate(TASKS):
        alone, own_actions = trained([task])
        own, begun = alone.state(0), first_state(task, CONFIG, seed=3)
        moved = 0
        for group, tensors in stack.state(k).items():
            assert tensors.keys() == own[group].keys() == begun[group].keys()
            for name, tensor in tensors.items():
                torch.testing.assert_close(tensor, own[group][name], rtol=1e-4, atol=1e-6)
                moved += not torch.equal(tensor, begun[group][name])
        assert moved > 40, "networks, targets, moments and normalization"
        size = task.action_dim
        np.testing.assert_allclose(actions[k, :, :size], own_actions[0], atol=1e-5)
        assert not actions[k, :, size:].any()


def test_what_is_padding_stays_zero_and_counts_for_nothing():
    stack, _ = trained(TASKS)
    nets, wide = stack.networks, 0
    for k, task in enumerate(TASKS):
        unused = stack.networks.actor[0].weight[k, :, task.obs_dim :]
        critic = nets.critic[0].weight[2 * k : 2 * k + 2]
        beyond = critic[..., task.obs_dim : 5], critic[..., 5 + task.action_dim :]
        wide += sum(part.numel() for part in (unused, *beyond))
        assert not any(part.any() for part in (unused, *beyond))
    assert wide
    obs = torch.randn(3, 4, 5)
    noise = torch.randn(3, 4, 3)
    padded_obs, padded_noise = obs.clone(), noise.clone()
    for k, task in enumerate(TASKS):
        padded_obs[k, :, task.obs_dim :] = 7.0
        padded_noise[k, :, task.action_dim :] = 7.0
    for one, other in zip(
        stack._drawn(obs, noise), stack._drawn(padded_obs, padded_noise), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_agents_that_are_put_down_go_on_in_another_stack():
    stack, _ = trained(TASKS)
    pair = agents(TASKS[1:], states=[stack.state(1), stack.state(2)])
    for k in (0, 1):
        for group, tensors in pair.state(k).items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, stack.state(k + 1)[group][name]), f"{group} {name}"


def test_normalization_is_that_of_all_that_was_seen():
    stack, seen = agents(TASKS), 3 + 2 * torch.randn(3, 60, 5, generator=stream(0, "seen"))
    for part in seen.split([1, 9, 50], 1):
        stack.observe(part)
    nets = stack.networks
    torch.testing.assert_close(nets.mean, seen.double().mean(1))
    torch.testing.assert_close(
        nets.var[:, :2], seen.double().var(1, correction=0)[:, :2], rtol=0.1, atol=0
    )


def batch_of(obs, action, reward, terminated) -> Transitions:
    return Transitions(obs, obs, action, reward, terminated)


@pytest.mark.slow
def test_agents_find_the_actions_that_pay_and_draw_less_and_less():
    """Each step ends; it pays how near the action is to a number that the observation tells."""
    tasks = [replace(TASKS[0], obs_dim=1), replace(TASKS[2], obs_dim=1)]
    config = replace(CONFIG, net_arch=[32], batch_size=32, learning_rate=1e-2, tau=1.0)
    stack, generator = agents(tasks, config), stream(0, "problem")
    mask = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    for _ in range(300):
        obs = torch.rand(2, 32, 1, generator=generator) * 2 - 1
        action = (torch.rand(2, 32, 2, generator=generator) * 2 - 1) * mask
        reward = -((action - 0.7 * obs) * mask).square().sum(-1) * 10
        noise = torch.randn(2, 2, 32, 2, generator=generator) * mask
        stack.update(batch_of(obs, action, reward, torch.ones(2, 32)), noise)
    obs = torch.linspace(-1, 1, 9).view(1, 9, 1).expand(2, 9, 1)
    action = stack.act(obs, torch.zeros(2, 9, 2))
    np.testing.assert_allclose(action, (0.7 * obs * mask).numpy(), atol=0.2)
    assert (stack.networks.log_entropy.exp() > 0).all()


@pytest.mark.parametrize("ends", [False, True])
def test_values_go_beyond_a_time_limit_but_not_beyond_a_termination(ends):
    """A step pays 1 and leads back: for ever that is worth 1 / (1 - 0.5), once it is worth 1."""
    task = replace(TASKS[0], obs_dim=1)
    config = replace(
        CONFIG, net_arch=[8], gamma=0.5, initial_entropy=1e-6, learning_rate=2e-2, tau=0.2
    )
    stack, generator = agents([task], config), stream(0, "steps")
    obs, terminated = torch.ones(1, 32, 1), torch.full((1, 32), float(ends))
    for _ in range(80):
        action = torch.rand(1, 32, 1, generator=generator) * 2 - 1
        noise = torch.randn(2, 1, 32, 1, generator=generator)
        stack.update(batch_of(obs, action, torch.ones(1, 32), terminated), noise)
    values = stack._values(stack.networks.critic, obs, action)
    torch.testing.assert_close(values, torch.full_like(values, 1 if ends else 2), rtol=0.1, atol=0)


def test_a_ring_keeps_the_newest_and_is_the_same_when_it_is_filled_again():
    def rows_of(made: Replay, places: np.ndarray) -> np.ndarray:
        values = np.repeat(places[:, None], 2, 1)
        return made.row(values, values + 1, values[:, :1], places, places % 2)

    ring, again = (Replay(2, 6, 3, 1, torch.device("cpu")) for _ in range(2))
    for clock in range(5):
        places = clock * 2 + np.arange(2)
        ring.add([0, 1], clock * 2, np.stack([rows_of(ring, places)] * 2))
    ring.add([1], 10, rows_of(ring, np.array([10, 11]))[None])
    for member, end in ((0, 10), (1, 12)):
        for places in (np.arange(0, end, 2), np.arange(1, end, 2)):
            again.fill(member, places, rows_of(again, places), end)
    assert torch.equal(ring._rows, again._rows)
    taken = ring.take(torch.tensor([1]), torch.tensor([[3, 5]]))
    assert taken.reward.tolist() == [[9.0, 11.0]] and taken.terminated.tolist() == [[1.0, 1.0]]
    assert taken.obs.tolist() == [[[9.0, 9.0, 0.0], [11.0, 11.0, 0.0]]]
    assert taken.after[0, 0].tolist() == [10.0, 10.0, 0.0]
