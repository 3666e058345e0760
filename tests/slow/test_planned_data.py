"""Episodes planned on the simulator: good ones, and the same whatever makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pwm.data.store import EpisodeStore
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig

TASKS = ("cup-catch", "reacher-easy")


def planned(out: Path, workers: int) -> EpisodeStore:
    config = CollectConfig(
        str(out), ",".join(TASKS), episodes=2, seed=3, workers=workers, behaviour="mpc"
    )
    return EpisodeStore.open(collect(config))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_planned_episodes_are_good_and_do_not_depend_on_the_workers(tmp_path):
    one, two = planned(tmp_path / "one", 1), planned(tmp_path / "two", 2)
    assert one.digest == two.digest
    for task in TASKS:
        returns = [float(one.episode(task, index).reward.sum()) for index in range(2)]
        assert np.mean(returns) > 600
