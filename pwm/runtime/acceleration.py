"""How a loop's arithmetic runs: compiled or eager, in which precision; models do without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pwm.core.validation import require_choice

P = ParamSpec("P")
R = TypeVar("R")

Metrics = dict[str, Tensor]
"""What an update reports, by name: tensors on the device."""

COMPILE = ("auto", "always", "never")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")


class CapturedFunction(Generic[P, R]):
    """A function of tensors replayed as a CUDA graph: one launch in place of some thousand.

    The first calls are real work: they compile what is to be compiled and fill caches, on a side
    stream as capturing demands. Then the function is captured and replayed from there on; arguments
    of other shapes than before begin anew.

    Args:
        function: reads and writes its state in place, and returns tensors that the next call
            overwrites. Its arguments are pytrees: NamedTuples, tuples, lists and dicts of tensors.
    """

    WARM_UP = 3

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()
        self._signature: object = None
        self._calls = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: list[Any] = []
        self._result: R

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """One call of the function."""
        leaves, structure = tree_flatten((args, kwargs))
        signature = (structure, [x.shape if isinstance(x, Tensor) else x for x in leaves])
        if signature != self._signature:
            self._signature, self._calls = signature, 0
        self._calls += 1
        if self._calls <= self.WARM_UP:
            return self._on_side_stream(*args, **kwargs)
        if self._calls == self.WARM_UP + 1:
            self._inputs = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
            static_args, static_kwargs = tree_unflatten(self._inputs, structure)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self._function(*static_args, **static_kwargs)
        for static, given in zip(self._inputs, leaves, strict=True):
            if isinstance(static, Tensor):
                static.copy_(given)
        self._graph.replay()
        return self._result

    def _on_side_stream(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._function(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result


@dataclass
class Acceleration:
    """Settings that change speed and rounding, and nothing else.

    Attributes:
        compile: run the inner functions under torch.compile; ``auto`` does so on a GPU.
        precision: of matrix products. ``float32`` is exact; ``tf32`` lets a GPU round their inputs
            to 10 bits of mantissa (a CPU computes in float32); in ``bfloat16`` they run in that,
            while normalization, softmax, the decoding of values from bins, sums of losses and
            rewards, a critic's output layer, weights, their gradients and optimizer stay in
            float32. ``auto`` is bfloat16 on a GPU and float32 on a CPU.
    """

    compile: str = "auto"
    precision: str = "auto"

    def validate(self) -> None:
        """Raise PwmError for values that mean nothing."""
        require_choice(self, "compile", COMPILE)
        require_choice(self, "precision", PRECISIONS)

    def prepare(self, device: torch.device) -> Accelerator:
        """What the settings come to on a device; sets torch's precision of matrix products."""
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if device.type == "cuda" else "float32"
        exact = precision == "float32" or device.type != "cuda"
        torch.set_float32_matmul_precision("highest" if exact else "high")
        wanted = self.compile == "always" or (self.compile == "auto" and device.type == "cuda")
        return Accelerator(
            device, bfloat16=precision == "bfloat16", compiles=wanted and can_compile(device.type)
        )


@dataclass(frozen=True)
class Accelerator:
    """:class:`Acceleration` on a device.

    Attributes:
        bfloat16: whether :meth:`autocast` changes anything.
        compiles: whether :meth:`compile` does.
        captures: whether :meth:`capture` may.
    """

    device: torch.device
    bfloat16: bool = False
    compiles: bool = False
    captures: bool = True

    def compile(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function under torch.compile, for inputs of one shape, or as it is.

        Its backward pass is compiled for a call outside of :meth:`autocast`, where its forward pass
        is called.
        """
        if not self.compiles:
            return function
        torch._functorch.config.backward_pass_autocast = "off"
        return torch.compile(function, dynamic=False)

    def capture(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function replayed as a CUDA graph, where compiling is on and there is a GPU.

        Its arguments are tensors whose shapes never change, in NamedTuples, tuples and the like,
        and it reads and writes all other state in place; what it returns is overwritten by the next
        call.
        """
        if not (self.compiles and self.captures) or self.device.type != "cuda":
            return function
        return CapturedFunction(function)

    def adam(self, *groups: Iterable[nn.Parameter], lr: float, **options: Any) -> torch.optim.Adam:
        """Adam as one kernel, each group with a learning rate of its own to be set by ``fill_``."""
        described = [
            {"params": list(group), "lr": torch.tensor(lr, device=self.device)} for group in groups
        ]
        on_gpu = self.device.type == "cuda"
        return torch.optim.Adam(described, fused=True, capturable=on_gpu, **options)

    def autocast(self) -> AbstractContextManager[object]:
        """Where matrix products run in bfloat16.

        For forward passes: backward, each product runs in what it ran in forward by itself, and
        autocast would round those that were kept in float32.
        """
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works here, found by compiling a small layer forward and backward.

    Warns, once, with the reason if it does not: a C++ compiler is missing, or Triton.
    """
    x = torch.ones(4, 8, device=device)
    weight = torch.ones(8, 8, device=device, requires_grad=True)
    layer = torch.compile(lambda x, w: F.mish(F.layer_norm(x @ w, (8,))).sum(), dynamic=False)
    try:
        torch.autograd.grad(layer(x, weight), weight)
    except Exception as error:  # whatever the tool chain raises means the same to us
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(f"torch.compile does not work here, going on eagerly: {reason}", stacklevel=2)
        return False
    return True
