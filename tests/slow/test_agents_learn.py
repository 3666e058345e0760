"""The record of an agent's training shows that it learned."""

from __future__ import annotations

import pytest

from pwm.data.store import EpisodeStore
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
