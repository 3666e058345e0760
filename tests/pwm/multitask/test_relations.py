"""Gradients whose angles and sizes are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pwm.multitask.relations import magnitude_similarity, products, relations, relative_gains


def test_cosines_and_norms_of_quadratic_losses():
    """Task k's loss is |w - c_k|^2 / 2 of w = 0, whose gradient is -c_k in every part."""
    centres = torch.tensor([[2.0, 0.0], [3.0, 3.0], [-1.0, 0.0]])
    w = torch.zeros(2, requires_grad=True)
    losses = [(w - c).square().sum() / 2 for c in centres]
    rows = torch.stack([torch.autograd.grad(loss, w)[0] for loss in losses])
    found = relations(products(rows.unsqueeze(1).repeat(1, 4, 1)))
    half = 0.5**0.5
    wanted = [[1.0, half, -1.0], [half, 1.0, -half], [-1.0, -half, 1.0]]
    assert found.cosine == pytest.approx(np.array(wanted))
    assert found.norm == pytest.approx([2.0, 18**0.5, 1.0])
    assert found.deviation == pytest.approx(np.zeros((3, 3)), abs=1e-12)
    assert found.agreement == pytest.approx(np.ones(3))


def test_products_of_layers_add_up_to_those_of_the_whole():
    torch.manual_seed(0)
    rows = torch.randn(3, 4, 10)
    apart = products(rows[..., :7]) + products(rows[..., 7:])
    assert apart == pytest.approx(products(rows))
    mean = rows.mean(1).double()
    cosine = torch.nn.functional.cosine_similarity(mean[:, None], mean[None], dim=-1)
    assert relations(apart).cosine == pytest.approx(cosine.numpy())


def test_the_standard_error_of_a_cosine_is_its_spread_over_draws():
    torch.manual_seed(0)
    direction = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0]]).unsqueeze(1)
    found = [relations(products(direction + 0.3 * torch.randn(2, 8, 4))) for _ in range(300)]
    spread = np.std([each.cosine[0, 1] for each in found])
    assert np.mean([each.deviation[0, 1] for each in found]) == pytest.approx(spread, rel=0.25)


def test_halves_of_noise_do_not_agree_and_a_gradient_of_zero_has_no_angle():
    torch.manual_seed(0)
    rows = torch.randn(3, 4, 2000)
    rows[2] = 0
    found = relations(products(rows))
    assert abs(found.agreement[:2]).max() < 0.1
    assert found.cosine[2].tolist() == [0.0, 0.0, 1.0]
    assert np.isfinite(found.deviation).all()
    assert found.norm[2] == found.agreement[2] == 0


def test_similarity_of_sizes():
    found = magnitude_similarity(np.array([1.0, 1.0, 3.0, 0.0]))
    assert found[0] == pytest.approx([1.0, 1.0, 0.6, 0.0])
    assert found[3, 3] == 1.0


def test_gains_are_relative_and_their_errors_of_paired_windows():
    before = np.array([[4.0, 6.0], [2.0, 2.0]])
    gain, error = relative_gains(before, np.array([[3.0, 5.0], [2.0, 3.0]]))
    assert gain == pytest.approx([0.2, -0.25])
    assert error == pytest.approx([0.0, 0.25])
