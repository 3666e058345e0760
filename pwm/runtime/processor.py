"""What a machine's processor can do, and what makes training on it slow; said once a process."""

from __future__ import annotations

import os
import warnings
from functools import cache

import torch

from pwm.core.progress import console

_BUSY = 2.0  # programs that want to run for each core


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16; without, it takes hundreds of times longer."""
    if device.type == "cuda":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def slow_bfloat16(device: torch.device) -> str | None:
    """A sentence that says that ``precision=bfloat16`` will be slow, where it will."""
    if computes_bfloat16(device):
        return None
    return (
        "this processor has no bfloat16 instructions, and precision=bfloat16 is many times slower "
        "on it than precision=float32; leave precision out."
    )


@cache
def warn_without_bfloat16(device: torch.device) -> None:
    """Warn that ``precision=bfloat16`` will be slow, where it will."""
    if sentence := slow_bfloat16(device):
        warnings.warn(sentence, stacklevel=3)


def waiting_threads(device: torch.device) -> str | None:
    """A sentence where other programs keep the cores busy, so that torch's threads would wait.

    Two threads that share a product wait for the slower one. If other programs take turns on its
    core, one thread alone is several times faster than two.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if device.type != "cpu" or threads == 1 or load <= _BUSY * cores:
        return None
    return (
        f"Other programs keep this machine busy (load {load:.1f} on {cores} cores), so torch's "
        f"{threads} threads wait for each other; OMP_NUM_THREADS=1 may be much faster."
    )


@cache
def say_if_busy(device: torch.device) -> None:
    """Say once what :func:`waiting_threads` finds."""
    if sentence := waiting_threads(device):
        console.print(sentence, soft_wrap=True)
