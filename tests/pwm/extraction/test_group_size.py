from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pwm.core.suites import get_suite
from pwm.extraction import groups as group_size
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.groups import bytes_a_task, largest_group
from pwm.models.world_model import ModelSize, WorldModel

SIZE = ModelSize(encoder_dim=16, mlp_dim=128, latent_dim=128, task_dim=8)
CONFIG = ActorCriticConfig(batch_size=256, horizon=16, critic_passes=1)
ROOT = Path(__file__).parents[3]


def make_model() -> WorldModel:
    return WorldModel(SIZE, get_suite("mt80")).requires_grad_(False)


@pytest.mark.parametrize(
    ("free", "tasks", "size"), [(100, 80, 16), (10, 80, 10), (10, 12, 6), (10, 6, 6), (0.1, 80, 1)]
)
def test_groups_are_equal_and_as_few_as_fit(monkeypatch, free, tasks, size):
    model = make_model()
    room = int(free * bytes_a_task(model, CONFIG) / 0.7) + 1
    monkeypatch.setattr(group_size, "free_memory", lambda: room)
    assert largest_group(model, CONFIG, tasks) == size


def test_the_estimate_covers_what_an_iteration_takes():
    """Peak memory of a process that learns four tasks, beyond one with a hundredth of the batch."""
    script = f"""
import resource, sys, torch
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from test_group_size import CONFIG, make_model
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
import dataclasses
torch.set_num_threads(1)
config = dataclasses.replace(CONFIG, batch_size=int(sys.argv[1]))
model = make_model()
learner = ActorCriticLearner(model, model.suite.tasks[:4], config, 0)
start = torch.rand(4, config.batch_size, model.size.latent_dim)
learner.iteration(Inputs(start, learner.noise()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = [
        1024
        * int(
            subprocess.run(
                [sys.executable, "-c", script, str(batch)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for batch in (4, CONFIG.batch_size)
    ]
    small = bytes_a_task(make_model(), dataclasses.replace(CONFIG, batch_size=4))
    estimate = 4 * (bytes_a_task(make_model(), CONFIG) - small)
    assert 0.2 * estimate < peaks[1] - peaks[0] < 1.1 * estimate
