"""Measure what ranks cost: the same work a rank, by one rank alone and by several together.

``python scripts/weak_scaling.py`` starts two ranks on CPUs under torchrun; ``--ranks 1`` compares
one rank under torchrun with the plain loop; ``--device cuda`` measures GPUs, one a rank. Prints a
Markdown table of medians over repeats in turns:

- alone: an update by one process while the others wait;
- side by side: every process makes its own updates, and none hears of another;
- ddp, fsdp: all train one model.

Efficiency is alone / together, the median of every repeat's. What side by side takes longer than
alone is contention for memory and caches; what together takes longer than side by side is
communication, and waiting for each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from roofline import model_size, random_batch, trained_numbers

from pwm.core.suites import get_suite
from pwm.models.world_model import WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.parallel_learner import ParallelLearner
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.distributed import Ranks

HEADER = (
    "model", "windows a rank", "gradients, MB", "alone, ms", "side by side, ms", "ddp, ms",
    "fsdp, ms", "efficiency, ddp", "efficiency, fsdp", "communication, ddp",
    "efficiency of repeats, ddp",
)  # fmt: skip
_SAMPLE_SECONDS = 0.5


class Update:
    """Updates of a model of MT80 by this rank, alone or with the others, on a batch of noise."""

    def __init__(self, parallel: str | None, given: argparse.Namespace, model: str) -> None:
        torch.manual_seed(0)
        alone, size = parallel is None, dist.get_world_size()
        self._ranks = Ranks() if alone else Ranks(dist.get_rank(), size, parallel)
        device = torch.device(given.device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        suite = get_suite("mt80")
        world_model = WorldModel(model_size(model), suite, given.q_and_prior)
        self.megabytes = 4e-6 * trained_numbers(world_model)
        discount = torch.tensor([task.discount for task in suite], device=device)
        accelerator = Acceleration(given.compile, given.precision).prepare(device)
        config = LearnerConfig()
        self._learner = (
            WorldModelLearner(world_model.to(device), config, discount, accelerator)
            if alone
            else ParallelLearner(
                world_model if parallel == "fsdp" else world_model.to(device),
                config, discount, accelerator, self._ranks, passes=1, seed=0,
            )
        )  # fmt: skip
        self._batch = random_batch(suite, given.horizon, given.batch, device)

    def seconds(self, updates: int, everyone: bool = True) -> float:
        """Of an update, the mean over some; all ranks begin together, and the last one counts."""
        dist.barrier()
        start = time.perf_counter()
        if everyone or dist.get_rank() == 0:
            for step in range(updates):
                self._learner.set_learning_rate(step)
                self._learner.update(self._batch)
                self._ranks.any_stop_signal(None)  # as the loop does after every update
            if self._batch.obs.is_cuda:
                torch.cuda.synchronize(self._batch.obs.device)
        taken = torch.tensor((time.perf_counter() - start) / updates)
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        return float(taken)


def measure(model: str, given: argparse.Namespace) -> list[str]:
    """The cells of a model's line."""
    several = dist.get_world_size() > 1
    plain = Update(None, given, model)
    ddp, fsdp = (Update(parallel, given, model) for parallel in ("ddp", "fsdp"))
    candidates: dict[str, Callable[[int], float]] = {
        "alone": lambda updates: plain.seconds(updates, everyone=False),
        "ddp": ddp.seconds,
        "fsdp": fsdp.seconds,
    }
    if several:
        candidates["side by side"] = plain.seconds
    for one in candidates.values():
        one(5)  # compiles, allocates, captures
    updates = max(1, round(_SAMPLE_SECONDS / candidates["alone"](2)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(given.repeats):
        for name in sorted(candidates, reverse=bool(repeat % 2)):
            times[name].append(1e3 * candidates[name](updates))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    side = median.get("side by side")
    shares = [1 - a / b for a, b in zip(times.get("side by side", ()), times["ddp"], strict=False)]
    ddp, fsdp = (
        sorted(a / b for a, b in zip(times["alone"], times[name], strict=True))
        for name in ("ddp", "fsdp")
    )
    return [
        model, str(given.batch), f"{plain.megabytes:.1f}", f"{median['alone']:.1f}",
        "-" if side is None else f"{side:.1f}", f"{median['ddp']:.1f}", f"{median['fsdp']:.1f}",
        f"{100 * statistics.median(ddp):.0f} %", f"{100 * statistics.median(fsdp):.0f} %",
        f"{100 * statistics.median(shares):.0f} %" if shares else "-",
        f"{100 * ddp[0]:.0f} to {100 * ddp[-1]:.0f} %",
    ]  # fmt: skip


def lines(given: argparse.Namespace) -> Iterator[str]:
    """The table, line by line as it is measured; in every rank of a process group."""
    yield "| " + " | ".join(HEADER) + " |"
    yield "| --- " * len(HEADER) + "|"
    for model in given.models:
        yield "| " + " | ".join(measure(model, given)) + " |"


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["tiny", "1M", "5M"])
    parser.add_argument("--batch", type=int, default=64, help="windows a rank")
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--q-and-prior", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compile", default="auto", choices=["auto", "always", "never"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=25, help="of which the median counts")
    return parser.parse_args()


def main() -> None:
    """Start the ranks, or be one of them."""
    given = arguments()
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words = ["--nproc-per-node", str(given.ranks), __file__, *sys.argv[1:]]
        threads = {"OMP_NUM_THREADS": "1"} if given.device == "cpu" else {}
        sys.exit(subprocess.run([*launch, *words], env={**os.environ, **threads}).returncode)
    dist.init_process_group("cpu:gloo,cuda:nccl" if given.device == "cuda" else "gloo")
    for line in lines(given):
        if dist.get_rank() == 0:
            print(line, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
