"""What checks say and measure with."""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

DEVICE = os.environ.get("CHECK_DEVICE", "cuda")
TINY = os.environ.get("CHECK_TINY") == "1"  # a rehearsal: small sizes, nothing compiled
_PRODUCTS = ("gemm", "cutlass", "nvjet", "xmma")  # in the names of kernels


def say(name: str, fact: Any) -> None:
    """Hand a fact to the driver at once."""
    line = json.dumps({name: fact}, default=str)
    with open(os.environ["CHECK_FACTS"], "a") as stream:
        stream.write(line + "\n")


def claim(name: str, holds: object, **facts: Any) -> None:
    """Say whether a statement holds; one that does not fails the check, and the rest still runs."""
    say(name, {"holds": bool(holds), **facts})


@contextmanager
def part(name: str) -> Iterator[None]:
    """A part of a check whose error is said and does not keep the next part from running."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        say(name, {"error": f"{type(error).__name__}: {error}"[:600], **memory()})


def synchronize() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def first_calls(function: Callable[[], object], calls: int = 5) -> dict[str, float]:
    """Seconds until the first result, and until the function is captured and replayed."""
    start = time.perf_counter()
    function()
    synchronize()
    first = time.perf_counter() - start
    for _ in range(calls - 1):
        function()
    synchronize()
    return {"first_s": round(first, 1), "ready_s": round(time.perf_counter() - start, 1)}


def timed(function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median, least and largest milliseconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    middle = statistics.median(times)
    return {"ms": round(middle, 3), "min": round(min(times), 3), "max": round(max(times), 3)}


def memory() -> dict[str, float]:
    """The most that was in use since :func:`forget`, in GB."""
    if DEVICE != "cuda":
        return {}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


def forget() -> None:
    """Free what is no longer used, and begin to count memory anew."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def kernels(function: Callable[[], object], most: int = 16) -> dict[str, Any]:
    """How many kernels a call launches, and which take how many milliseconds."""
    if DEVICE != "cuda":
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        function()
        torch.cuda.synchronize()
    found = [(e.key[:90], e.count, e.self_device_time_total / 1e3) for e in recorded.key_averages()]
    found.sort(key=lambda row: -row[2])
    products = [row for row in found if any(word in row[0].lower() for word in _PRODUCTS)]
    return {
        "count": sum(count for _, count, _ in found),
        "gpu_ms": round(sum(ms for *_, ms in found), 3),
        "products_ms": round(sum(ms for *_, ms in products), 3),
        "top": [(name, count, round(ms, 3)) for name, count, ms in found[:most]],
    }


def weights(*modules: nn.Module) -> list[torch.Tensor]:
    """Copies on the CPU."""
    return [p.detach().float().cpu().clone() for module in modules for p in module.parameters()]


def apart(
    ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], begun: Sequence[torch.Tensor]
) -> float:
    """How far two sets of weights are from each other, in units of how far they have moved."""
    moved = sum(float((b - s).double().square().sum()) for b, s in zip(theirs, begun, strict=True))
    differ = sum(float((a - b).double().square().sum()) for a, b in zip(ours, theirs, strict=True))
    return (differ / max(moved, 1e-30)) ** 0.5
