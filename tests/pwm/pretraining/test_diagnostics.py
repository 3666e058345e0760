from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from stores import coded_store
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_task
from pwm.data.splits import episodes_in_split
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch
from pwm.models.math import symlog
from pwm.pretraining.diagnostics import diagnose, held_out_windows


class Drift(nn.Module):
    """A world of one number that grows by the action; the model may add an error a step."""

    episodic = False

    def __init__(self, suite: Suite, error: float = 0.0, reward_error: float = 0.0) -> None:
        super().__init__()
        self.suite, self.error, self.reward_error = suite, error, reward_error
        self.bins = torch.zeros(1)
        self.size = SimpleNamespace(latent_dim=1)

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        return obs[..., :1]

    def task_embedding(self, task: Tensor) -> Tensor:
        return torch.zeros(*task.shape, 0)

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        return z + action[..., :1] + self.error

    def symlog_reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        return symlog(z.squeeze(-1) + self.reward_error)


SUITE = Suite("pair", (get_task("reacher-easy"), get_task("pendulum-swingup")))


def drift_batch(tasks: list[int]) -> Batch:
    """Windows in which the world follows the drift exactly; reward is the state before."""
    generator = torch.Generator().manual_seed(0)
    size = len(tasks)
    action = torch.randn(16, size, 2, generator=generator)
    obs = torch.zeros(17, size, 6)
    obs[0, :, 0] = torch.randn(size, generator=generator)
    obs[1:, :, 0] = obs[0, :, 0] + action[..., 0].cumsum(0)
    return Batch(obs, action, obs[:-1, :, 0].clone(), torch.tensor(tasks))


def test_a_perfect_model_has_no_error():
    report = diagnose(Drift(SUITE), [drift_batch([0] * 30 + [1] * 30)])
    for task in SUITE.names:
        figures = report["tasks"][task]
        assert all(abs(figures["latent_error"][k]) < 1e-9 for k in ("1", "4", "16"))
        assert all(figures["reward_r2"][k] == pytest.approx(1) for k in ("1", "4", "16"))


def test_errors_are_relative_to_the_spread_and_grow_with_the_steps():
    batch = drift_batch([0] * 30 + [1] * 50)
    report = diagnose(Drift(SUITE, error=0.1), [batch])
    for index, task in enumerate(SUITE.names):
        variance = batch.obs[1:, batch.task == index, 0].var(correction=0)
        for k in (1, 4, 16):
            found = report["tasks"][task]["latent_error"][str(k)]
            assert found == pytest.approx(float((0.1 * k) ** 2 / variance), rel=1e-4)


def test_reward_r2_compares_with_predicting_the_mean():
    batch = drift_batch([0] * 40)
    report = diagnose(Drift(SUITE, reward_error=0.5), [batch])
    for k in (1, 4, 16):
        wanted = 1 - 0.25 / batch.reward[k - 1].var(correction=0)
        found = report["tasks"]["reacher-easy"]["reward_r2"][str(k)]
        assert found == pytest.approx(float(wanted), rel=1e-4)


def test_constant_rewards_and_latents_give_no_division_by_zero():
    batch = drift_batch([0] * 5)
    batch.reward.fill_(2.0)
    batch.obs.zero_()
    batch.action.zero_()
    report = diagnose(Drift(SUITE), [batch])
    assert report["tasks"]["reacher-easy"]["reward_r2"] == {"1": None, "4": None, "16": None}
    assert report["tasks"]["reacher-easy"]["latent_error"] == {"1": 0, "4": 0, "16": 0}


def test_only_tasks_with_windows_are_reported():
    assert set(diagnose(Drift(SUITE), [drift_batch([1] * 5)])["tasks"]) == {"pendulum-swingup"}


def test_windows_are_of_held_out_episodes_alone(toy):
    store = EpisodeStore.open(toy.data)
    (batch,) = held_out_windows(store, store.suite, seed=0, device="cpu")
    assert batch.obs.shape[0] == 17
    for index, task in enumerate(store.suite):
        held_out = episodes_in_split(store.count(task.name), "held_out")
        episodes = [store.episode(task.name, i) for i in range(len(held_out))]
        known = torch.cat(
            [torch.from_numpy(e.obs[:-16]) for e, h in zip(episodes, held_out, strict=True) if h]
        )
        first = batch.obs[0, batch.task == index, : task.obs_dim]
        assert len(first) == 256
        assert (first.unsqueeze(1) == known).all(-1).any(1).all()


def test_each_task_is_judged_as_far_ahead_as_its_episodes_go(tmp_path):
    store = coded_store(tmp_path, {"small": [20, 12, 12, 3, 11], "large": [3, 20, 20]})
    batches = held_out_windows(store, store.suite, seed=0, device="cpu")
    assert [len(batch.reward) for batch in batches] == [4, 16]
    assert [batch.task.unique().tolist() for batch in batches] == [[0], [1]]
    assert [batch.task.numel() for batch in batches] == [256, 256]
    assert set(batches[0].obs[..., 1].unique().tolist()) == {4.0}  # the held-out episode
    (alone,) = held_out_windows(store, store.suite, 0, "cpu", ["large"])
    assert torch.equal(alone.obs, batches[1].obs)
    whole = drift_batch([0] * 30)
    short = whole._replace(obs=whole.obs[:5], action=whole.action[:4], reward=whole.reward[:4])
    report = diagnose(Drift(SUITE), [short, drift_batch([1] * 30)])
    assert report["steps"] == [1, 4, 16]
    assert set(report["tasks"]["reacher-easy"]["latent_error"]) == {"1", "4"}
    assert set(report["tasks"]["reacher-easy"]["reward_r2"]) == {"1", "4"}
    assert set(report["tasks"]["pendulum-swingup"]["reward_r2"]) == {"1", "4", "16"}


def test_too_short_held_out_episodes_are_refused(toy, tmp_path):
    store = EpisodeStore.open(toy.data)
    with EpisodeStore.create(tmp_path / "one", store.suite) as single:
        single.add_source("toy", {})
        for task in toy.tasks:
            single.append(task, [store.episode(task, 0)], "toy")
        with pytest.raises(PwmError, match="one of them is held out, so collect two or more"):
            held_out_windows(single, store.suite, seed=0, device="cpu")


def test_predicted_terminations_are_told_where_they_were_recorded_and_elsewhere():
    class Ends(Drift):
        episodic = True

        def continuation(self, z: Tensor, task: Tensor) -> Tensor:
            return torch.where(z.squeeze(-1) > 0, 0.25, 0.875)

    batch = drift_batch([0] * 40 + [1] * 20)
    up = batch.obs[1:, :, 0] > 0
    report = diagnose(Ends(SUITE), [batch._replace(terminated=up & (batch.task == 0))])
    assert report["tasks"]["reacher-easy"]["termination"] == {"at_ends": 0.75, "elsewhere": 0.125}
    assert report["tasks"]["pendulum-swingup"]["termination"]["at_ends"] is None
