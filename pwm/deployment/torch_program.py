"""Networks as exported programs of torch, and as packages compiled by AOTInductor."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.deployment.network import Network


class Program(nn.Module):
    """A network in operators that export and compile as they stand.

    Args:
        network: what it computes.
        dtype: of inputs, constants and output.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._network, self._dtype = network, dtype
        for number, given in enumerate(network.inputs):
            for name in ("period", "mean", "scale"):
                self._keep(f"{name}{number}", getattr(given, name))
        for number, layer in enumerate(network.layers):
            self._keep(f"weight{number}", layer.weight)
            self._keep(f"bias{number}", layer.bias)
            norm = layer.norm or (None, None)
            self._keep(f"norm_scale{number}", norm[0])
            self._keep(f"norm_shift{number}", norm[1])
        low, high = network.bounds or (None, None)
        self._keep("low", low)
        self._keep("high", high)
        self._keep("bins", network.bins)

    def _keep(self, name: str, array: np.ndarray | None) -> None:
        if array is not None:  # torch 2.13 cannot export a buffer that is None
            self.register_buffer(name, torch.tensor(array, dtype=self._dtype))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (batch, size) to (batch, outputs)."""
        parts = [self._normalized(x, number) for number, x in enumerate(inputs)]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        for number in range(len(self._network.layers)):
            x = self._layer(x, number)
        return self._headed(x)

    def _normalized(self, x: Tensor, number: int) -> Tensor:
        given, own = self._network.inputs[number], self.get_buffer
        if given.period is not None:
            period = own(f"period{number}")
            x = x - period * (x / period.clip(1)).round()
        if given.mean is not None:
            x = x - own(f"mean{number}")
        return x if given.scale is None else x / own(f"scale{number}")

    def _layer(self, x: Tensor, number: int) -> Tensor:
        layer, own = self._network.layers[number], self.get_buffer
        x = F.linear(x, own(f"weight{number}"), own(f"bias{number}"))
        if layer.norm is None:
            return x
        scale, shift = own(f"norm_scale{number}"), own(f"norm_shift{number}")
        x = F.layer_norm(x, x.shape[-1:], scale, shift)
        if layer.simplex:
            return x.unflatten(-1, (-1, layer.simplex)).softmax(-1).flatten(-2)
        e = x.clamp(max=30.0).exp()
        n = (e + 2) * e
        return x * (n / (n + 2))

    def _headed(self, x: Tensor) -> Tensor:
        head = self._network.head
        if head == "reward":
            symlog = (x.softmax(-1) * self.get_buffer("bins")).sum(-1, keepdim=True)
            return symlog.sign() * symlog.abs().expm1()
        if head == "continuation":
            return torch.sigmoid(-x)
        if head == "action":
            x = torch.tanh(x)
            if self._network.bounds is not None:
                low, high = self.get_buffer("low"), self.get_buffer("high")
                x = torch.clamp((low + high) / 2 + x * ((high - low) / 2), low, high)
        return x


@torch.no_grad()
def _exported(network: Network) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    inputs = tuple(torch.zeros(2, given.size) for given in network.inputs)
    return torch.export.export(
        Program(network), inputs, dynamic_shapes=(tuple({0: batch} for _ in inputs),)
    )


def write_program(network: Network, facts: Mapping[str, str], path: Path) -> None:
    """Write a program that ``torch.export.load`` opens, with facts among its extra files."""
    torch.export.save(_exported(network), path, extra_files=dict(facts))


def open_program(path: Path) -> Callable[..., np.ndarray]:
    """What an exported program computes."""
    return _on_arrays(torch.export.load(path).module())


def program_in_float64(network: Network) -> Callable[..., np.ndarray]:
    """What the program computes in float64, before it is exported."""
    return _on_arrays(Program(network, torch.float64))


def require_compiler() -> None:
    """Raise PwmError if there is no C++ compiler, which AOTInductor needs."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise PwmError(
            f"to=executable needs a C++ compiler, and there is no {compiler}; install one, name "
            "it in the environment variable CXX, or deploy to=torch."
        )


def write_executable(network: Network, facts: Mapping[str, str], path: Path) -> None:
    """Write a package of machine code that ``torch._inductor.aoti_load_package`` opens."""
    from torch._inductor import aoti_compile_and_package

    require_compiler()
    options: dict[str, Any] = {"aot_inductor.metadata": dict(facts)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about its own code
            aoti_compile_and_package(
                _exported(network), package_path=str(path), inductor_configs=options
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PwmError(
            f"AOTInductor could not compile this ({reason:.200}); deploy to=torch, or check that "
            "the C++ compiler works."
        ) from error


def open_executable(path: Path) -> Callable[..., np.ndarray]:
    """What a compiled package computes."""
    from torch._inductor import aoti_load_package

    return _on_arrays(aoti_load_package(str(path)))


def _on_arrays(function: Callable[..., Tensor]) -> Callable[..., np.ndarray]:
    @torch.inference_mode()
    def run(*inputs: np.ndarray) -> np.ndarray:
        return function(*map(torch.from_numpy, inputs)).numpy()

    return run
