"""Gradients by layer, through a memory that holds a few layers at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pwm.analysis import gradients
from pwm.analysis.gradients import gradient_products, passes, shared_layers
from pwm.core.suites import Suite, Task
from pwm.data.windows.batch import Batch
from pwm.models.world_model import ModelSize, WorldModel
from pwm.multitask.relations import relations

LAYERS = {"first": [nn.Parameter(torch.zeros(2))], "second": [nn.Parameter(torch.zeros(3))]}


def batch(rows: list[list[float]]) -> Batch:
    """Windows whose observations are what the loss below has as gradients."""
    obs = torch.tensor([rows])
    return Batch(obs, obs[:0], obs[:0], torch.zeros(len(rows), dtype=torch.int64))


def loss(given: Batch) -> torch.Tensor:
    return (torch.cat([*LAYERS["first"], *LAYERS["second"]]) * given.obs[0]).sum(1).mean()


@pytest.mark.parametrize("room", [2**30, 1])
def test_products_of_linear_losses_are_those_of_their_slopes(monkeypatch, room):
    monkeypatch.setattr(gradients, "_MOST_BYTES", room)
    tasks = [[[1, 0, 2, 0, 0], [3, 0, 2, 0, 0]], [[-2, 0, 0, 1, 0], [-2, 0, 0, 3, 0]]]
    given = [batch([[float(x) for x in row] for row in rows]) for rows in tasks]
    seen = []
    found = gradient_products(LAYERS, given, loss, 2, lambda: seen.append(1))
    assert len(seen) == 2 * passes(LAYERS, 2, 2) == (2 if room > 1 else 4)
    first, second = relations(found["first"]), relations(found["second"])
    assert first.cosine[0, 1] == pytest.approx(-1.0)
    assert second.cosine[0, 1] == pytest.approx(0.0)
    assert first.norm == pytest.approx([2.0, 2.0])
    whole = relations(found["first"] + found["second"])
    assert whole.cosine[0, 1] == pytest.approx(-4 / 8)
    assert found["first"][0, :, 0, :] == pytest.approx(np.array([[1.0, 3.0], [3.0, 9.0]]))


def test_shared_layers_leave_out_what_a_task_has_to_itself():
    suite = Suite("pair", (Task("a", "dmcontrol", 3, 1, 20), Task("b", "dmcontrol", 3, 1, 20)))
    size = ModelSize(encoder_dim=8, mlp_dim=8, latent_dim=8, task_dim=4, num_bins=5)
    layers = shared_layers(WorldModel(size, suite, q_and_prior=True, episodic=True))
    nets = {name.split(".")[0] for name in layers}
    assert nets == {"encoder", "dynamics", "reward_head", "termination_head"}
    assert {"dynamics.0", "dynamics.1", "dynamics.2"} < set(layers)
