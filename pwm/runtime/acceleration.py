"""How a loop's arithmetic runs: compiled or eager, in which precision; models do without it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pwm.core.validation import require_choice
from pwm.runtime.kernels.normed_activation import fast_kernels, has_kernels
from pwm.runtime.processor import warn_without_bfloat16

P = ParamSpec("P")
R = TypeVar("R")

Metrics = dict[str, Tensor]
"""What an update reports, by name: tensors on the device."""

COMPILE = ("auto", "always", "never")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")


class CapturedFunction(Generic[P, R]):
    """A function of tensors replayed as a CUDA graph: one launch in place of some thousand.

    The first calls are real work: they build kernels and fill caches, on a side stream as capturing
    demands. Then the function is captured and replayed from there on; arguments of other shapes
    than before begin anew.

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
            gc.collect()  # a graph that is freed while another is captured would spoil it
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
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
        compile: run the layers as fused kernels (:mod:`pwm.runtime.kernels`), and on a GPU whole
            updates as CUDA graphs; ``auto`` does so where it can.
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
        if precision == "bfloat16":
            warn_without_bfloat16(device)
        exact = precision == "float32" or device.type != "cuda"
        torch.set_float32_matmul_precision("highest" if exact else "high")
        fused = self.compile != "never" and has_kernels(device.type)
        return Accelerator(device, bfloat16=precision == "bfloat16", fused=fused)


@dataclass(frozen=True)
class Accelerator:
    """:class:`Acceleration` on a device.

    Attributes:
        bfloat16: whether matrix products run in it.
        fused: whether layers run as fused kernels.
        captures: whether :meth:`capture` may.
    """

    device: torch.device
    bfloat16: bool = False
    fused: bool = False
    captures: bool = True

    @property
    def replays(self) -> bool:
        """Whether :meth:`capture` gives a CUDA graph."""
        return self.fused and self.captures and self.device.type == "cuda"

    def capture(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function replayed as a CUDA graph, where kernels are fused and there is a GPU.

        Its arguments are tensors whose shapes never change, in NamedTuples, tuples and the like,
        and it reads and writes all other state in place; what it returns is overwritten by the next
        call.
        """
        return CapturedFunction(function) if self.replays else function

    def adam(self, *groups: Iterable[nn.Parameter], lr: float, **options: Any) -> torch.optim.Adam:
        """Adam as one kernel, each group with a learning rate of its own to be set by ``fill_``."""
        described = [
            {"params": list(group), "lr": torch.tensor(lr, device=self.device)} for group in groups
        ]
        on_gpu = self.device.type == "cuda"
        return torch.optim.Adam(described, fused=True, capturable=on_gpu, **options)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Where matrix products run in bfloat16 and layers as fused kernels, if they are to.

        For forward passes: backward, each product runs in what it ran in forward by itself, and
        autocast would round those that were kept in float32.
        """
        rounding = (
            torch.autocast(self.device.type, dtype=torch.bfloat16)
            if self.bfloat16
            else nullcontext()
        )
        with rounding, fast_kernels(self.fused):
            yield
