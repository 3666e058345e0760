"""Count the arithmetic of an update, measure the machine's ceilings, and print the floor in time.

``python scripts/roofline.py --model 5M --batch 128 --horizon 16`` counts, without computing
anything, the floating-point operations of the matrix products in one pretraining update and one
extraction iteration, and the bytes that these products and the optimizers must move; then it
measures large products and a copy. Floor = the longer of operations / rate and bytes / bandwidth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.core.suites import get_suite
from pwm.data.windows.sampler import Batch
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.processor import computes_bfloat16

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}


@dataclass(frozen=True)
class Cost:
    """What one update needs at least.

    Attributes:
        flops: multiplications and additions of its matrix products.
        moved: bytes that these products read and write, in float32, and the optimizers.
    """

    flops: float
    moved: float

    def floor_ms(self, rate: float, bandwidth: float) -> float:
        """The least time at ``rate`` operations and ``bandwidth`` bytes a second."""
        return 1e3 * max(self.flops / rate, self.moved / bandwidth)


@dataclass(frozen=True)
class Ceilings:
    """Measured rates: operations a second of large products, and bytes a second of a copy.

    There is none in bfloat16 where the hardware has no such products.
    """

    float32: float
    tf32: float
    bfloat16: float | None
    copy: float

    @property
    def rates(self) -> dict[str, float]:
        """Those of products, by precision."""
        rates = {"float32": self.float32, "tf32": self.tf32}
        return rates if self.bfloat16 is None else rates | {"bfloat16": self.bfloat16}


class _Traffic(TorchDispatchMode):
    """Sums the bytes of what matrix products read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _PRODUCTS:
            tensors = [x for x in (*args, result) if isinstance(x, Tensor)]
            self.moved += sum(x.numel() * x.element_size() for x in tensors)
        return result


def model_size(name: str) -> ModelSize:
    """The size that a preset has."""
    return ModelSize(**yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text()))


def random_batch(suite: Any, horizon: int, size: int, device: torch.device) -> Batch:
    """Windows of noise, of the suite's sizes."""
    return Batch(
        torch.randn(horizon + 1, size, suite.obs_dim, device=device),
        torch.rand(horizon, size, suite.action_dim, device=device) * 2 - 1,
        torch.randn(horizon, size, device=device),
        torch.randint(0, len(suite), (size,), device=device),
    )


def pretraining_cost(name: str, batch: int, horizon: int, q_and_prior: bool) -> Cost:
    """Of one pretraining update over windows of MT80."""
    model = model_on_meta(name, q_and_prior)
    with shapes_alone():
        learner = weightless_learner(model)
        windows = random_batch(model.suite, horizon, batch, torch.device("cpu"))
        return _count(lambda: learner.update(windows), trained_numbers(model))


def shapes_alone() -> FakeTensorMode:
    """Where tensors that are made take no memory, and nothing is computed."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def model_on_meta(name: str, q_and_prior: bool) -> WorldModel:
    """A world model of MT80 without memory."""
    with torch.device("meta"):
        return WorldModel(model_size(name), get_suite("mt80"), q_and_prior)


def weightless_learner(model: WorldModel, bfloat16: bool = False) -> WorldModelLearner:
    """The learner of a model on the meta device; make and use it within :func:`shapes_alone`."""
    model.to_empty(device="cpu")
    discount = torch.full((len(model.suite),), 0.97)
    accelerator = Accelerator(torch.device("cpu"), bfloat16)
    return WorldModelLearner(model, LearnerConfig(), discount, accelerator)


def trained_numbers(model: nn.Module) -> int:
    """Parameters that an optimizer changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def extraction_cost(name: str, config: ActorCriticConfig, tasks: int) -> Cost:
    """Of one extraction iteration of some of MT80's tasks."""
    suite = get_suite("mt80")
    model = WorldModel(model_size(name), suite).requires_grad_(False)
    learner = ActorCriticLearner(model, suite.tasks[:tasks], config, 0)
    start = torch.rand(tasks, config.batch_size, model.size.latent_dim)
    noise = learner.noise()
    actors = sum(p.numel() for p in learner.actors.parameters())
    critics = sum(p.numel() for p in learner.critics.parameters())
    steps = config.critic.iterations * config.critic.batches
    with shapes_alone():
        return _count(lambda: learner.iteration(Inputs(start, noise)), actors + steps * critics)


def _count(update: Callable[[], object], stepped: int) -> Cost:
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        update()
    adam = 7 * 4 * stepped  # reads weight, gradient and two moments, writes all but the gradient
    return Cost(float(flops.get_total_flops()), float(traffic.moved + adam))


def measure_ceilings(device: torch.device) -> Ceilings:
    """Rates of large square products in three precisions and of a copy."""
    size = 8192 if device.type == "cuda" else 2048
    x = torch.randn(size, size, device=device)
    before = torch.get_float32_matmul_precision()
    rates = {}
    try:
        for name, precision in (("float32", "highest"), ("tf32", "high")):
            torch.set_float32_matmul_precision(precision)
            rates[name] = 2 * size**3 / _seconds(lambda: x @ x, device)
    finally:
        torch.set_float32_matmul_precision(before)
    bfloat16 = None
    if computes_bfloat16(device):
        half = x.bfloat16()
        bfloat16 = 2 * size**3 / _seconds(lambda: half @ half, device)
    large = torch.empty((1 << 30 if device.type == "cuda" else 1 << 26), device=device)
    other = torch.empty_like(large)
    copy = 2 * large.numel() * large.element_size() / _seconds(lambda: other.copy_(large), device)
    return Ceilings(rates["float32"], rates["tf32"], bfloat16, copy)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The fastest of ten: what else runs on the machine does not lower its ceiling."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print both costs and their floors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="5M")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    config = ActorCriticConfig(batch_size=given.batch, horizon=given.horizon)
    size = (given.model, given.batch, given.horizon)
    costs = {
        "pretraining update": pretraining_cost(*size, q_and_prior=False),
        "pretraining update, Q and prior": pretraining_cost(*size, q_and_prior=True),
        f"extraction iteration, {given.tasks} tasks": extraction_cost(
            given.model, config, given.tasks
        ),
    }
    ceilings = measure_ceilings(torch.device(given.device))
    rates = ceilings.rates
    for name, rate in rates.items():
        print(f"{name:9s} {rate / 1e9:10.0f} GFLOP/s")
    print(f"copy      {ceilings.copy / 1e9:10.1f} GB/s\n")
    print("| work | GFLOP | GB | " + " | ".join(f"floor ms, {name}" for name in rates) + " |")
    print("| --- " * (3 + len(rates)) + "|")
    for work, cost in costs.items():
        floors = [f"{cost.floor_ms(rate, ceilings.copy):.1f}" for rate in rates.values()]
        cells = [work, f"{cost.flops / 1e9:.1f}", f"{cost.moved / 1e9:.2f}", *floors]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
