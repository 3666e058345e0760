"""Where a loop runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pwm.core.errors import PwmError


def resolve_device(name: str) -> torch.device:
    """What torch calls a device, or ``auto``: a GPU if there is one; raises PwmError for others."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PwmError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:1.") from error
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PwmError(
            f"device={name} was asked for, but torch cannot compute there; use device=cpu or auto."
        ) from error
    return device


def use_device(name: str) -> torch.device:
    """:func:`resolve_device`, and where it names one of several GPUs, make that the current one.

    Streams and graphs are made on the current GPU, wherever their tensors are.
    """
    device = resolve_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def free_memory() -> int:
    """Bytes that can be had without swapping, on Linux; elsewhere half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * kibibytes["MemAvailable"]


def require_room(build: Callable[[], nn.Module]) -> None:
    """Raise PwmError for a module whose weights alone exceed the free memory, before it is made.

    ``build`` makes it; it is called on torch's meta device, where nothing takes memory.
    """
    with torch.device("meta"):
        bytes_ = sum(p.numel() * p.element_size() for p in build().parameters())
    if bytes_ > (free := free_memory()):
        raise PwmError(
            "there is not enough memory for this model: its weights alone take "
            f"{bytes_ / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free; choose a smaller "
            "one."
        )
