"""Time goes to the class of what took it, and the classes with the rest make up the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from benchmarks.extraction import Iteration
from benchmarks.pretraining import Update
from benchmarks.rows import EAGER
from profile_update import CLASSES, REST, kernel_class, spent, table
from torch import nn

from pwm.extraction.config import ActorCriticConfig
from pwm.models.layers import mish

CPU = torch.device("cpu")
X = torch.randn(64, 64)
OPTIMIZER, PRODUCTS, NORM, LOSSES, COPIES, OTHER = CLASSES


def adam_step() -> Callable[[], object]:
    weight = nn.Parameter(X.clone())
    weight.grad = X.clone()
    return torch.optim.Adam([weight], fused=True).step


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: X @ X, PRODUCTS),
        (lambda: F.linear(X, X, X[0]), PRODUCTS),
        (lambda: mish(X), NORM),
        (lambda: F.layer_norm(X, (64,), X[0], X[1]), NORM),
        (lambda: X.log_softmax(-1), LOSSES),
        (lambda: torch.stack([X, X]), COPIES),
        (lambda: X.t().contiguous(), COPIES),
        (lambda: X + X, OTHER),
        (adam_step(), OPTIMIZER),
    ],
)
def test_a_function_s_time_goes_to_its_class_alone(function, expected):
    function()
    result = spent(function, CPU)
    assert [name for name, ms in result.ms.items() if ms > 0] == [expected]
    assert 0 < result.ms[expected] < result.wall_ms


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("graph_2_cpp_fused__softmax_native_layer_norm_view_7", NORM),
        ("graph_0_cpp_fused__log_softmax_mul_sum_1", LOSSES),
        ("graph_0_cpp_fused_cat_0", COPIES),
        ("triton_per_fused_add_mul_3", OTHER),
        ("sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32", PRODUCTS),
        ("void at::native::elementwise_kernel<direct_copy_kernel_cuda>", COPIES),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", OPTIMIZER),
    ],
)
def test_compiled_and_gpu_kernels_are_told_apart_by_name(name, expected):
    assert kernel_class(name) == expected


@pytest.mark.parametrize("kind", ["pretraining", "extraction"])
def test_the_rows_of_an_update_make_up_the_whole(kind):
    update: Callable[[], object] = (
        Update("tiny", 2, True, EAGER, "cpu")
        if kind == "pretraining"
        else Iteration("tiny", 1, ActorCriticConfig(batch_size=4, horizon=2), EAGER, "cpu")
    )
    update()
    result = spent(update, CPU)
    assert all(result.ms[name] > 0 and result.kernels[name] > 0 for name in CLASSES)
    assert 0 < result.rest_ms < result.wall_ms
    rows = [line.split(" | ") for line in table(kind, result).splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == [*CLASSES, REST, "**all, profiled**"]
    *parts, whole = (float(row[1]) for row in rows)
    assert sum(parts) == pytest.approx(whole, abs=0.4)
