from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.models.layers import Mish, NormedLinear, SimNorm, StackedMLP, mlp
from pwm.runtime.kernels import native
from pwm.runtime.kernels.normed_activation import (
    fast_kernels,
    normed_activation,
    runs_fused,
)

SHAPES = [  # groups, n, networks a group, width, linear biases (0: none), entries of a simplex
    (1, 7, 1, 24, 1, 0),
    (2, 5, 3, 40, 1, 0),
    (1, 9, 2, 48, 1, 8),
    (3, 4, 1, 16, 0, 8),
    (1, 6, 2, 20, 3, 0),
    (1, 90, 1, 513, 1, 0),
]


def problem(shape) -> tuple[list[Tensor], Tensor | None, int]:
    groups, n, each, width, biases, simplex = shape
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(groups, n, each, width, generator=generator) + 1
    weight, bias, linear_bias = torch.randn(3, groups * each, width, generator=generator)
    if biases == 1:
        return [x, weight, bias, linear_bias], None, simplex
    if biases:
        return (
            [x, weight, bias],
            torch.randn(groups * each, biases, width, generator=generator),
            simplex,
        )
    return [x, weight, bias], None, simplex


def plainly(x, weight, bias, linear_bias, simplex) -> Tensor:
    """By the equations, in the precision of the arguments."""
    groups, n, each, width = x.shape
    results = []
    for g in range(groups):
        for e in range(each):
            p, y = g * each + e, x[g, :, e]
            if linear_bias is not None:
                own = linear_bias[p].view(-1, 1, width)
                y = (y.view(len(own), -1, width) + own).view(n, width)
            z = (y - y.mean(-1, keepdim=True)) / (
                y.var(-1, correction=0, keepdim=True) + 1e-5
            ).sqrt()
            z = z * weight[p] + bias[p]
            groups_of = z.unflatten(-1, (-1, simplex)).softmax(-1) if simplex else None
            results.append(F.mish(z) if groups_of is None else groups_of.flatten(-2))
    return torch.stack(results)


def with_gradients(function, tensors, fixed, simplex) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    x, weight, bias, *rest = leaves
    y = function(x, weight, bias, rest[0] if rest else fixed, simplex)
    toward = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return y.detach(), torch.autograd.grad((y * toward).sum(), leaves)


def ours(x, weight, bias, linear_bias, simplex) -> Tensor:
    return normed_activation(x, weight, bias, linear_bias=linear_bias, simplex=simplex)


def assert_as_plainly(found, shape) -> None:
    tensors, fixed, simplex = problem(shape)
    fixed = None if fixed is None else fixed.double()
    wanted = with_gradients(plainly, [t.double() for t in tensors], fixed, simplex)
    assert (found[0] - wanted[0]).norm() < 1e-6 * wanted[0].norm()
    for mine, theirs in zip(found[1], wanted[1], strict=True):
        assert (mine - theirs).norm() < 2e-6 * theirs.norm()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_equations(shape, fused):
    with fast_kernels(fused):
        assert runs_fused(torch.ones(1)) == fused
        found = with_gradients(ours, *problem(shape))
    assert_as_plainly(found, shape)


@pytest.mark.parametrize("simplex", [0, 8])
def test_extreme_inputs(simplex):
    x = torch.tensor([-1e30, -200.0, -88.0, -1.0, 0.0, 1.0, 31.0, 1e4]).view(1, 1, 1, 8)
    weight = torch.full((1, 8), 1e3)
    with fast_kernels():
        y = normed_activation(x, weight, torch.zeros(1, 8), simplex=simplex)
    torch.testing.assert_close(y[0], plainly(x, weight, torch.zeros(1, 8), None, simplex)[0])


def test_what_is_not_finite_stays_so():
    x = torch.randn(1, 3, 1, 8)
    x[0, 1, 0, 2] = torch.nan
    with fast_kernels():
        y = normed_activation(x, torch.ones(1, 8), torch.zeros(1, 8))
    assert y[0].isnan().any(-1).tolist() == [False, True, False]


