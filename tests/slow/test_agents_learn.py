"""The record of an agent's training shows that it learned."""

from __future__ import annotations

import pytest

from pwm.data.store import EpisodeStore
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.sac_config import SacConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_last_episodes_are_far_better_than_the_first(tmp_path):
    learner = SacConfig(random_episodes=2, net_arch=[128, 128], batch_size=128)
    task = "cartpole-swingup"
    out = collect(CollectConfig(str(tmp_path / "data"), task, 40, behaviour="sac", sac=learner))
    returns = EpisodeStore.open(out).episodes(task)["return"]
    assert returns[-10:].mean() > returns[:10].mean() + 250, returns.tolist()


def test_agents_in_one_loop_learn_to_swing_a_pendulum_up(tmp_path):
    file = tmp_path / "swing.yaml"
    file.write_text(
        "- {name: swing, env_id: Pendulum-v1, obs_dim: 3, action_dim: 1, episode_length: 200,"
        " score: {min: -1500, max: 0}}"
    )
    learner = AgentsConfig(
        envs_per_task=4, random_episodes=4, learning_starts=400, updates_per_step=0.5,
        batch_size=64, net_arch=[64, 64], device="cpu", compile="never",
    )  # fmt: skip
    config = CollectConfig(
        str(tmp_path / "data"), str(file), 24, seed=1, behaviour="agents", agents=learner
    )
    returns = EpisodeStore.open(collect(config)).episodes("swing")["return"]
    assert returns[-8:].mean() > returns[:8].mean() + 500, returns.tolist()
