"""Where the time of an update goes: by class of kernel, beside the floor that the machine allows.

``python scripts/profile_update.py --model 5M --batch 128`` prints two Markdown tables, of one
pretraining update with Q and prior and of one extraction iteration, eager; ``--compile always``
profiles them with fused layers. Kernels are told apart by their names and by those of the
operations that called them. What no kernel takes is Python, dispatch and launches. Profiling
slows an update down; its time without is printed besides, with the floor of
``scripts/roofline.py``. Of both the fastest of ``--repeats`` is shown.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.extraction import Iteration
from benchmarks.pretraining import Update
from roofline import Cost, extraction_cost, measure_ceilings, pretraining_cost

from pwm.extraction.config import ActorCriticConfig
from pwm.runtime.acceleration import COMPILE, PRECISIONS, Acceleration

# The first that matches a kernel, or what called it, is its class.
CLASSES = {
    "optimizer": r"Optimizer\.step|[aA]dam|foreach|multi_tensor|vector_norm|lpnorm|masked_fill_",
    "matrix products": r"::(mm|addmm|bmm|baddbmm|mv|addmv)\b|gemm|gemv|cutlass|nvjet|xmma|splitK",
    "normalization, activation": r"layer_norm|LayerNorm|[mM]ish|addcmul|[nN]ormed_?[aA]ctivation",
    "softmax, losses": r"soft[mM]ax|mse_loss|scatter|log1p|expm1|sign|floor|sort|entropy",
    "copies, cat, stack, gathers": r"copy|[cC]at|stack|clone|fill|zero|index|embed|Mem(cpy|set)",
    "other elementwise, sums": "",
}
_WARM_UP = 4  # builds kernels, and captures on a GPU
REST = "Python, dispatch, launches"
# Operations that compute nothing, and containers: their own time is dispatch.
_NO_KERNEL = re.compile(
    r"::(view|_?reshape\w*|as_strided|t|transpose|permute|expand\w*|empty\w*|new_empty|detach\w*|"
    r"slice|narrow|select|unbind|chunk|split\w*|tensor_split|unflatten|flatten|squeeze|unsqueeze|"
    r"alias|resolve_\w+|result_type|promote_types|item|_local_scalar_dense|to|_to_copy|contiguous|"
    r"linear|matmul|layer_norm|softmax|log_softmax|_unsafe_view|lift_fresh|is_nonzero|resize_)$"
)
_KERNEL = re.compile(r"^(?!autograd)\w+::\w+$|^_NormedActivation")


@dataclass(frozen=True)
class Spent:
    """Where one update's time went.

    Attributes:
        ms: milliseconds of each class of kernel.
        kernels: how many ran.
        wall_ms: the whole update, profiled.
    """

    ms: dict[str, float]
    kernels: dict[str, int]
    wall_ms: float

    @property
    def rest_ms(self) -> float:
        """Milliseconds in which no kernel ran."""
        return self.wall_ms - sum(self.ms.values())


def spent(update: Callable[[], object], device: torch.device) -> Spent:
    """Profile one update, which ran before."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as profiler:
        wall_ms = timed(update, device)
    ms, kernels = dict.fromkeys(CLASSES, 0.0), dict.fromkeys(CLASSES, 0)
    for name, taken_ms in _kernels(profiler.events(), on_gpu):
        ms[name] += taken_ms
        kernels[name] += 1
    return Spent(ms, kernels, wall_ms)


def timed(update: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one update."""
    started = time.perf_counter()
    update()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) * 1e3


def _kernels(events: list[FunctionEvent], on_gpu: bool) -> Iterator[tuple[str, float]]:
    """Class and own milliseconds of every kernel."""
    for event in events:
        if on_gpu:
            if event.device_type == DeviceType.CUDA:
                yield kernel_class(event.name), event.time_range.elapsed_us() / 1e3
        elif _KERNEL.search(event.name) and not _NO_KERNEL.search(event.name):
            yield kernel_class(_with_callers(event)), event.self_cpu_time_total / 1e3


def _with_callers(event: FunctionEvent) -> str:
    names = []
    caller: FunctionEvent | None = event
    while caller is not None:
        names.append(caller.name)
        caller = caller.cpu_parent
    return "\n".join(names)


@cache
def kernel_class(names: str) -> str:
    """The class of a kernel by its name and, each on a line, those of its callers."""
    return next(name for name, pattern in CLASSES.items() if re.search(pattern, names))


def table(title: str, result: Spent) -> str:
    """A Markdown table with a row for each class."""
    rows = [(name, result.ms[name], str(result.kernels[name])) for name in result.ms]
    rows += [(REST, result.rest_ms, ""), ("**all, profiled**", result.wall_ms, "")]
    lines = [f"| {title} | ms | % | kernels |", "| --- " * 4 + "|"]
    for name, ms, count in rows:
        lines.append(f"| {name} | {ms:.1f} | {100 * ms / result.wall_ms:.0f} | {count} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """An update to profile, and what it needs at least."""

    title: str
    update: Callable[[], object]
    cost: Cost


def works(given: argparse.Namespace) -> Iterator[Work]:
    """What the command line asks for, made one after the other."""
    how = Acceleration(given.compile, given.precision)
    size = f"{given.model}, batch {given.batch}, H 16, {given.device}, compile={given.compile}"
    if given.only in ("pretraining", None):
        update = Update(given.model, given.batch, True, how, given.device)
        cost = pretraining_cost(given.model, given.batch, 16, q_and_prior=True)
        yield Work(f"pretraining with Q and prior, {size}", update, cost)
    if given.only in ("extraction", None):
        config = ActorCriticConfig(batch_size=given.batch)
        iteration = Iteration(given.model, given.tasks, config, how, given.device)
        cost = extraction_cost(given.model, config, given.tasks)
        yield Work(f"extraction, {given.tasks} tasks, {size}", iteration, cost)


def main(words: list[str] | None = None) -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="5M")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--tasks", type=int, default=1, help="of an extraction iteration")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", default="never", choices=COMPILE)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--only", choices=("pretraining", "extraction"))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(words)
    device = torch.device(given.device)
    ceilings = measure_ceilings(device)
    rate = ceilings.rates.get(given.precision, ceilings.float32)
    for work in works(given):
        for _ in range(_WARM_UP):
            work.update()
        alone_ms = min(timed(work.update, device) for _ in range(given.repeats))
        profiled = [spent(work.update, device) for _ in range(given.repeats)]
        print(table(work.title, min(profiled, key=lambda result: result.wall_ms)))
        floor_ms = work.cost.floor_ms(rate, ceilings.copy)
        print(
            f"\n{alone_ms:.1f} ms without the profiler, {alone_ms / floor_ms:.1f} times the floor"
        )
        gflop, speed = work.cost.flops / 1e9, rate / 1e9
        print(f"of {floor_ms:.1f} ms: {gflop:.1f} GFLOP at the measured {speed:.0f} GFLOP/s.\n")


if __name__ == "__main__":
    main()