def test_sums_over_rows_do_not_depend_on_threads():
    tensors, _, _ = problem((1, 700, 2, 64, 1, 0))
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with fast_kernels():
            found.append(with_gradients(ours, tensors, None, 0))
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize("members", [None, [2, 0]])
@pytest.mark.parametrize("shared", [True, False])
def test_stacks_of_networks_run_fused_as_they_do_otherwise(shared, members):
    torch.manual_seed(0)
    net = StackedMLP(3, 5, [16, 8], 2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    chosen = None if members is None else torch.tensor(members)
    if chosen is not None and not shared:
        pytest.skip("networks are chosen of those that share an input")
    x = torch.randn(1 if shared else 3, 6, 5)
    plain = net(x, chosen)
    with fast_kernels():
        fused = net(x, chosen)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(fused.square().sum(), list(net.parameters())),
        torch.autograd.grad(plain.square().sum(), list(net.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_other_activations_and_precisions_keep_torchs_operations():
    x = torch.randn(4, 3)
    with fast_kernels():
        other = NormedLinear(3, 8, torch.nn.ReLU())
        torch.testing.assert_close(
            other(x), F.relu(other.ln(F.linear(x, other.weight, other.bias)))
        )
        double = mlp(3, [8], 8, SimNorm(4)).double()
        torch.testing.assert_close(double(x.double()).sum(-1), torch.full((4,), 2.0).double())
        assert isinstance(double[0].act, Mish)
        with torch.autocast("cpu", torch.bfloat16):
            assert not runs_fused(x)


def compiler_that(tmp_path, line: str) -> str:
    script = tmp_path / "cc"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("line", "reason"),
    [(None, "No such file"), ("echo 'it is broken' >&2; exit 1", "it is broken")],
)
def test_without_a_compiler_that_works_a_warning_and_torchs_operations(
    line, reason, tmp_path, monkeypatch
):
    monkeypatch.setenv("CC", compiler_that(tmp_path, line) if line else "/nonexistent/compiler")
    monkeypatch.setenv("PWM_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=f"fast kernels could not be built.*{reason}") as caught:
        assert native.library.__wrapped__() is None
    assert len(caught) == 1


def test_a_compiler_without_openmp_builds_them_too(tmp_path, monkeypatch):
    refuse = 'case "$*" in *-fopenmp*) exit 1;; esac; exec cc "$@"'
    monkeypatch.setenv("CC", compiler_that(tmp_path, refuse))
    monkeypatch.setenv("PWM_CACHE", str(tmp_path / "cache"))
    assert native.library.__wrapped__() is not None


def test_kernels_are_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PWM_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.library.__wrapped__() is not None
        (built,) = tmp_path.iterdir()
        before = built.stat().st_mtime_ns
        assert native.library.__wrapped__() is not None
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]


TRITON = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
import torch
from pwm.runtime.kernels import native, triton_kernels
torch.manual_seed(0)
for groups, n, each, width, biases, simplex in {shapes}:
    x = 3 * torch.randn(groups, n, each, width)
    weight, bias = torch.randn(2, groups * each, width)
    linear = torch.randn(groups * each, biases, width).squeeze(1) if biases else None
    theirs, *moments = native.forward(x, linear, weight, bias, simplex, 1e-5)
    ours, *kept = triton_kernels.forward(x, linear, weight, bias, simplex, 1e-5, torch.float32)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    toward = torch.randn_like(ours)
    for sums in (False, True):
        given = toward, x, linear, weight, bias
        a = triton_kernels.backward(*given, ours, tuple(kept), simplex, sums)
        b = native.backward(*given, theirs, tuple(moments), simplex, 1e-5, sums)
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-5)
        if sums:
            count = 2 if linear is None or biases > 1 else 3
            torch.testing.assert_close(a[1][:count], b[1][:count], rtol=1e-4, atol=1e-4)
print("equal")
"""


def test_tritons_kernels_in_its_interpreter_give_what_those_in_c_do():
    pytest.importorskip("triton", reason="Triton is not installed")
    script = TRITON.format(shapes=SHAPES[:5])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "equal", result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3000, 1, 1792, 1, 0), (1, 90, 2, 768, 1, 8)])
def test_values_and_gradients_on_a_gpu(shape):
    tensors, fixed, simplex = problem(shape)
    fixed = None if fixed is None else fixed.cuda()
    with fast_kernels():
        y, grads = with_gradients(ours, [t.cuda() for t in tensors], fixed, simplex)
    assert_as_plainly((y.cpu(), [grad.cpu() for grad in grads]), shape)
