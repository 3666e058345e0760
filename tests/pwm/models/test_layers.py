from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pwm.models.layers import (
    Mish,
    NormedLinear,
    OutputLinear,
    SimNorm,
    StackedLinear,
    StackedMLP,
    init_weights,
    mish,
    mlp,
)


def mish_and_gradient(function, x):
    x = x.clone().requires_grad_(True)
    y = function(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_equals_the_built_in_in_value_and_gradient(dtype):
    x = torch.linspace(-25, 25, 20_001, dtype=dtype)
    y, gradient = mish_and_gradient(mish, x)
    wanted, wanted_gradient = mish_and_gradient(F.mish, x)
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(y, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_of_extreme_inputs(dtype):
    x = torch.tensor([-1e30, -1e4, -90.0, 0.0, 29.99, 30.01, 88.0, 89.0, 1e4, 1e30], dtype=dtype)
    y, gradient = mish_and_gradient(mish, x)
    assert torch.equal(y, F.mish(x))
    wanted = torch.tensor([0, 0, 0, 0.6, 1, 1, 1, 1, 1, 1], dtype=dtype)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6)


def test_mish_gradient_by_finite_differences():
    x = torch.tensor([-31.0, -7.0, -1.3, -0.2, 0.0, 0.4, 3.0, 12.0, 40.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(mish, x.requires_grad_(True), atol=1e-8)


def test_mish_keeps_its_input():
    x = torch.linspace(-2, 2, 5)
    before = x.clone()
    mish(x.requires_grad_(True)).sum().backward()
    assert torch.equal(x, before)


def test_mish_refuses_second_derivatives_instead_of_getting_them_wrong():
    x = torch.linspace(-2, 2, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(mish(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_simnorm_gives_a_simplex_a_group():
    x = 5 * torch.randn(4, 3, 24)
    y = SimNorm(8)(x)
    assert y.shape == x.shape
    assert y.min() > 0
    torch.testing.assert_close(y.unflatten(-1, (3, 8)).sum(-1), torch.ones(4, 3, 3))
    torch.testing.assert_close(y[..., 8:16], x[..., 8:16].softmax(-1))


def test_simnorm_groups_do_not_touch_each_other():
    x = torch.randn(16)
    other = x.clone()
    other[8:] += 1 + torch.arange(8)
    y, changed = SimNorm(8)(x), SimNorm(8)(other)
    assert torch.equal(y[:8], changed[:8])
    assert not torch.allclose(y[8:], changed[8:])


def test_normed_linear_is_linear_then_layer_norm_then_activation():
    layer = NormedLinear(5, 7)
    with torch.no_grad():
        layer.ln.weight.uniform_(0.5, 2)
        layer.ln.bias.uniform_(-1, 1)
    x = torch.randn(3, 5)
    linear = x @ layer.weight.T + layer.bias
    centred = linear - linear.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = F.mish(normed * layer.ln.weight + layer.ln.bias)
    torch.testing.assert_close(layer(x), wanted)


def test_mlp_ends_plain_or_with_the_given_activation():
    plain, normed = mlp(3, [4, 5], 8), mlp(3, [4], 8, SimNorm(8))
    assert [type(layer) for layer in plain] == [NormedLinear, NormedLinear, OutputLinear]
    assert [layer.out_features for layer in plain] == [4, 5, 8]
    assert all(isinstance(layer.act, Mish) for layer in plain[:-1])
    torch.testing.assert_close(normed(torch.randn(2, 3)).sum(-1), torch.ones(2))


def randomized(net: nn.Module) -> nn.Module:
    """Weights large enough that layers differ, and LayerNorms that are not the identity."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return net


def separate_mlps(stacked: StackedMLP, hidden: list[int]) -> list[nn.Sequential]:
    """The stack's networks as ordinary MLPs with the same weights."""
    stack, _, inputs = stacked[0].weight.shape
    nets = []
    for n in range(stack):
        net = mlp(inputs, hidden, stacked[-1].weight.shape[1])
        with torch.no_grad():
            for ours, theirs in zip(net, stacked, strict=True):
                ours.weight.copy_(theirs.weight[n])
                ours.bias.copy_(theirs.bias[n])
                if theirs.ln is not None:
                    ours.ln.weight.copy_(theirs.ln.weight[n])
                    ours.ln.bias.copy_(theirs.ln.bias[n])
        nets.append(net)
    return nets


@pytest.mark.parametrize(("stack", "groups"), [(1, 1), (4, 4), (6, 3), (6, 2), (5, 1)])
@pytest.mark.parametrize("hidden", [[], [7], [7, 5]])
def test_stacked_mlp_equals_separate_mlps(stack, groups, hidden):
    torch.manual_seed(stack)
    stacked = randomized(StackedMLP(stack, 4, hidden, 3))
    x = torch.randn(groups, 9, 4)
    y = stacked(x)
    assert y.shape == (stack, 9, 3)
    for n, net in enumerate(separate_mlps(stacked, hidden)):
        # Group g feeds networks g N/G ... (g+1) N/G - 1.
        torch.testing.assert_close(y[n], net(x[n * groups // stack]), rtol=1e-4, atol=1e-5)


def test_gradients_of_stacked_and_separate_mlps_are_equal():
    torch.manual_seed(0)
    stacked = randomized(StackedMLP(4, 3, [6, 6], 2))
    x = torch.randn(2, 5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(stacked(x).square().sum(), x, retain_graph=False)
    nets = separate_mlps(stacked, [6, 6])
    outputs = torch.stack([net(x[n // 2]) for n, net in enumerate(nets)])
    (wanted,) = torch.autograd.grad(outputs.square().sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-3)


def test_networks_of_a_stack_do_not_share_gradients():
    stacked = randomized(StackedMLP(3, 4, [5], 1))
    stacked(torch.randn(3, 6, 4))[1].sum().backward()
    for parameter in stacked.parameters():
        assert parameter.grad[[0, 2]].eq(0).all()
    assert stacked[0].weight.grad[1].ne(0).any()


def test_dropout_after_the_first_layer_and_in_training_only():
    net = StackedMLP(2, 4, [64, 8], 1, dropout=0.5)
    assert [layer.dropout for layer in net] == [0.5, 0, 0]
    x = torch.randn(2, 3, 4)
    net.eval()
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_dropout_drops_its_share_before_the_layer_norm():
    layer = StackedLinear(1, 4, 10_000, normed=False, dropout=0.3)
    init_weights(layer)
    nn.init.ones_(layer.bias)
    y = layer(torch.zeros(1, 1, 4))
    assert y.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / 0.7))


def test_initialization():
    net = mlp(200, [300], 100)
    net.apply(init_weights)
    stacked = StackedMLP(3, 200, [300], 100)
    for layer in (*net, *stacked):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.weight.mean().item() == pytest.approx(0, abs=1e-3)
        assert layer.bias.eq(0).all()
    assert not torch.equal(stacked[0].weight[0], stacked[0].weight[1])
    embedding = nn.Embedding(50, 40)
    init_weights(embedding)
    assert embedding.weight.abs().max() <= 0.02
    assert embedding.weight.std().item() == pytest.approx(0.02 / 3**0.5, rel=0.1)
