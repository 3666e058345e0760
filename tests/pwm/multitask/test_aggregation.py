from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.multitask.aggregation import Aggregator, make_aggregator
from pwm.multitask.config import AGGREGATES

METHODS = [name for name in AGGREGATES if name != "mean"]
CONFLICT = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])


def direction(name: str, gradients: Tensor) -> Tensor:
    return Aggregator(name).weights(gradients) @ gradients


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pcgrad", [0.25, 0.75]),  # (1/2, 1/2) and (0, 1), each without its part against the other
        ("upgrad", [0.25, 0.75]),  # their projections onto the cone of what hurts neither
        ("dualproj", [0.0, 0.5]),  # the mean, which is in that cone
        ("mgda", [0.2, 0.4]),  # the shortest convex combination
    ],
)
def test_directions_of_two_conflicting_gradients(name, wanted):
    found = direction(name, CONFLICT)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-3, atol=1e-3)


def test_pcgrad_leaves_gradients_that_do_not_conflict():
    gradients = torch.tensor([[1.0, 0.0], [1.0, 3.0]])
    torch.testing.assert_close(direction("pcgrad", gradients), gradients.mean(0))


def test_upgrad_hurts_no_task_where_the_mean_does():
    torch.manual_seed(0)
    gradients = torch.randn(4, 6) * torch.tensor([0.1, 1.0, 3.0, 30.0]).unsqueeze(1)
    gradients[1] -= gradients[3] / 10
    assert (gradients @ gradients.mean(0)).min() < -1
    found = gradients @ direction("upgrad", gradients)
    assert (found > -1e-3 * gradients.norm(dim=1) * gradients.norm()).all()


def test_imtl_g_has_equal_projections_on_all_gradients():
    gradients = torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    found = direction("imtl_g", gradients)
    projections = gradients @ found / gradients.norm(dim=1)
    torch.testing.assert_close(projections, projections.mean().expand(3), rtol=1e-4, atol=1e-5)


def test_cagrad_raises_the_worst_task_within_its_ball_around_the_mean():
    mean = CONFLICT.mean(0)
    found = direction("cagrad", CONFLICT)
    assert (found - mean).norm() == pytest.approx(0.5 * mean.norm().item(), rel=1e-3)
    assert (CONFLICT @ found).min() > (CONFLICT @ mean).min() + 0.1


def test_aligned_mtl_steps_as_far_along_every_principal_direction():
    """Orthogonal gradients of sizes 1 and 10 both count as the smaller."""
    found = direction("aligned_mtl", torch.tensor([[1.0, 0.0], [0.0, 10.0]]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_small_gradients_are_weighed_as_large_ones(name):
    torch.manual_seed(1)
    gradients = torch.randn(3, 5)
    torch.manual_seed(2)  # PCGrad's order of tasks
    wanted = Aggregator(name).weights(gradients)
    torch.manual_seed(2)
    found = Aggregator(name).weights(gradients * 1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_that_cannot_be_compared_weigh_the_same(name):
    broken = CONFLICT.clone()
    broken[0, 0] = torch.nan
    for gradients in (broken, torch.zeros(2, 3)):
        assert Aggregator(name).weights(gradients).tolist() == [0.5, 0.5]


def test_without_torchjd_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(PwmError, match="aggregate=mgda needs torchjd: pip install"):
        make_aggregator("mgda")
    assert make_aggregator("mean") is None
