from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.models.layers import SimNorm, mlp
from pwm.runtime.acceleration import Acceleration, Accelerator, CapturedFunction
from pwm.runtime.kernels.normed_activation import runs_fused

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "word"), [({"compile": "yes"}, "compile"), ({"precision": "half"}, "precision")]
)
def test_unknown_settings_are_refused_in_a_sentence(changes, word):
    with pytest.raises(PwmError, match=word) as caught:
        Acceleration(**changes).validate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("compile_", "fused"), [("auto", True), ("always", True), ("never", False)]
)
def test_a_cpu_is_exact_by_default_and_fuses_layers_unless_told_not_to(compile_, fused):
    accelerator = Acceleration(compile_).prepare(CPU)
    assert accelerator == Accelerator(CPU, bfloat16=False, fused=fused)
    with accelerator.arithmetic():
        assert runs_fused(torch.ones(1)) == fused
    assert not runs_fused(torch.ones(1))
    assert accelerator.capture(dict) is dict


def test_bfloat16_is_of_matrix_products_alone():
    """What normalizes is float32, and what comes out differs from float32 by little."""
    torch.manual_seed(0)
    net, x = mlp(8, [16], 16, SimNorm(8)), torch.randn(5, 8)
    inputs: list[torch.dtype] = []
    net[0].ln.register_forward_pre_hook(lambda module, given: inputs.append(given[0].dtype))
    with Acceleration("never", precision="bfloat16").prepare(CPU).arithmetic():
        assert (x @ x.T).dtype == torch.bfloat16
        rounded = net(x)
    with Acceleration("never", precision="float32").prepare(CPU).arithmetic():
        exact = net(x)
    assert inputs == [torch.float32, torch.float32]
    assert rounded.dtype == exact.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02


def test_each_group_of_an_optimizer_has_its_own_learning_rate():
    one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = Accelerator(CPU).adam([one], [other], lr=0.5)
    optimizer.param_groups[0]["lr"].fill_(0.0)
    one.grad = other.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(one.detach(), torch.ones(2))
    torch.testing.assert_close(other.detach(), torch.full((2,), 0.5))


class Pair(NamedTuple):
    a: Tensor
    b: Tensor | None


class Replayed:
    """A function as a GPU would replay it: its kernels run again on the tensors of the capture."""

    def __init__(self) -> None:
        self.given: list[tuple[Pair, tuple[Tensor, ...]]] = []
        self.graph_call: tuple[Pair, tuple[Tensor, ...]] | None = None
        self.result: dict[str, Tensor] = {}

    def __call__(self, pair: Pair, rest: tuple[Tensor, ...] = ()) -> dict[str, Tensor]:
        self.given.append((pair, rest))
        self.result = {"sum": self.total(pair, rest)}
        return self.result

    @staticmethod
    def total(pair: Pair, rest: tuple[Tensor, ...]) -> Tensor:
        return pair.a.sum() + sum((x.sum() for x in rest), torch.zeros(()))

    def replay(self) -> None:
        self.result["sum"].copy_(self.total(*self.given[-1]))


@pytest.fixture
def replayed(monkeypatch) -> Replayed:
    function = Replayed()
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: function)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    return function


def test_a_captured_function_gets_its_arguments_types_and_newest_values(replayed):
    captured = Accelerator(torch.device("cuda"), fused=True).capture(replayed)
    assert isinstance(captured, CapturedFunction)
    for value in range(8):
        pair = Pair(torch.full((2,), float(value)), None)
        result = captured(pair, rest=(torch.ones(3), torch.ones(1)))
        assert float(result["sum"]) == 2 * value + 4
    assert len(replayed.given) == CapturedFunction.WARM_UP + 1  # then it was replayed
    assert all(isinstance(pair, Pair) and pair.b is None for pair, _ in replayed.given)


def test_a_captured_function_begins_anew_for_other_shapes_and_other_structures(replayed):
    captured = CapturedFunction(replayed)
    for _ in range(5):
        captured(Pair(torch.ones(2), None))
    calls = len(replayed.given)
    for pair in (Pair(torch.ones(3), None), Pair(torch.ones(3), torch.ones(1))):
        for _ in range(5):
            assert float(captured(pair)["sum"]) == 3
        assert len(replayed.given) == calls + CapturedFunction.WARM_UP + 1
        calls = len(replayed.given)


def test_collectives_may_not_be_captured(replayed):
    accelerator = Accelerator(torch.device("cuda"), fused=True, captures=False)
    assert accelerator.capture(replayed) is replayed
