from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pwm.multitask.task_losses import TaskLosses, by_task
from pwm.multitask.weights import (
    DynamicWeightAverage,
    GradNormWeights,
    TaskWeights,
    UncertaintyWeights,
)

SKIP, KEEP = torch.tensor(True), torch.tensor(False)


def of_means(*means: float | None) -> TaskLosses:
    """Losses of tasks by their means; None for a task without windows."""
    counts = torch.tensor([0.0 if mean is None else 4.0 for mean in means])
    return TaskLosses(torch.tensor([[mean or 0.0 for mean in means]]) * counts, counts)


def with_adam(weights: TaskWeights, lr: float) -> TaskWeights:
    weights.optimizer = torch.optim.Adam(weights.parameters(), lr=torch.tensor(lr), fused=True)
    return weights


def state(weights: TaskWeights) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.state_dict().items()}


def test_losses_by_task_are_sums_over_its_windows_and_keep_faults_apart():
    losses = torch.tensor([[1.0, 2.0, 4.0, torch.nan], [10.0, 20.0, 40.0, 80.0]])
    found = by_task(losses, torch.tensor([2, 0, 2, 3]), 5)
    assert found.counts.tolist() == [1, 0, 2, 1, 0]
    assert found.sums[0, :3].tolist() == [2, 0, 5]
    assert found.sums[0, 3].isnan()
    assert found.means()[1, [0, 2, 3]].tolist() == [20, 25, 80]
    assert found.means()[:, [1, 4]].isnan().all()


def test_uncertainty_weights_come_to_the_inverse_of_the_loss():
    weights = with_adam(UncertaintyWeights(3), lr=0.02)
    for _ in range(600):
        weights.observe(of_means(0.5, 2.0, 8.0), KEEP)
    torch.testing.assert_close(weights.raw(), torch.tensor([2.0, 0.5, 0.125]), rtol=0.01, atol=0)
    wanted = torch.tensor([2.0, 0.5, 0.125]) / (2.625 / 3)
    torch.testing.assert_close(weights.weights(), wanted, rtol=0.01, atol=0)


def descend_gradnorm(alpha: float, first: tuple[float, ...], then: tuple[float, ...]) -> Tensor:
    """Norms of weighted gradients in the end, where those without weights are 1, 2 and 1 / 2.

    Weights step back and forth there, so it is the mean over some updates.
    """
    weights = with_adam(GradNormWeights(3, alpha), lr=2e-3)
    unweighted = torch.tensor([1.0, 2.0, 0.5])
    weights.observe(of_means(*first), KEEP, weights.weights() * unweighted)
    norms = []
    for _ in range(1000):
        norms.append(weights.weights() * unweighted)
        weights.observe(of_means(*then), KEEP, norms[-1])
    assert weights.weights().mean() == pytest.approx(1.0)
    return torch.stack(norms[-300:]).mean(0)


def test_gradnorm_at_alpha_0_makes_gradients_equally_large():
    norms = descend_gradnorm(0.0, (1.0, 1.0, 1.0), (0.9, 0.5, 0.1))
    torch.testing.assert_close(norms, norms.mean().expand(3), rtol=0.02, atol=0)


def test_gradnorm_favours_the_tasks_that_are_behind_by_the_power_alpha():
    """What is left of the losses is 1, 1/2 and 1, relative to their mean 6/5, 3/5 and 6/5."""
    norms = descend_gradnorm(1.0, (2.0, 4.0, 8.0), (2.0, 2.0, 8.0))
    torch.testing.assert_close(
        norms / norms.mean(), torch.tensor([1.2, 0.6, 1.2]), rtol=0.03, atol=0
    )


def test_dynamic_weight_average_is_its_formula():
    weights = DynamicWeightAverage(3, temperature=2.0, period=2)
    for losses in ((1.0, 2.0, 3.0), (3.0, 2.0, None), (1.0, 1.0, 3.0)):
        weights.observe(of_means(*losses), KEEP)
        assert weights.weights().tolist() == pytest.approx([1, 1, 1])
    weights.observe(of_means(1.0, 1.0, 6.0), KEEP)  # means 2, 2, 3, then 1, 1, 4.5
    wanted = 3 * torch.softmax(torch.tensor([0.5, 0.5, 1.5]) / 2, 0)
    torch.testing.assert_close(weights.weights(), wanted)
    weights.observe(of_means(9.0, 9.0, 9.0), KEEP)  # the next period has just begun
    torch.testing.assert_close(weights.weights(), wanted)


METHODS = {
    "uncertainty": lambda: with_adam(UncertaintyWeights(3), 0.01),
    "gradnorm": lambda: with_adam(GradNormWeights(3, 1.5), 0.01),
    "dwa": lambda: DynamicWeightAverage(3, 2.0, 1),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_skipped_update_teaches_nothing(method):
    weights = METHODS[method]()
    norms = torch.tensor([1.0, 2.0, 3.0])
    for losses in ((1.0, 2.0, 3.0), (0.5, 1.5, 2.9)):
        weights.observe(of_means(*losses), KEEP, norms)
    before = state(weights)
    weights.observe(of_means(torch.nan, 1.0, 2.0), SKIP, norms * torch.nan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(weights).items())
    assert not torch.equal(weights.weights(), torch.ones(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_task_without_windows_weighs_1_and_leaves_the_others_mean_at_1(method):
    weights = METHODS[method]()
    for losses in ((1.0, None, 3.0), (0.5, None, 2.9)):
        weights.observe(of_means(*losses), KEEP, torch.tensor([1.0, 0.0, 3.0]))
    found = weights.weights()
    assert found[1] == 1
    assert found[[0, 2]].mean() == pytest.approx(1.0)
    assert found[0] != found[2]
