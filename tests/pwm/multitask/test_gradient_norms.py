from __future__ import annotations

import torch

from pwm.models.layers import NormedLinear, SimNorm
from pwm.multitask.gradient_norms import LayerGradients


def test_norms_from_one_backward_pass_are_those_of_every_tasks_own():
    torch.manual_seed(0)
    layer = NormedLinear(5, 8, SimNorm(4))
    task = torch.tensor([0, 2, 0, 3, 2, 2])
    x, target, weights = torch.randn(6, 5), torch.rand(6, 8), torch.rand(6) + 0.5
    wanted = torch.zeros(4)
    for k in (0, 2, 3):
        own = task == k
        loss = ((layer(x[own]) - target[own]).square().sum(1) * weights[own]).mean()
        wanted[k] = torch.autograd.grad(loss, layer.weight)[0].norm()
    watched = LayerGradients(layer)
    with torch.no_grad():
        layer(x)  # no call that counts
    losses = (layer(x) - target).square().sum(1) * weights
    losses.mean().backward()
    torch.testing.assert_close(watched.norms(task, 4), wanted, rtol=1e-4, atol=1e-7)


def test_parts_of_a_batch_and_ranks_are_put_together():
    torch.manual_seed(0)
    layer = NormedLinear(5, 8, SimNorm(4))
    watched = LayerGradients(layer)
    task = torch.tensor([0, 1, 0, 1])
    x, target = torch.randn(4, 5), torch.rand(4, 8)
    (layer(x) - target).square().sum(1).mean().backward()
    whole = watched.norms(task, 2)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        ((layer(x[part]) - target[part]).square().sum(1).mean() / 2).backward()
    order = torch.tensor([0, 2, 1, 3])
    torch.testing.assert_close(watched.norms(task[order], 2), whole)
